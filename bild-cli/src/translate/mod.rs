//! Translates: a sentence, a file, or standard input, one source a line.

mod corpus;
mod input;
mod json;
mod report;
mod timeline;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use bild::{
    Output,
    decode::{BoxedPair, Generator, Source, Token},
    models::Tokenizer,
    policies::AnyPolicy,
};
use bild_eval::sentences;

use crate::{
    Error,
    files::Files,
    options::{self, MOST_TOKENS, PairArgs, PolicyArgs, SourceArgs, TextArgs, language},
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
    files.reads_folders(args.pair.options().folders()?).check()?;
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
    let program = Program {
        args,
        tokenizer,
        generator: loaded.generator(&policy, traced)?,
        is_default_pair: args.pair.options().is_default(),
    };
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

/// A line, translated: its text, and each source that it was made of with what was written for it.
struct Translation {
    text: String,
    parts: Vec<(Source, Output)>,
}

/// The longest source that the default pair was trained on.
const TRAINED_LENGTH: usize = 48;

struct Program<'a> {
    args: &'a Args,
    tokenizer: Option<Tokenizer>,
    generator: Generator<BoxedPair>,
    is_default_pair: bool,
}

impl Program<'_> {
    /// Goes through the lines: for each one line on standard output. One that cannot be translated does not stop the others.
    /// Whether there was none such.
    fn translate(&self, sources: input::Sources, out: &mut Stdout, report: &mut report::Report) -> Result<bool, Error> {
        let args = self.args;
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let progress = match sources.count {
            Some(0 | 1) => indicatif::ProgressBar::hidden(),
            Some(count) => progress::bar(count, "Translating"),
            None => progress::spinner("Translating".into()),
        };
        let mut complete = true;
        for (number, line) in sources.lines.enumerate() {
            let line = line?;
            let translated = self.line(&line, sources.is_argument);
            complete &= translated.is_ok();
            if let Some(tokenizer) = self.tokenizer.as_ref().filter(|_| !args.ids)
                && let Some(warning) = warnings::unknown(tokenizer, &line)?
            {
                progress.suspend(|| say(format_args!("warning: source {}: {warning}", number + 1)));
            }
            progress.suspend(|| match &translated {
                Ok(translation) if args.json => out.line(json::object(&line, translation)),
                Ok(translation) => out.line(&translation.text),
                Err(error) if args.json => out.line(json::failure(&line, error.as_ref())),
                Err(error) => {
                    say(format_args!("error: source {}: {error}", number + 1));
                    out.line("") // the lines stay aligned
                }
            })?;
            for (source, output) in translated.iter().flat_map(|translation| &translation.parts) {
                progress.suspend(|| {
                    self.warn_of_output(number + 1, source, output);
                    if args.trace {
                        say(timeline::timeline(output, self.tokenizer.as_ref(), colour));
                    }
                });
                report.add(output, source, args.time);
            }
            if out.is_closed() {
                break; // nobody reads the rest
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(complete)
    }

    /// Translates a line, sentence by sentence unless it is to be one source. A blank line stays one.
    fn line(&self, line: &str, is_argument: bool) -> Result<Translation, Error> {
        let args = self.args;
        let mut translation = Translation { text: String::new(), parts: Vec::new() };
        let mut add = |source: Source, space: &str| -> Result<(), Error> {
            let output = self.generator.generate(&source).map_err(explained)?;
            translation.text += &match &self.tokenizer {
                // What was written is one line, too.
                Some(tokenizer) if !args.json => tokenizer.decode(&output.tokens)?.replace(['\n', '\r'], " "),
                Some(tokenizer) => tokenizer.decode(&output.tokens)?,
                None if args.json => String::new(),
                None => format!("{:?}", output.tokens),
            };
            translation.text += space;
            translation.parts.push((source, output));
            Ok(())
        };
        if args.ids {
            let token = |word: &str| word.parse::<Token>().map_err(|_| format!("\"{word}\" is not a token id"));
            add(Source::new(line.split_whitespace().map(token).collect::<Result<Vec<_>, _>>()?), "")?;
            return Ok(translation);
        }
        let tokenizer = self.tokenizer.as_ref().ok_or("the model has no tokenizer")?;
        let source = |text: &str| -> Result<Source, Error> {
            Ok(Source::new(tokenizer.encode(&format!("{}{text}", args.texts.prefix))?))
        };
        if line.trim().is_empty() {
            if is_argument || args.json {
                return Err(bild::Error::EmptySource.into());
            }
            translation.text = line.into();
        } else if args.whole || args.json {
            add(source(line)?, "")?;
        } else {
            let language = if self.is_default_pair { "de" } else { "en" };
            let (before, sentences) = sentences(args.language.as_deref().unwrap_or(language), line);
            for sentence in sentences {
                add(source(sentence.text)?, sentence.space)?;
            }
            translation.text.insert_str(0, before);
        }
        Ok(translation)
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
