//! The two models of a pair on different backends: the little one on the CPU in Rust, the big one elsewhere.
//!
//! cargo run --release --example mixed_backends --features ndarray

use bild::{
    Bild, Checkpoint, Flex, T5, TextGenerator,
    backends::NdArray,
    decode::{BoxedPair, Pair},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let little = T5::<Flex>::load(&little, &Default::default())?;
    // Without its type, so that a program that chooses at run time has one type for all its pairs.
    let pair: BoxedPair = if std::env::args().any(|argument| argument == "flex") {
        (little, T5::<Flex>::load(&big, &Default::default())?).boxed()
    } else {
        (little, T5::<NdArray>::load(&big, &Default::default())?).boxed()
    };
    let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::default())?;
    println!("{}", generator.generate("Ich habe heute leider keine Zeit.")?.text);
    Ok(())
}
