//! Many texts at once, in order; one that fails loses no other.
//!
//! cargo run --release --example many

use bild::{Bild, Checkpoint, Flex, T5, TextGenerator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::default())?;

    let texts = ["Guten Morgen!", "", "Wo ist der Bahnhof?", "Tom ist nicht zu Hause."];
    generator.generate_many(texts, |number, output| match output {
        Ok(output) => println!("{}: {}", number + 1, output.text),
        Err(error) => println!("{}: {error}", number + 1),
    });
    Ok(())
}
