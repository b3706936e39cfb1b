//! Makes a little model for a big one.

use std::path::PathBuf;

use bild::Checkpoint;
use bild_eval::{dataset, text};
use bild_train::{Alignment, Drafter, Layers, Shrink, Text, check_replaceable};

use crate::{
    Error,
    files::Files,
    models,
    options::{self, LossArg, PrecisionArg, TextArgs, TrainingArgs, whole},
    progress::Terminal,
    signal,
    streams::{Stdout, say},
};

/// Make a little model that drafts for a big one.
///
/// The big model writes its outputs first; no references are needed. Then the little model is trained on them: `--little` is a smaller
/// model with the same tokenizer, `--shrink` takes layers out of the big one, `--shared-encoder` takes decoder layers that read the
/// big model's own encoder, which is cheapest. At the end both are measured, before and after, on text that was held out.
///
/// Beside the model, --out holds README.md, a card with these figures; alignment.json, the figures alone; curve.svg, how the training
/// went; shortlist.json, the tokens to draft with, for --shortlist; and policy.json, for --policy-file, if a policy is sure to lose at
/// most a point of BLEU.
///
/// What is under way is kept in a folder, so that the same command goes on where a run was cut off.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The folder of the big model
    #[arg(long, value_name = "DIR")]
    big: PathBuf,
    #[command(flatten)]
    drafter: DrafterArgs,
    /// The sources, one a line
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// Sources to measure on, one a line, in place of some of the others
    #[arg(long, value_name = "FILE", requires = "valid_reference")]
    valid_source: Option<PathBuf>,
    /// What should be written for them
    #[arg(long, value_name = "FILE", requires = "valid_source")]
    valid_reference: Option<PathBuf>,
    /// How many sources are measured on
    #[arg(long, value_name = "N", default_value = "500", value_parser = whole(1..=1_000_000))]
    held_out: usize,
    /// How often each of them is timed with each policy [default: as often as ten seconds hold]
    #[arg(long, value_name = "N", value_parser = whole(1..=1000))]
    rounds: Option<usize>,
    /// The rank of what an early exit adds to its norm [default: 64]
    #[arg(long, value_name = "N", value_parser = whole(1..=65_536))]
    rank: Option<usize>,
    /// How many of the big model's best tokens the divergences look at [default: 32]
    #[arg(long, value_name = "N", value_parser = whole(1..=1024))]
    best: Option<usize>,
    /// What the big model computes in, and both where they are measured
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// The most tokens of a source; longer ones are cut
    #[arg(long, value_name = "N", default_value = "128", value_parser = whole(1..=65_536))]
    max_source_tokens: usize,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    training: TrainingArgs,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// What is trained.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct DrafterArgs {
    /// The folder of a little model
    #[arg(long, value_name = "DIR")]
    little: Option<PathBuf>,
    /// Layers of the big model, as encoder=2,decoder=1: so many, evenly spread; or these, as decoder=0+7
    #[arg(long, value_name = "LAYERS", value_parser = parts)]
    shrink: Option<Shrink>,
    /// Decoder layers of the big model on its encoder, as decoder=1
    #[arg(long, value_name = "LAYERS", value_parser = decoder_alone)]
    shared_encoder: Option<Shrink>,
    /// The big model's first decoder layers, so many: what comes between them and its head is trained
    #[arg(long, value_name = "K", value_parser = whole(1..=1000))]
    early_exit: Option<usize>,
}

fn parts(given: &str) -> Result<Shrink, String> {
    let mut shrink = Shrink::default();
    for part in given.split(',') {
        let layers = |value: &str| {
            let numbers: Result<Vec<usize>, _> = value.split('+').map(str::parse).collect();
            match numbers {
                Ok(numbers) if numbers.len() > 1 => Ok(Layers::These(numbers)),
                Ok(numbers) if numbers[0] > 0 => Ok(Layers::Spread(numbers[0])),
                _ => Err(format!("{value:?} is neither a number of layers, from 1, nor layers from 0 joined by +")),
            }
        };
        match part.split_once('=') {
            Some(("encoder", value)) => shrink.encoder = layers(value)?,
            Some(("decoder", value)) => shrink.decoder = layers(value)?,
            _ => return Err(format!("{part:?} is neither encoder=… nor decoder=…")),
        }
    }
    Ok(shrink)
}

fn decoder_alone(given: &str) -> Result<Shrink, String> {
    match parts(given)? {
        shrink if shrink.encoder == Layers::All => Ok(shrink),
        _ => Err("its encoder is the big model's: only decoder=… is given".into()),
    }
}

/// Whether it was not stopped.
pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let (out_folder, work) = (&args.training.out, args.training.work());
    let mut files = Files::default();
    files.reads("--source", Some(&args.source)).reads_folders([("--big", args.big.clone())]);
    files.reads_folders(args.drafter.little.clone().map(|little| ("--little", little)));
    files.reads("--valid-source", args.valid_source.as_deref());
    files.reads("--valid-reference", args.valid_reference.as_deref());
    files.check()?;
    options::warn(warnings(args));
    let named = [&args.source].into_iter().chain(&args.valid_source).chain(&args.valid_reference);
    check_replaceable(out_folder, &named.map(PathBuf::as_path).collect::<Vec<_>>(), &work)?;
    let big = models::open(&args.big)?;
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut text = Text { sources: lines(text::read(&args.source)?), held_out: Vec::new() };
    if let (Some(source), Some(reference)) = (&args.valid_source, &args.valid_reference) {
        text.held_out = dataset::read_lines(source, reference)?;
        text.held_out.truncate(args.held_out);
    }
    let alignment = alignment(args, &big)?;
    let aligned = alignment.run(&big, &text, [&work, out_folder], &signal::stop()?, &Terminal::default())?;
    let Some(aligned) = aligned else {
        return Ok(args.training.stopped());
    };
    if args.json {
        out.line(serde_json::to_string(&aligned)?)?;
    } else {
        out.line(aligned.before.table(&aligned.after).trim_end())?;
    }
    say(out_folder.display());
    Ok(true)
}

/// What of the command line has no effect.
fn warnings(args: &Args) -> Vec<String> {
    let no_exit = args.rank.is_some() && args.drafter.early_exit.is_none();
    let no_teacher = args.best.is_some() && args.training.loss == Some(LossArg::CrossEntropy);
    let ignored = options::ignored([
        (no_exit, "--rank has no effect without --early-exit"),
        (no_teacher, "--best has no effect: the loss looks at no distributions"),
        (
            args.texts.seed.is_some(),
            "--seed has no effect: the big model writes greedily; --training-seed is the training's",
        ),
    ]);
    ignored.chain(args.training.warning(LossArg::Kl)).collect()
}

fn alignment(args: &Args, big: &Checkpoint) -> Result<Alignment, Error> {
    let DrafterArgs { little, shrink, shared_encoder, early_exit } = &args.drafter;
    let drafter = match (little, shrink, shared_encoder, early_exit) {
        (Some(little), ..) => Drafter::Little(little.clone()),
        (_, Some(shrink), ..) => Drafter::Shrunk(shrink.clone()),
        (_, _, Some(shrink), _) => Drafter::SharedEncoder(shrink.decoder.clone()),
        (.., Some(layers)) => Drafter::EarlyExit { layers: *layers, rank: args.rank.unwrap_or(64) },
        _ => return Err("nothing to align was named".into()),
    };
    let mut alignment = Alignment::new(drafter, args.training.run(LossArg::Kl));
    alignment.best = args.best.unwrap_or(32);
    alignment.held_out = args.held_out;
    alignment.rounds = args.rounds;
    alignment.precision = args.precision.into();
    alignment.prefix.clone_from(&args.texts.prefix);
    let limits = args.texts.limits(args.max_source_tokens, true);
    alignment.decoding = limits.settings(&big.generation_config()?)?;
    Ok(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_or_named() {
        let found = parts("encoder=2,decoder=0+7").unwrap();
        assert_eq!((found.encoder, found.decoder), (Layers::Spread(2), Layers::These(vec![0, 7])));
        assert_eq!(decoder_alone("decoder=1").unwrap().decoder, Layers::Spread(1));
        for wrong in ["", "decoder", "decoder=", "decoder=0", "decoder=x", "decoder=1+", "head=1", "decoder=-1"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
        assert!(decoder_alone("encoder=1,decoder=1").is_err());
    }
}
