//! Chooses the fastest policy within a stated loss of quality, for a pair and a kind of text.
//!
//! cargo run --release --example tune -- --source valid.de --reference valid.en --loss 1 --out policy.json

#[path = "../support/mod.rs"]
mod support;

mod race;

use std::{fs, path::PathBuf, process::ExitCode};

use bild::{AnyPolicy, BigAlone, Overflow, Settings};
use clap::Parser;
use race::{Race, Trial};
use serde_json::{Value, json};
use support::{
    Error,
    candidates::{self, Candidate},
    costs::CostsArgs,
    dataset::DatasetArgs,
    metrics::bootstrap,
    pair::PairArgs,
    policy,
    trial::{Bench, Decoded, Metric, predicted, scores},
};

/// Choose the fastest policy that loses at most so much quality to the big model alone, and write it to a file that
/// `translate --policy-file` and programs load.
///
/// It is chosen on the first half of the sentences, by decoding few of them with most policies and more with those that may
/// win, and judged on the second half.
#[derive(Parser)]
#[command(name = "tune")]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    costs: CostsArgs,
    /// The most quality to lose, in points of the metric
    #[arg(long, value_name = "POINTS", default_value_t = 1.0)]
    loss: f64,
    /// What quality is
    #[arg(long, value_enum, default_value = "bleu")]
    metric: Metric,
    /// The most tokens to write for a source
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// The policy
    #[arg(long, value_name = "FILE", default_value = "policy.json")]
    out: PathBuf,
    /// Choose from the paper's grid by decoding everything with every policy, for comparison
    #[arg(long)]
    grid: bool,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Keep what is decoded in this file, and go on from there if it is there already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()))
}

/// Whether a policy was found that loses no more than allowed.
fn run(args: &Args) -> Result<bool, Error> {
    let examples = args.dataset.read()?;
    if examples.len() < 40 {
        return Err(
            format!("{} sentences are too few to choose and to judge by: give 40 at least", examples.len()).into()
        );
    }
    let settings =
        Settings::default().max_new_tokens(args.max_new_tokens).max_source_tokens(512, Overflow::Truncate).trace(true);
    let bench = Bench::new(args.pair.load()?, examples, &args.pair.prefix, settings)?;
    let costs = args.costs.costs(&bench, args.resume.as_deref())?;
    let half = bench.sources.len() / 2;
    let conditions = format!("{:?} {:?} {:?} {:?}", args.dataset, args.pair, args.costs, bench.settings);
    let mut race = Race::new(&bench, &costs, args.metric, args.loss, half, args.resume.as_deref(), &conditions)?;
    let chosen =
        if args.grid { race.run_all(candidates::grid()?)? } else { race.run(candidates::for_tuning(&costs)?)? };
    let decoded = race.decoded();
    fs::write(&args.out, serde_json::to_string(&chosen.candidate.policy)? + "\n")
        .map_err(|error| format!("{} cannot be written: {error}", args.out.display()))?;

    let rest: Vec<usize> = (half..bench.sources.len()).collect();
    let progress = support::bar(2 * rest.len() as u64, "Judging");
    let found = bench.decode(&chosen.candidate.policy, &rest, || progress.inc(1))?;
    let alone = AnyPolicy::Big(BigAlone {});
    let big = bench.decode(&alone, &rest, || progress.inc(1))?;
    progress.finish_and_clear();
    let speedup = predicted(&big, &costs, &alone) / predicted(&found, &costs, &chosen.candidate.policy);
    let result = result(args, &chosen, decoded, [&found, &big], speedup);
    if args.json {
        println!("{result}");
    } else {
        print(args, &chosen.candidate, &result);
    }
    let within = args.grid || chosen.allowed >= race::SURE;
    if !within {
        eprintln!("warning: no policy is sure enough to lose at most {} points; this one loses least", args.loss);
    }
    Ok(within)
}

fn result(args: &Args, chosen: &Trial, decoded: usize, [found, big]: [&[Decoded]; 2], speedup: f64) -> Value {
    let quality = |decoded: &[Decoded]| args.metric.of(&scores(decoded));
    let some = |decoded: &[Decoded], indices: &[usize]| {
        let chosen: Vec<Decoded> = indices.iter().map(|&i| decoded[i].clone()).collect();
        quality(&chosen)
    };
    let (low, high) = bootstrap(found.len(), 500, 1, |indices| some(big, indices) - some(found, indices));
    json!({
        "policy": policy::json(&chosen.candidate.policy),
        "curve": chosen.candidate.curve, "setting": chosen.candidate.label,
        "chosen_on": { "loss": chosen.loss, "speedup": chosen.speedup, "sentences": chosen.decoded.len() },
        "sentences_decoded": decoded,
        "judged_on": {
            "sentences": found.len(), "quality": quality(found), "big": quality(big),
            "loss": quality(big) - quality(found), "loss_interval": [low, high], "speedup": speedup,
        },
    })
}

fn print(args: &Args, candidate: &Candidate, result: &Value) {
    let judged = &result["judged_on"];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    println!("{}: {}", candidate.curve, candidate.label);
    println!("{}", result["policy"]);
    println!(
        "On {} sentences that it was not chosen on: {:.2} times as fast as the big model alone by its counted passes, \
         {:.2} {} lost (95 %: {:.2} to {:.2}).",
        judged["sentences"],
        number(&judged["speedup"]),
        number(&judged["loss"]),
        args.metric.name(),
        number(&judged["loss_interval"][0]),
        number(&judged["loss_interval"][1])
    );
    println!("{} sentences were decoded to choose it.", result["sentences_decoded"]);
    eprintln!("{}", args.out.display());
}
