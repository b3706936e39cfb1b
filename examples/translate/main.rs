//! Translates with a big and a little T5: a sentence, a file, or standard input, one source a line.
//!
//! cargo run --release --example translate -- "Ich habe heute leider keine Zeit."

#[path = "../support/mod.rs"]
mod support;

mod input;
mod json;
mod report;
mod timeline;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use bild::{
    Checkpoint, Flex, Generator, LoadOptions, Lossless, NoDraft, Output, Pair, Settings, Source, T5, Token, Tokenizer,
};
use clap::Parser;
use support::{
    Error,
    models::{self, ModelArgs},
    policy::{Mode, PolicyArgs},
    sentences::sentences,
};

/// Translate with a big and a little T5: a sentence, a file, or standard input, one source a line.
///
/// A line may be a paragraph: its sentences are translated one by one and put back with their spacing.
///
/// Without --big and --little it uses the German-English pair of the repository, which is good at short everyday
/// sentences.
#[derive(Parser)]
#[command(name = "translate")]
struct Args {
    /// The sentence; without it and without --file, standard input is read
    text: Option<String>,
    /// A file of sources, one a line
    #[arg(long, conflicts_with = "text")]
    file: Option<PathBuf>,
    /// The folder of the big model, as transformers saves it
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    big: Option<PathBuf>,
    /// The folder of the little model
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    little: Option<PathBuf>,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The most tokens to write for a source
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Put before every source, as in "translate English to German: "
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The language of the sources, which tells sentences from abbreviations [default: de for the repository's pair, else en]
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// A line is one source, however many sentences it holds; so it is with --json and --ids
    #[arg(long)]
    whole: bool,
    /// Sources are space-separated token ids, taken as they are: nothing is appended, no prefix
    #[arg(long)]
    ids: bool,
    /// One JSON object a source on standard output, and nothing else
    #[arg(long, conflicts_with = "trace")]
    json: bool,
    /// Show who wrote each token, how sure it was, and what was taken back
    #[arg(long)]
    trace: bool,
}

impl Args {
    /// Whether no model was named, so that the repository's pair is used.
    fn is_default_pair(&self) -> bool {
        self.big.is_none() && self.little.is_none()
    }
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()))
}

/// Whether every source was translated.
fn run(args: &Args) -> Result<bool, Error> {
    let policy = args.policy.policy()?;
    let settings = Settings::default().max_new_tokens(args.max_new_tokens).trace(args.json || args.trace);
    let (big, little) = checkpoints(args)?;
    let tokenizer = big.as_ref().or(little.as_ref()).and_then(|checkpoint| checkpoint.tokenizer().ok());
    if tokenizer.is_none() && !args.ids {
        return Err("the model has neither tokenizer.json nor spiece.model: give token ids with --ids".into());
    }
    let [big_options, little_options] = args.models.options()?;
    let load = |checkpoint: Option<Checkpoint>, name, options: &LoadOptions| {
        checkpoint.map(|checkpoint| models::load(&checkpoint, name, options)).transpose()
    };
    let big = load(big, "the big model", &big_options)?;
    let little = load(little, "the little model", &little_options)?;
    let alone = |model: T5<Flex>| Generator::new((NoDraft, model), Lossless::default());
    match (args.policy.mode(), big, little) {
        (Mode::Big, Some(big), _) => translate(args, &tokenizer, &alone(big)?.with_settings(settings), None),
        (Mode::Little, _, Some(little)) => translate(args, &tokenizer, &alone(little)?.with_settings(settings), None),
        (_, Some(big), Some(little)) => {
            let generator = Generator::new((little, big.clone()), policy)?.with_settings(settings.clone());
            let baseline = alone(big)?.with_settings(settings.trace(false));
            translate(args, &tokenizer, &generator, Some(&baseline))
        }
        _ => unreachable!("checkpoints() opens what the policy needs"),
    }
}

/// The checkpoints that the policy needs: those of the command line, or the repository's pair if it names none.
fn checkpoints(args: &Args) -> Result<(Option<Checkpoint>, Option<Checkpoint>), Error> {
    let default = |role| args.is_default_pair().then(|| models::default_pair(role));
    let open = |path: Option<PathBuf>, needed: bool, option: &str| match path.filter(|_| needed) {
        Some(path) => Ok(Some(models::open(&path)?)),
        None if needed => Err(Error::from(format!("this policy needs {option} too: name the folder of that model"))),
        None => Ok(None),
    };
    let mode = args.policy.mode();
    let big = open(args.big.clone().or_else(|| default("big")), mode != Mode::Little, "--big")?;
    Ok((big, open(args.little.clone().or_else(|| default("little")), mode != Mode::Big, "--little")?))
}

/// A line, translated: its text, and each source that it was made of with what was written for it.
struct Translation {
    text: String,
    parts: Vec<(Source, Output)>,
}

/// The longest source that the repository's pair was trained on.
const TRAINED_LENGTH: usize = 48;

/// Goes through the lines; what is shown of each depends on who reads it. One that cannot be translated does not stop the
/// others.
fn translate<P: Pair>(
    args: &Args,
    tokenizer: &Option<Tokenizer>,
    generator: &Generator<P>,
    baseline: Option<&Generator<(NoDraft, T5<Flex>)>>,
) -> Result<bool, Error> {
    let sources = input::sources(args.text.as_deref(), args.file.as_deref())?;
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let progress = match sources.count {
        Some(1) => indicatif::ProgressBar::hidden(),
        Some(count) => support::bar(count as u64, "Translating"),
        None => support::spinner("Translating".into()),
    };
    let (mut complete, mut report) = (true, report::Report::default());
    for (number, line) in sources.lines.enumerate() {
        let line = line?;
        let translated = translate_line(args, tokenizer, generator, &line, sources.count == Some(1));
        let mut out = io::stdout().lock();
        progress.suspend(|| match &translated {
            Ok(translation) if args.json => writeln!(out, "{}", json::object(&line, translation)),
            Ok(translation) => writeln!(out, "{}", translation.text),
            Err(error) if args.json => writeln!(out, "{}", json::failure(&line, error.as_ref())),
            Err(error) => {
                eprintln!("error: source {}: {error}", number + 1);
                if sources.count == Some(1) { Ok(()) } else { writeln!(out) } // the lines stay aligned
            }
        })?;
        for (source, output) in translated.iter().flat_map(|translation| &translation.parts) {
            warn_if_long(args, source, &progress);
            if args.json {
                continue;
            }
            if args.trace {
                timeline::write(&mut out, output, tokenizer.as_ref(), colour)?;
            }
            let rounds = if sources.count == Some(1) { report::ROUNDS } else { 1 };
            report.add(output, generator, baseline, source, rounds)?;
        }
        complete &= translated.is_ok();
        out.flush()?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    if !args.json && report.sources > 0 {
        // Under one sentence the report belongs to what was asked for; under many lines it must not mix with them.
        if sources.count == Some(1) { println!("\n{report}") } else { eprintln!("\n{report}") }
    }
    Ok(complete)
}

/// Translates a line, sentence by sentence unless it is to be one source. A blank line among others stays one.
fn translate_line<P: Pair>(
    args: &Args,
    tokenizer: &Option<Tokenizer>,
    generator: &Generator<P>,
    line: &str,
    alone: bool,
) -> Result<Translation, Error> {
    let mut translation = Translation { text: String::new(), parts: Vec::new() };
    let mut add = |source: Source, space: &str| -> Result<(), Error> {
        let output = generator.generate(&source)?;
        translation.text += &match tokenizer {
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
    let tokenizer = tokenizer.as_ref().ok_or("the model has no tokenizer")?;
    let source =
        |text: &str| -> Result<Source, Error> { Ok(Source::new(tokenizer.encode(&format!("{}{text}", args.prefix))?)) };
    let paragraph = !args.whole && !args.json;
    if line.trim().is_empty() && (alone || !paragraph) {
        return Err(bild::Error::EmptySource.into());
    }
    if paragraph {
        let language = if args.is_default_pair() { "de" } else { "en" };
        let (before, sentences) = sentences(args.language.as_deref().unwrap_or(language), line);
        for sentence in sentences {
            add(source(sentence.text)?, sentence.space)?;
        }
        translation.text.insert_str(0, before);
    } else {
        add(source(line)?, "")?;
    }
    Ok(translation)
}

fn warn_if_long(args: &Args, source: &Source, progress: &indicatif::ProgressBar) {
    let length = source.tokens().len();
    if args.is_default_pair() && length > TRAINED_LENGTH {
        progress.suspend(|| {
            eprintln!(
                "warning: a sentence of {length} tokens; this pair was trained on at most {TRAINED_LENGTH} and may lose its way"
            )
        });
    }
}
