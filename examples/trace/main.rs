//! One sentence as a page: who wrote each token, how sure it was, what was taken back.
//!
//! cargo run --release --example trace -- "Ich kann Tom nicht allein lassen." --html trace.html

#[path = "../support/mod.rs"]
mod support;

mod page;

use std::{fs, path::PathBuf, process::ExitCode};

use bild::{Overflow, Settings};
use clap::Parser;
use page::{Trace, page};
use support::{Error, dataset::Example, pair::PairArgs, policy::PolicyArgs, trial::Bench};

/// Write a page that shows how a sentence was decoded: who wrote each token, how sure it was, what was taken back.
#[derive(Parser)]
#[command(name = "trace")]
struct Args {
    /// The sentence
    text: String,
    /// The page, which needs no other file
    #[arg(long, value_name = "FILE", default_value = "trace.html")]
    html: PathBuf,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The most tokens to write
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// The seed of a policy that draws random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    if args.text.trim().is_empty() {
        return Err(bild::Error::EmptySource.into());
    }
    let policy = args.policy.policy()?;
    let settings = Settings::default()
        .max_new_tokens(args.max_new_tokens)
        .max_source_tokens(2048, Overflow::Error)
        .seed(args.seed)
        .trace(true);
    let example = Example { source: args.text.clone(), reference: String::new() };
    let bench = Bench::new(args.pair.load()?, vec![example], &args.pair.prefix, settings)?;
    let output = bench.generator(&policy)?.generate(&bench.sources[0])?;
    let text = bench.tokenizer.decode(&output.tokens)?;
    let trace = Trace { source: &args.text, text: &text, policy: &serde_json::to_string(&policy)?, output: &output };
    let html = page(&trace, |token| bench.tokenizer.piece(token).unwrap_or_else(|| format!("<{token}>")));
    fs::write(&args.html, html).map_err(|error| format!("{} cannot be written: {error}", args.html.display()))?;
    println!("{text}");
    eprintln!("{}", args.html.display());
    Ok(())
}
