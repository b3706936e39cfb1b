//! What may be written: words that are never written, and no three words twice.
//!
//! cargo run --release --example processors

use bild::{
    Checkpoint, Flex, Lossless, Settings, T5, TextGenerator, TextRequest,
    decode::NoDraft,
    policies::processors::{BadWords, NoRepeatNgram},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let checkpoint = Checkpoint::open("models/de-en/big")?;
    let (tokenizer, big) = (checkpoint.tokenizer()?, T5::<Flex>::load(&checkpoint, &Default::default())?);
    let words = BadWords::words(&tokenizer, ["time"])?;
    let generator = TextGenerator::new(tokenizer, (NoDraft, big), Lossless::default())?;

    let text = "Ich habe heute leider keine Zeit.";
    println!("{}", generator.generate(text)?.text);
    let settings = Settings::default().with_processor(words).with_processor(NoRepeatNgram::new(3)?);
    println!("{}", generator.generate(TextRequest::new(text).with_settings(settings))?.text);
    Ok(())
}
