//! Translates: a sentence, a file, or standard input, one source a line.

mod corpus;
mod end;
mod input;
mod json;
mod lines;
mod report;
mod timeline;

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
    path::PathBuf,
};

use bild::{
    Output,
    decode::{BoxedPair, Generator, Source},
    models::Tokenizer,
    policies::AnyPolicy,
};
use end::End;
use lines::Translation;

use crate::{
    Error,
    files::Files,
    options::{self, MOST_TOKENS, PairArgs, PolicyArgs, SourceArgs, TextArgs, language, whole},
    policy::{Needs, needs},
    progress,
    streams::{Stdout, say},
    warnings,
};

/// Translate a sentence, a file, or standard input, one source a line.
///
/// For a corpus give JSON objects with --jsonl: they are translated many at once, and gone on with where a run was cut off.
///
/// A line may be a paragraph: its sentences are translated one by one and put back with their spacing.
///
/// Without --big and --little it uses the German-English pair of bild's repository, which is good at short everyday
/// sentences.
///
/// Standard output holds one line for each line of the sources, and nothing else; the rest goes to standard error.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    /// The sentence; without it and without --file, or as "-", standard input is read
    text: Option<String>,
    /// A file of sources, one a line, "-" for standard input
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// The language of the sources, which tells sentences from abbreviations [default: de for the default pair, else en]
    #[arg(long, value_name = "CODE", value_parser = language)]
    language: Option<String>,
    /// A line is one source, however many sentences it holds; so it is with --json and --ids
    #[arg(long)]
    whole: bool,
    /// Sources are space-separated token ids, taken as they are: nothing is appended, no prefix
    #[arg(long)]
    ids: bool,
    /// One JSON object a source on standard output
    #[arg(long, conflicts_with_all = ["trace", "time"])]
    json: bool,
    /// Sources and results are JSON objects, one a line: {"id": …, "text": …} becomes {"id": …, "text": …, "tokens": n} or
    /// {"id": …, "error": …}, in the same order
    #[arg(long, conflicts_with_all = ["text", "ids", "json", "trace", "time"])]
    jsonl: bool,
    /// Where they go in place of standard output; what is there already of these sources is gone on with
    #[arg(long, value_name = "FILE", requires = "jsonl", conflicts_with = "text")]
    out: Option<PathBuf>,
    /// Only a share of the lines, as 3/16: of each sixteen the third
    #[arg(long, value_name = "I/N", requires = "jsonl", conflicts_with = "text", value_parser = corpus::shard)]
    shard: Option<corpus::Shard>,
    /// How many sources are decoded together [default: what suits the machine]
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    batch: Option<usize>,
    /// Show on standard error who wrote each token, how sure it was, and what was taken back
    #[arg(long)]
    trace: bool,
    /// Afterwards time the pair and the big model alone, in turn, on the first sources, 100 at most: up to seven rounds, and
    /// no longer than ten seconds
    #[arg(long)]
    time: bool,
}

/// Whether every source was translated.
pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let file = options::file(args.file.as_deref(), args.text.as_deref());
    let mut files = Files::default();
    files.writes("--out", args.out.as_deref());
    files.reads("the text", file).reads("--policy-file", args.policy.file());
    files.reads_pair(&args.pair)?.check()?;
    let policy = args.policy.policy()?;
    let needs = needs(&policy);
    warn(args, needs);
    // Before the models are loaded: a file that cannot be read is said at once.
    let sources = match file {
        Some(path) if args.jsonl => input::of_corpus(path)?,
        Some(path) => input::of_file(path)?,
        None => input::of_text(args.text.as_deref().unwrap_or_default()),
    };
    let loaded = args.pair.options().load(needs)?;
    let tokenizer = loaded.tokenizer().ok().cloned();
    if tokenizer.is_none() && !args.ids {
        return Err("the model has neither tokenizer.json nor spiece.model: give token ids with --ids".into());
    }
    let policy = args.policy.of(&loaded, policy)?;
    options::warn(args.texts.warning(&policy));
    let limits = args.texts.limits(args.source.max_source_tokens, args.source.truncate);
    let settings = loaded.settings(&limits)?;
    let traced = settings.clone().with_trace(args.json || args.trace);
    let big = (needs == Needs::Both).then(|| loaded.generator(&AnyPolicy::Big(Default::default()), settings.clone()));
    let mut generator = loaded.generator(&policy, traced)?;
    if let Some(batch) = args.batch.and_then(NonZeroUsize::new) {
        generator = generator.with_at_once(batch);
    }
    let (pair, given) = (args.pair.options(), args.language.as_deref());
    let language = pair.language(given);
    let program = Program { args, tokenizer, generator, language, is_default_pair: pair.is_default() };
    let mut report = report::Report::new(needs != Needs::Both);
    let complete = if args.jsonl {
        program.translate_corpus(sources, args.shard, args.out.as_deref(), out, &mut report)?
    } else {
        program.translate(sources, out, &mut report)?
    };
    if !args.json && report.sources > 0 {
        say(format_args!("{report}"));
    }
    if let Some(big) = big.transpose()?.filter(|_| args.time && report.sources > 0 && !out.is_closed()) {
        let untraced = loaded.generator(&policy, settings)?;
        say(report.timed([&untraced, &big])?);
    }
    Ok(complete)
}

/// Says which options have no effect.
fn warn(args: &Args, needs: Needs) {
    let one_source = args.whole || args.json || args.ids;
    let ignored = [
        (args.language.is_some() && one_source, "--language has no effect: a line is one source"),
        (args.ids && !args.texts.prefix.is_empty(), "--prefix has no effect with --ids"),
        (args.time && needs != Needs::Both, "--time has no effect: one model decodes alone"),
    ];
    let ignored = ignored.into_iter().filter(|(is, _)| *is).map(|(_, sentence)| sentence.to_owned());
    args.pair.warn(&args.policy, needs);
    options::warn(ignored);
}

/// The longest source that the default pair was trained on.
const TRAINED_LENGTH: usize = 48;

struct Program<'a> {
    args: &'a Args,
    tokenizer: Option<Tokenizer>,
    generator: Generator<BoxedPair>,
    language: String,
    is_default_pair: bool,
}

impl Program<'_> {
    /// Goes through the lines: for each one line on standard output. One that cannot be translated does not stop the others.
    /// Whether there was none such.
    fn translate(&self, sources: input::Sources, out: &mut Stdout, report: &mut report::Report) -> Result<bool, Error> {
        let progress = match sources.count {
            Some(0 | 1) => indicatif::ProgressBar::hidden(),
            Some(count) => progress::bar(count, "Translating"),
            None => progress::spinner("Translating".into()),
        };
        let (mut complete, mut number, end) = (true, 0, End::default());
        let lines = sources.lines.map_while(|line| end.unless(line));
        let each = |line: String, translated: Result<Translation, Error>| {
            number += 1;
            if end.is_closed() {
                return;
            }
            complete &= translated.is_ok();
            let shown = self.show(&line, number, &translated, out, report, &progress);
            end.after(shown, !out.is_closed());
            progress.inc(1);
        };
        self.lines(lines, |line| Ok(line), sources.is_argument, each);
        progress.finish_and_clear();
        end.result().map(|()| complete)
    }

    /// Writes the line of a translation, and what there is to say of it.
    fn show(
        &self,
        line: &str,
        number: usize,
        translated: &Result<Translation, Error>,
        out: &mut Stdout,
        report: &mut report::Report,
        progress: &indicatif::ProgressBar,
    ) -> Result<(), Error> {
        let args = self.args;
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if let Some(tokenizer) = self.tokenizer.as_ref().filter(|_| !args.ids)
            && let Some(warning) = warnings::unknown(tokenizer, line)?
        {
            progress.suspend(|| say(format_args!("warning: source {number}: {warning}")));
        }
        progress.suspend(|| match translated {
            Ok(translation) if args.json => out.line(json::object(line, translation)),
            Ok(translation) => out.line(&translation.text),
            Err(error) if args.json => out.line(json::failure(line, error.as_ref())),
            Err(error) => {
                say(format_args!("error: source {number}: {error}"));
                out.line("") // the lines stay aligned
            }
        })?;
        for (source, output) in translated.iter().flat_map(|translation| &translation.parts) {
            progress.suspend(|| {
                self.warn_of_output(number, source, output);
                if args.trace {
                    say(timeline::timeline(output, self.tokenizer.as_ref(), colour));
                }
            });
            report.add(output, source, args.time);
        }
        Ok(())
    }

    /// Says of a source what its translation does not show.
    fn warn_of_output(&self, number: usize, source: &Source, output: &Output) {
        let length = source.tokens().len();
        let read = output.source_tokens;
        if let Some(warning) = warnings::time_up(output) {
            say(format_args!("warning: source {number}: {warning}"));
        }
        if output.truncated {
            say(format_args!(
                "warning: source {number}: of a sentence of {length} tokens {read} are read, the rest is cut"
            ));
        } else if self.is_default_pair && length > TRAINED_LENGTH {
            say(format_args!(
                "warning: source {number}: a sentence of {length} tokens; this pair was trained on at most {TRAINED_LENGTH} \
                 and may lose its way"
            ));
        }
    }
}

/// An error with what may be done about it here.
fn explained(error: bild::Error) -> Error {
    match error {
        bild::Error::SourceTooLong { length, .. } if length as u64 <= MOST_TOKENS => {
            format!("{error} (--max-source-tokens, or --truncate)").into()
        }
        bild::Error::SourceTooLong { .. } => format!("{error} (--truncate)").into(),
        error => error.into(),
    }
}
