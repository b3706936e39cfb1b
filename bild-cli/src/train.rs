//! Trains a model on two files of text.

use std::{collections::HashSet, fs, path::PathBuf};

use bild::{
    CancelToken, Checkpoint, Settings, T5,
    decode::{NoDraft, Overflow, Pair},
    models::Tokenizer,
    policies::{AnyPolicy, BigAlone},
};
use bild_eval::{Bench, Conditions, Example, Observer, OutputFile, dataset, digest_of_texts, scores, text};
use bild_train::{Flex, check_replaceable, examples, unigram};

use crate::{
    Error,
    files::Files,
    models,
    options::{self, LossArg, TrainingArgs, whole},
    progress::Terminal,
    signal,
    streams::{Stdout, say},
};

/// Train a model on two files of text, line by line.
///
/// It begins with the model of a folder, or with random numbers: then a config.json says how large it is, and a tokenizer of so many
/// pieces is made for the texts, unless one is named.
///
/// What is under way is kept in a folder, so that the same command goes on where a run was cut off.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    begin: BeginArgs,
    /// With --config, a tokenizer.json in place of one made for the texts
    #[arg(long, value_name = "FILE", requires = "config")]
    tokenizer: Option<PathBuf>,
    /// The sources, one a line
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// What should be written for them
    #[arg(long, value_name = "FILE")]
    target: PathBuf,
    /// How many of the pairs, the last ones, are held out to measure on
    #[arg(long, value_name = "N", default_value = "500", value_parser = whole(1..=1_000_000))]
    held_out: usize,
    /// The most tokens of a source and of a target; pairs with more are left out
    #[arg(long, value_name = "N", default_value = "128", value_parser = whole(2..=65_536))]
    max_tokens: usize,
    #[command(flatten)]
    training: TrainingArgs,
}

/// What it begins with.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct BeginArgs {
    /// The folder of a model to go on from
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The config.json of a T5 to begin with random numbers
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whether it was not stopped.
pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let (out_folder, work) = (&args.training.out, args.training.work());
    let mut files = Files::default();
    files.reads("--source", Some(&args.source)).reads("--target", Some(&args.target));
    files.reads("--config", args.begin.config.as_deref()).reads("--tokenizer", args.tokenizer.as_deref());
    files.reads_folders(args.begin.from.clone().map(|from| ("--from", from)));
    files.check()?;
    options::warn(args.training.warning(LossArg::CrossEntropy));
    let BeginArgs { from, config } = &args.begin;
    let named = from.iter().chain(config).chain(&args.tokenizer).chain([&args.source, &args.target]);
    check_replaceable(out_folder, &named.map(PathBuf::as_path).collect::<Vec<_>>(), &work)?;
    let terminal = Terminal::default();
    let mut pairs = dataset::read_lines(&args.source, &args.target)?;
    if pairs.len() <= args.held_out {
        let (pairs, held_out) = (pairs.len(), args.held_out);
        return Err(format!("{pairs} pairs of texts are too few: {held_out} are held out to measure on").into());
    }
    let aside = pairs.split_off(pairs.len() - args.held_out);
    let all = pairs.len();
    // What a model was trained on says nothing of how good it is.
    let held_out: HashSet<&str> = aside.iter().map(|pair| &*pair.source).collect();
    pairs.retain(|pair| !held_out.contains(&*pair.source));
    if pairs.len() < all {
        let same = all - pairs.len();
        terminal.notes(&format!("{same} of {all} pairs of texts have a source that is held out, and are left out"));
    }
    fs::create_dir_all(&work).map_err(|error| format!("{} cannot be made: {error}", work.display()))?;
    let checkpoint = begin(args, &work, &pairs)?;
    let tokenizer = checkpoint.tokenizer()?;
    let of = |pairs: &[Example]| {
        let texts = pairs.iter().map(|pair| (&*pair.source, &*pair.reference));
        examples(&tokenizer, texts, args.max_tokens, &terminal)
    };
    let (train, held_out) = (of(&pairs)?, of(&aside)?);
    let aside = fitting(&tokenizer, aside, args.max_tokens)?;
    let device = Default::default();
    let model = match args.begin.from {
        Some(_) => bild_train::T5::<Flex>::open(&checkpoint, &device)?,
        None => bild_train::T5::<Flex>::random(&checkpoint, args.training.training_seed as u64, &device)?,
    };
    let run = args.training.run(LossArg::CrossEntropy);
    let stop = signal::stop()?;
    let Some(model) = run.run(model, &train, &held_out, &work, &stop, &terminal)? else {
        return Ok(args.training.stopped());
    };
    model.save(out_folder)?;
    let Some(measured) = measured(args, aside, &stop)? else {
        return Ok(args.training.stopped());
    };
    out.line(measured)?;
    say(out_folder.display());
    Ok(true)
}

/// The pairs that [`examples`] takes.
fn fitting(tokenizer: &Tokenizer, pairs: Vec<Example>, most: usize) -> Result<Vec<Example>, Error> {
    let mut fitting = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let is_blank = pair.source.trim().is_empty() || pair.reference.trim().is_empty();
        let longest = tokenizer.encode(&pair.source)?.len().max(tokenizer.encode(&pair.reference)?.len());
        fitting.extend((!is_blank && longest <= most).then_some(pair));
    }
    Ok(fitting)
}

/// What the model begins as: a checkpoint, or its configuration and tokenizer.
fn begin(args: &Args, work: &std::path::Path, pairs: &[Example]) -> Result<Checkpoint, Error> {
    if let Some(from) = &args.begin.from {
        return models::open(from);
    }
    let Some(path) = &args.begin.config else { return Err("nothing to begin with was named".into()) };
    let config = text::read(path)?;
    let pieces = serde_json::from_str::<serde_json::Value>(&config).ok();
    let pieces = pieces.and_then(|config| config["vocab_size"].as_u64()).and_then(|size| u32::try_from(size).ok());
    let pieces = pieces.ok_or("the config.json has no vocab_size")?;
    let texts = || pairs.iter().flat_map(|pair| [&*pair.source, &*pair.reference]);
    let [made, of] = ["tokenizer.json", "tokenizer-conditions.json"].map(|name| work.join(name));
    let conditions = Conditions::default().with("the texts", digest_of_texts(texts()))?.with("the pieces", pieces)?;
    let found = fs::read_to_string(&of).ok().and_then(|found| serde_json::from_str::<Conditions>(&found).ok());
    let is_of_these = found.is_some_and(|found| conditions.difference(&found).is_none());
    let tokenizer = match &args.tokenizer {
        Some(tokenizer) => text::read(tokenizer)?,
        None if made.exists() && is_of_these => text::read(&made)?,
        None => {
            let tokenizer = unigram(texts(), pieces)?;
            // Whole or not at all: it is gone on with.
            OutputFile::tried(&made)?.write(&tokenizer)?;
            OutputFile::tried(&of)?.write(&serde_json::to_string(&conditions)?)?;
            tokenizer
        }
    };
    let files = [("config.json", config.into_bytes()), ("tokenizer.json", tokenizer.into_bytes())];
    let checkpoint = Checkpoint::from_files(files)?;
    if let Some(named) = &args.tokenizer {
        let tokenizer = checkpoint.tokenizer()?;
        let beyond = (pieces..).take_while(|&token| tokenizer.piece(token).is_some()).count();
        if beyond > 0 {
            let (named, found, path) = (named.display(), pieces as usize + beyond, path.display());
            return Err(
                format!("{named} has {found} tokens, expected at most the {pieces} of `vocab_size` in {path}").into()
            );
        }
    }
    Ok(checkpoint)
}

/// What it writes for the pairs that were held out; nothing if it was stopped.
fn measured(args: &Args, aside: Vec<Example>, stop: &CancelToken) -> Result<Option<String>, Error> {
    let checkpoint = Checkpoint::open(&args.training.out)?;
    let model = T5::<bild::Flex>::load(&checkpoint, &Default::default())?;
    let settings = Settings::default()
        .with_max_new_tokens(args.max_tokens)
        .with_max_source_tokens(args.max_tokens, Overflow::Error)
        .with_cancel(stop.clone());
    let count = aside.len();
    let bench = Bench::new((NoDraft, model).boxed(), checkpoint.tokenizer()?, aside, "", settings)?;
    let decoded = bench.decode(&AnyPolicy::Big(BigAlone {}), &(0..count).collect::<Vec<_>>(), || ())?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let same = decoded.iter().zip(&bench.examples).filter(|(decoded, pair)| decoded.text == pair.reference).count();
    let scores = scores(&decoded);
    Ok(Some(format!("{count} held out: BLEU {:.2}, chrF {:.2}, {same} as they should be", scores.bleu, scores.chrf)))
}
