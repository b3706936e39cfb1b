//! Chooses the fastest policy within a stated loss of quality, for a pair and a kind of text.
//!
//! cargo run --release --example tune -- --source valid.de --reference valid.en --loss 1 --out policy.json

#[path = "../support/mod.rs"]
mod support;

mod race;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bild::{AnyPolicy, BigAlone};
use clap::Parser;
use race::{Race, Trial};
use serde_json::{Value, json};
use support::{
    Error,
    args::{self, CostsArgs, DatasetArgs, MetricArg, PairArgs, TextArgs, number},
    candidates,
    clock::in_turn,
    dataset,
    digest::of_texts,
    interval::{Speedup, speedup},
    log::Log,
    metrics::bootstrap,
    output::{Files, OutputFile},
    policy::{self, Needs},
    progress,
    streams::{Stdout, say},
    trial::{Bench, Decoded, Metric, predicted, scores},
};

/// Choose the fastest policy that loses at most so much quality to the big model alone, and write it to a file that
/// `translate --policy-file` and programs load.
///
/// It is chosen on the first half of the sentences, by decoding few of them with most policies and more with those that may
/// win, and judged on the second half. How fast a policy is goes by its counted passes and what passes cost; the one chosen is
/// timed by the clock as well, on some sentences.
///
/// If no policy is sure enough to lose no more than allowed, the exit status is 1 and nothing is written.
#[derive(Parser)]
#[command(name = "tune", allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    costs: CostsArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// The most quality to lose, in points of the metric
    #[arg(long, value_name = "POINTS", default_value = "1", value_parser = number(0.0, 100.0), allow_hyphen_values = true)]
    loss: f64,
    /// What quality is
    #[arg(long, value_enum, default_value = "bleu")]
    metric: MetricArg,
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

/// The most time for timing by the clock.
const BUDGET: Duration = Duration::from_secs(20);
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    args::main(run)
}

/// Whether a policy was found that loses no more than allowed.
fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let (pair, dataset, costs) = (args.pair.options(), args.dataset.options()?, args.costs.options());
    let mut files = Files::default();
    dataset.name(&mut files);
    files.reads_folders(pair.folders()).reads_folders(costs.folders());
    files.writes("--out", Some(&args.out)).writes("--resume", args.resume.as_deref());
    files.writes("--costs", costs.path(args.resume.as_deref()).as_deref()).check()?;
    let file = OutputFile::tried(&args.out)?;
    args::warn(args.pair.warnings(Needs::Both));
    let mut examples = dataset.read()?;
    examples.truncate(dataset.taken(examples.len()));
    if examples.len() < 40 {
        return Err(
            format!("{} sentences are too few to choose and to judge by: give 40 at least", examples.len()).into()
        );
    }
    let limits = args.texts.limits(args.dataset.max_source_tokens, true);
    let mut bench = Bench::new(pair.load(Needs::Both)?, examples, &args.texts.prefix, &limits)?;
    bench.settings.trace = true;
    let bench = bench;
    let measured = costs.pair(&bench)?;
    let passes = costs.costs(&measured, &bench, args.resume.as_deref())?;
    let half = bench.sources.len() / 2;
    let log = Log::open(args.resume.as_deref(), "tune", || {
        let passes = of_texts([&*serde_json::to_string(&passes)?]);
        let conditions = bench.conditions()?.and(dataset::conditions(&bench.examples)?);
        Ok(conditions.with("the costs of passes", passes)?)
    })?;
    let metric = Metric::from(args.metric);
    let mut race = Race::new(&bench, &passes, metric, args.loss, half, log);
    let chosen =
        if args.grid { race.run_all(candidates::grid()?)? } else { race.run(candidates::for_tuning(&passes)?)? };
    let decoded = race.decoded();

    let policy = &chosen.candidate.policy;
    let rest: Vec<usize> = (half..bench.sources.len()).collect();
    let progress = progress::bar(2 * rest.len(), "Judging");
    let found = bench.decode(policy, &rest, || progress.inc(1))?;
    let alone = AnyPolicy::Big(BigAlone {});
    let big = bench.decode(&alone, &rest, || progress.inc(1))?;
    progress.finish_and_clear();
    let predicted = predicted(&big, &passes, &alone) / predicted(&found, &passes, policy);
    let timed = costs.timed(&measured, &bench, half);
    let progress = progress::bar(ROUNDS * timed.sources.len(), "Timing");
    let generators = [&timed.generator(policy)?, &timed.generator(&alone)?];
    let times = in_turn(generators, timed.sources.iter(), ROUNDS, BUDGET, || progress.inc(1))?;
    progress.finish_and_clear();
    let sentences = timed.sources.len().min(times.len());
    let mut result = result(metric, &chosen, decoded, [&found, &big], predicted, (speedup(&times), sentences));
    for (key, value) in bench.read_json().as_object().into_iter().flatten() {
        result[key] = value.clone();
    }
    let printed = if args.json { out.line(&result) } else { out.line(words(metric, &chosen, &result)) };
    let within = args.grid || chosen.allowed >= race::SURE;
    if within {
        file.write(&(serde_json::to_string(policy)? + "\n"))?;
        say(args.out.display());
    } else {
        let (most, out) = (args.loss, args.out.display());
        say(format_args!(
            "error: no policy is sure enough to lose at most {most} points; the one shown loses least, and {out} is left as it is"
        ));
    }
    printed.map(|()| within)
}

fn result(
    metric: Metric,
    chosen: &Trial,
    decoded: usize,
    [found, big]: [&[Decoded]; 2],
    predicted: f64,
    (clock, timed): (Speedup, usize),
) -> Value {
    let quality = |decoded: &[Decoded]| metric.of(&scores(decoded));
    let some = |decoded: &[Decoded], indices: &[usize]| {
        let chosen: Vec<Decoded> = indices.iter().map(|&i| decoded[i].clone()).collect();
        quality(&chosen)
    };
    let interval = bootstrap(found.len(), 500, 1, |indices| some(big, indices) - some(found, indices));
    json!({
        "policy": policy::json(&chosen.candidate.policy),
        "curve": chosen.candidate.curve, "setting": chosen.candidate.label,
        "chosen_on": { "loss": chosen.loss, "speedup": chosen.speedup, "sentences": chosen.decoded.len() },
        "sentences_decoded": decoded,
        "judged_on": {
            "sentences": found.len(), "quality": quality(found), "big": quality(big),
            "loss": quality(big) - quality(found), "loss_interval": interval, "speedup": predicted,
            "by_the_clock": { "speedup": clock.times, "interval": clock.interval, "sentences": timed, "noisy": clock.noisy },
        },
    })
}

fn words(metric: Metric, chosen: &Trial, result: &Value) -> String {
    let (judged, clock) = (&result["judged_on"], &result["judged_on"]["by_the_clock"]);
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let interval = |ends: &Value| match ends.as_array() {
        Some(ends) => format!(" (95 %: {:.2} to {:.2})", number(&ends[0]), number(&ends[1])),
        None => String::new(),
    };
    format!(
        "{}: {}\n{}\n\
         On {} sentences that it was not chosen on: {:.2} {} lost{}.\n\
         By its counted passes and what passes cost it is {:.2} times as fast as the big model alone there; by the clock, on {} of \
         them, {:.2} times{}.{}\n\
         {} sentences were decoded to choose it.",
        chosen.candidate.curve,
        chosen.candidate.label,
        result["policy"],
        judged["sentences"],
        number(&judged["loss"]),
        metric.name(),
        interval(&judged["loss_interval"]),
        number(&judged["speedup"]),
        clock["sentences"],
        number(&clock["speedup"]),
        interval(&clock["interval"]),
        if clock["noisy"] == true { " Something else was running meanwhile." } else { "" },
        result["sentences_decoded"],
    )
}
