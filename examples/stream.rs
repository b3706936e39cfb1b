//! Text as it becomes final, ended early with what there is.
//!
//! cargo run --release --example stream

use std::io::Write;

use bild::{Bild, Checkpoint, Flex, T5, TextGenerator};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    let generator = TextGenerator::new(big.tokenizer()?, pair, Bild::default())?;

    for piece in generator.stream("Ich glaube nicht, dass Tom heute noch kommt.")? {
        print!("{}|", piece?);
        std::io::stdout().flush()?;
    }
    println!();

    let mut stream = generator.stream("Ich glaube nicht, dass Tom heute noch kommt.")?;
    let first = stream.next().transpose()?;
    let output = stream.stop()?;
    println!("{first:?}, then stopped: {:?} ({:?})", output.text, output.output.finish);
    Ok(())
}
