//! Summarizes a text of any length.

use std::{path::PathBuf, time::Instant};

use bild::{
    decode::{BoxedPair, Generator, Source, Statistics},
    models::Tokenizer,
};
use bild_eval::{End, text, windows};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    Error,
    files::Files,
    options::{self, MOST_TOKENS, PairArgs, PolicyArgs, TextArgs, language, whole},
    policy::needs,
    progress,
    streams::{Stdout, say},
    warnings,
};

/// Summarize a text of any length.
///
/// A text longer than the model's window is summarized in windows of whole sentences, whose summaries are joined or
/// summarized again. A sentence longer than the window is cut at a comma or the end of a line, at white space, at last
/// between tokens. The text is read as it is, and all of it.
#[derive(clap::Args, Debug)]
#[command(
    allow_negative_numbers = true,
    mut_arg("little", |little| little.help("The folder of the little model; beside --big, without anything that drafts, the big one works alone")),
    mut_arg("prefix", |prefix| prefix.default_value("summarize: ").hide_default_value(false).help("Put before every window")),
    mut_arg("max_new_tokens", |most| most.help("The most tokens of one summary")),
)]
pub(crate) struct Args {
    /// The text; without it and without --file, or as "-", standard input is read
    text: Option<String>,
    /// A file that holds the text, "-" for standard input
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// The most tokens that the model reads at once, the prefix included
    #[arg(long, value_name = "N", default_value = "512", value_parser = whole(8..=MOST_TOKENS))]
    window: usize,
    /// What becomes of the summaries of several windows
    #[arg(long, value_enum, default_value = "join")]
    parts: Parts,
    /// The language of the text, which tells sentences from abbreviations
    #[arg(long, value_name = "CODE", default_value = "en", value_parser = language)]
    language: String,
    /// One JSON object on standard output
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

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let file = options::file(args.file.as_deref(), args.text.as_deref());
    let mut files = Files::default();
    files.reads("the text", file).reads("--policy-file", args.policy.file());
    files.reads_pair(&args.pair)?.check()?;
    let pair = args.pair.options();
    let policy = args.pair.policy(&args.policy)?;
    let text = match file {
        Some(path) => text::read(path)?,
        None => text::without_marks(args.text.clone().unwrap_or_default()),
    };
    if text.trim().is_empty() {
        return Err("the text is empty".into());
    }
    let loaded = pair.load(needs(&policy))?;
    let policy = args.policy.of(&loaded, policy)?;
    options::warn(args.texts.warning(&policy));
    options::warn(warnings::unknown(loaded.tokenizer()?, &text)?);
    let limits = args.texts.limits(args.window, false); // every window fits
    let settings = loaded.settings(&limits)?;
    let generator = loaded.generator(&policy, settings)?;
    let summarizer = Summarizer { args, tokenizer: loaded.tokenizer()?.clone(), generator };
    summarizer.summarize(text, out)?;
    Ok(true)
}

struct Summarizer<'a> {
    args: &'a Args,
    tokenizer: Tokenizer,
    generator: Generator<BoxedPair>,
}

impl Summarizer<'_> {
    fn source(&self, text: &str) -> bild::decode::Result<Source> {
        Ok(Source::new(self.tokenizer.encode(&format!("{}{text}", self.args.texts.prefix))?))
    }

    fn summarize(&self, mut text: String, out: &mut Stdout) -> Result<(), Error> {
        let (args, begun) = (self.args, Instant::now());
        let fits = |text: &str| -> bild_eval::Result<bool> { Ok(self.source(text)?.tokens().len() <= args.window) };
        let mut statistics = Statistics::default();
        let (mut rounds, mut parts) = (Vec::new(), Vec::new());
        let summary = loop {
            let windows = windows(&args.language, &text, fits)?;
            let progress = progress::bar(windows.len(), "Summarizing");
            let mut summaries = Vec::new();
            let sources = windows.iter().map(|window| self.source(window.text)).collect::<Result<Vec<_>, _>>()?;
            let mut outputs = Vec::new();
            self.generator.generate_many(sources, |_, output| {
                outputs.push(output);
                progress.inc(1);
            });
            for (window, output) in windows.iter().zip(outputs) {
                let output = output?;
                statistics += &output.statistics;
                let warning = warnings::time_up(&output);
                progress.suspend(|| {
                    options::warn(warning.map(|warning| format!("window {}: {warning}", summaries.len() + 1)))
                });
                let summary = self.tokenizer.decode(&output.tokens)?;
                parts.push(json!({
                    "round": rounds.len() + 1, "source_tokens": output.source_tokens, "truncated": output.truncated,
                    "end": window.end.name(), "summary": summary,
                }));
                summaries.push(summary);
            }
            progress.finish_and_clear();
            let cut = windows.iter().filter(|window| window.end > End::Sentence).count();
            if cut > 0 {
                let (plural, most) = (if cut == 1 { "" } else { "s" }, args.window);
                say(format_args!(
                    "note: {cut} window{plural} of {most} tokens end{} within a sentence",
                    if cut == 1 { "s" } else { "" }
                ));
            }
            rounds.push(windows.len());
            let joined = summaries.join(" ");
            // What does not get shorter would be summarized for ever.
            if windows.len() == 1 || args.parts == Parts::Join || joined.len() >= text.len() {
                break joined;
            }
            text = joined;
        };
        // Windows are summarized together: their times overlap.
        statistics.total_time = begun.elapsed();
        if args.json {
            let first = parts.iter().filter(|part| part["round"] == 1);
            let source_tokens: u64 = first.filter_map(|part| part["source_tokens"].as_u64()).sum();
            let truncated = parts.iter().any(|part: &Value| part["truncated"] == true);
            return out.line(json!({
                "summary": summary, "windows": rounds, "stats": statistics,
                "source_tokens": source_tokens, "truncated": truncated, "parts": parts,
            }));
        }
        out.line(&summary)?;
        let windows: usize = rounds.iter().sum();
        let (plural, seconds) = (if windows == 1 { "" } else { "s" }, statistics.total_time.as_secs_f64());
        say(format_args!("{statistics}\n{windows} window{plural} in {seconds:.2} s"));
        Ok(())
    }
}
