//! A policy of one's own: the draft model hands over at the end of every word.
//!
//! cargo run --release --example custom_policy

use std::sync::Arc;

use bild::{Checkpoint, Context, Draft, Flex, Policy, PolicyState, Row, Start, T5, TextGenerator, Tokenizer};

/// Drafts one word at a time: as soon as a token begins a new word, what stands is verified. Nothing else is said, so
/// the rest is the trait's own: verification keeps what the big model would have written, and the output is lossless.
#[derive(Clone)]
struct WordByWord {
    tokenizer: Arc<Tokenizer>,
}

impl Policy for WordByWord {
    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

impl PolicyState for WordByWord {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        let begins_word = self.tokenizer.piece(row.argmax).is_some_and(|piece| piece.starts_with('▁'));
        if begins_word && !at.drafts.is_empty() { Draft::KeepLast(row.argmax) } else { Draft::Keep(row.argmax) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    let tokenizer = big.tokenizer()?;
    let policy = WordByWord { tokenizer: Arc::new(tokenizer.clone()) };
    let generator = TextGenerator::new(tokenizer, pair, policy)?;
    for text in ["Ich habe heute leider keine Zeit.", "Wo ist der Bahnhof?"] {
        let translated = generator.generate(text)?;
        println!("{}\n  {}", translated.text, translated.output.statistics);
    }
    Ok(())
}
