//! A policy of one's own: the draft model hands over at the end of every word.
//!
//! cargo run --release --example custom_policy

#[path = "support/mod.rs"]
mod support;

use std::{process::ExitCode, sync::Arc};

use bild::{Checkpoint, Context, Draft, Flex, Policy, PolicyState, Row, Start, T5, TextGenerator, Tokenizer};
use support::{Error, args, streams::Stdout};

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

/// Translate two sentences with a policy that is written in this program. It takes no arguments.
#[derive(clap::Parser)]
#[command(name = "custom_policy")]
struct Args {}

fn main() -> ExitCode {
    args::main(run)
}

fn run(_: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models/de-en");
    let (big, little) = (Checkpoint::open(format!("{models}/big"))?, Checkpoint::open(format!("{models}/little"))?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?);
    let tokenizer = big.tokenizer()?;
    let policy = WordByWord { tokenizer: Arc::new(tokenizer.clone()) };
    let generator = TextGenerator::new(tokenizer, pair, policy)?;
    for text in ["Ich habe heute leider keine Zeit.", "Wo ist der Bahnhof?"] {
        let translated = generator.generate(text)?;
        out.line(format_args!("{}\n  {}", translated.text, translated.output.statistics))?;
    }
    Ok(true)
}
