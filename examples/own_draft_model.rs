//! A draft model of one's own: it proposes what a list of phrases goes on with. The big model judges, so the text is its own.
//!
//! cargo run --release --example own_draft_model

use std::sync::Arc;

use bild::{
    decode::{Result, Token},
    prelude::*,
};

/// Phrases that are likely to be written, as tokens.
struct Phrases(Arc<[Vec<Token>]>);

struct Session {
    phrases: Arc<[Vec<Token>]>,
    written: Vec<Token>,
}

impl Model for Phrases {
    type Session = Session;

    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<Session> {
        Ok(Session { phrases: self.0.clone(), written: Vec::new() })
    }
}

impl DraftModel for Phrases {}

impl DraftSession for Session {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.written.truncate(pass.keep);
        self.written.extend_from_slice(pass.new);
        let last_two = self.written.last_chunk::<2>();
        let after = |phrase: &Vec<Token>| {
            phrase.windows(3).find(|three| Some(&[three[0], three[1]]) == last_two).map(|three| three[2])
        };
        Ok(self.phrases.iter().find_map(after).map(Row::certain).into())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let checkpoint = Checkpoint::open("models/de-en/big")?;
    let (tokenizer, big) = (checkpoint.tokenizer()?, T5::<Flex>::load(&checkpoint, &Default::default())?);
    let phrases = ["I don't think that", "I'm afraid I don't have time today."];
    let phrases: Result<Vec<_>> = phrases.iter().map(|phrase| tokenizer.encode_plain(phrase)).collect();
    let generator = TextGenerator::new(tokenizer, (Phrases(phrases?.into()), big), Lossless::default())?;
    let translated = generator.generate("Ich habe heute leider keine Zeit.")?;
    println!("{}\n  {}", translated.text, translated.output.statistics);
    Ok(())
}
