//! From text to text with a pair of models.
//!
//! cargo run --release --example translate -- "Ich habe heute leider keine Zeit."

use bild::{Bild, Checkpoint, Flex, T5, TextGenerator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::new(0.5, 2.0)?)?;

    let text = std::env::args().nth(1).unwrap_or_else(|| "Ich habe heute leider keine Zeit.".into());
    let translated = generator.generate(&text)?;
    println!("{}", translated.text);
    println!("{}", translated.output.statistics);
    Ok(())
}
