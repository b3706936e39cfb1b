//! Texts that are translated anew at every word that is typed: what was written for the words before is drafted.
//!
//! cargo run --release --example typing -- "Ich glaube nicht, dass Tom heute noch kommt."

use bild::{Checkpoint, Flex, Lossless, T5, TextGenerator, TextRequest, decode::Statistics, models::Guess};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let big = Checkpoint::open("models/de-en/big")?;
    let pair = (Guess, T5::<Flex>::load(&big, &Default::default())?);
    let generator = TextGenerator::new(big.tokenizer()?, pair, Lossless::without_limit())?;

    let [mut guessed, mut alone] = [Statistics::default(), Statistics::default()];
    for text in std::env::args().skip(1) {
        let mut last = String::new();
        for (end, _) in text.match_indices(' ').chain([(text.len(), "")]) {
            let typed = &text[..end];
            let output = generator.generate(TextRequest::new(typed).with_guess(&last))?;
            let without = generator.generate(typed)?;
            assert_eq!(output.text, without.text);
            guessed += &output.output.statistics;
            alone += &without.output.statistics;
            last = output.text;
            println!("{typed} → {last}");
        }
    }
    let [guessed, alone] = [guessed, alone].map(|statistics| statistics.block_efficiency().unwrap_or_default());
    println!("{guessed:.2} tokens a pass of the big model, {alone:.2} without a guess");
    Ok(())
}
