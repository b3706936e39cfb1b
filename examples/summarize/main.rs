//! Summarizes texts of any length with a T5, or with a big and a little one.
//!
//! cargo run --release --example summarize -- --big flan-t5-large --little flan-t5-small --file article.txt

#[path = "../support/mod.rs"]
mod support;

mod windows;

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
};

use bild::{NoDraft, Overflow, Pair, Settings, Statistics, TextGenerator};
use clap::{Parser, ValueEnum};
use serde_json::json;
use support::{
    Error,
    models::{self, ModelArgs},
    policy::{Mode, PolicyArgs},
};
use windows::windows;

/// Summarize a text with a T5, or with a big and a little one.
///
/// A text longer than the model's window is summarized in windows of whole sentences, whose summaries are joined or
/// summarized again.
#[derive(Parser)]
#[command(name = "summarize")]
struct Args {
    /// The text; without it and without --file, standard input is read
    text: Option<String>,
    /// A file that holds the text
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// The folder of the big model
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    big: PathBuf,
    /// The folder of the little model; without it the big one works alone
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    little: Option<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Put before every window
    #[arg(long, value_name = "TEXT", default_value = "summarize: ")]
    prefix: String,
    /// The most tokens that the model reads at once, the prefix included
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..))]
    window: u32,
    /// The most tokens of one summary
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// What becomes of the summaries of several windows
    #[arg(long, value_enum, default_value = "join")]
    parts: Parts,
    /// The language of the text, which tells sentences from abbreviations
    #[arg(long, value_name = "CODE", default_value = "en")]
    language: String,
    /// One JSON object on standard output, and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Parts {
    /// They are put one after the other
    Join,
    /// They are summarized again, until one window holds them
    Again,
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    let text = text(args)?;
    let policy = args.policy.policy()?;
    let [big_options, little_options] = args.models.options()?;
    let load = |path: &PathBuf, name, options| -> Result<_, Error> {
        let checkpoint = models::open(path)?;
        Ok((checkpoint.tokenizer()?, models::load(&checkpoint, name, options)?))
    };
    let load_big = || load(&args.big, "the big model", &big_options);
    let load_little = |path| load(path, "the little model", &little_options);
    match (args.policy.mode(), &args.little) {
        (Mode::Bild | Mode::Lossless, Some(little)) => {
            let ((tokenizer, big), (_, little)) = (load_big()?, load_little(little)?);
            summarize(args, &text, TextGenerator::new(tokenizer, (little, big), policy)?)
        }
        (Mode::Little, Some(little)) => {
            let (tokenizer, little) = load_little(little)?;
            summarize(args, &text, TextGenerator::new(tokenizer, (NoDraft, little), policy)?)
        }
        (Mode::Little, None) => Err("this policy needs --little: name the folder of that model".into()),
        (Mode::Big, _) | (_, None) => {
            let (tokenizer, big) = load_big()?;
            summarize(args, &text, TextGenerator::new(tokenizer, (NoDraft, big), policy)?)
        }
    }
}

fn text(args: &Args) -> Result<String, Error> {
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?
        }
        (None, None) => {
            if io::stdin().is_terminal() {
                eprintln!("Reading standard input; Ctrl-D ends it.");
            }
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input cannot be read: {error}"))?;
            text
        }
    };
    if text.trim().is_empty() { Err("the text is empty".into()) } else { Ok(text) }
}

fn summarize<P: Pair>(args: &Args, text: &str, generator: TextGenerator<P>) -> Result<(), Error> {
    let settings = Settings::default()
        .max_new_tokens(args.max_new_tokens)
        .max_source_tokens(args.window as usize, Overflow::Truncate);
    let generator = generator.with_settings(settings).with_prefix(args.prefix.as_str());
    let fits = |text: &str| Ok(generator.source(text)?.tokens().len() <= args.window as usize);
    let mut statistics = Statistics::default();
    let mut rounds = Vec::new();
    let mut text = text.to_owned();
    let summary = loop {
        let windows = windows(&args.language, &text, fits)?;
        let progress = support::bar(windows.len() as u64, "Summarizing");
        let mut summaries = Vec::new();
        for window in &windows {
            if !fits(window)? {
                let most = args.window;
                progress.suspend(|| {
                    eprintln!("warning: a sentence has more than {most} tokens: what is beyond is not read")
                });
            }
            let summary = generator.generate(window)?;
            statistics += &summary.output.statistics;
            summaries.push(summary.text);
            progress.inc(1);
        }
        progress.finish_and_clear();
        rounds.push(windows.len());
        let joined = summaries.join(" ");
        // What does not get shorter would be summarized for ever.
        if windows.len() == 1 || args.parts == Parts::Join || joined.len() >= text.len() {
            break joined;
        }
        text = joined;
    };
    if args.json {
        println!("{}", json!({ "summary": summary, "windows": rounds, "stats": statistics }));
    } else {
        println!("{summary}");
        let windows: usize = rounds.iter().sum();
        let (plural, seconds) = (if windows == 1 { "" } else { "s" }, statistics.total_time.as_secs_f64());
        eprintln!("\n{statistics}\n{windows} window{plural} in {seconds:.2} s");
    }
    Ok(())
}
