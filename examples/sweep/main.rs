//! Quality against speed of many policies on a dataset: the paper's grid of thresholds, its ablations, other signals.
//!
//! cargo run --release --example sweep -- --source valid.de --reference valid.en --svg sweep.svg > sweep.csv

#[path = "../support/mod.rs"]
mod support;

mod plot;

use std::{fs, path::PathBuf, process::ExitCode};

use bild::{AnyPolicy, BigAlone, Overflow, Settings};
use clap::Parser;
use plot::{Curve, Plot, Point, pareto};
use serde::{Deserialize, Serialize};
use support::{
    Error,
    candidates::{self, Candidate},
    costs::{Costs, CostsArgs},
    dataset::DatasetArgs,
    log::Log,
    metrics::Scores,
    pair::PairArgs,
    trial::{Bench, Metric, predicted, scores, statistics},
};

/// Quality against speed of many policies on a dataset, as a table and as a figure.
///
/// What a policy writes, and in how many passes, is counted; its time is told from what passes cost, measured once. So a
/// pair may be swept in place of a larger one that writes the same, whose passes are measured.
#[derive(Parser)]
#[command(name = "sweep")]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    costs: CostsArgs,
    /// The most tokens to write for a source
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// The quality of the figure
    #[arg(long, value_enum, default_value = "bleu")]
    metric: Metric,
    /// The figure
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The table as JSON, not as CSV
    #[arg(long)]
    json: bool,
    /// The paper's grid alone
    #[arg(long)]
    grid: bool,
    /// Time so many policies of the front by the clock too, on the pair whose passes were measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    confirm: usize,
    /// Keep what is done in this file, and go on from there if it is there already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// What was found for one policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    curve: String,
    label: String,
    policy: AnyPolicy,
    bleu: f64,
    chrf: f64,
    rouge_l: f64,
    /// The big model's predicted time over this one's.
    speedup: f64,
    /// By the clock, where that was asked for.
    confirmed: Option<f64>,
    draft_steps: usize,
    verifier_calls: usize,
    tokens: usize,
    /// Milliseconds.
    predicted: f64,
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    let examples = args.dataset.read()?;
    let settings =
        Settings::default().max_new_tokens(args.max_new_tokens).max_source_tokens(512, Overflow::Truncate).trace(true);
    let bench = Bench::new(args.pair.load()?, examples, &args.pair.prefix, settings)?;
    let costs = args.costs.costs(&bench, args.resume.as_deref())?;
    let candidates =
        if args.grid { candidates::grid()? } else { candidates::all(&costs, bench.pair.little().is_some())? };
    let conditions = format!("{:?} {:?} {:?} {:?}", args.dataset, args.pair, args.costs, bench.settings);
    let mut log = Log::open(args.resume.as_deref(), &conditions)?;
    sweep(&bench, &candidates, &costs, &mut log)?;
    let mut found: Vec<Found> = log.records;
    let big = |found: &&Found| found.curve == "big alone";
    let baseline = found.iter().find(big).map(|found| found.predicted);
    let baseline = match baseline {
        Some(time) => time,
        None => {
            one(&bench, &Candidate { curve: "", label: String::new(), policy: AnyPolicy::Big(BigAlone {}) }, &costs)?
                .predicted
        }
    };
    for found in &mut found {
        found.speedup = baseline / found.predicted;
    }
    if args.confirm > 0 {
        confirm(args, &bench, &mut found)?;
    }
    if let Some(path) = &args.svg {
        fs::write(path, figure(args, &found)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if args.json {
        // Not by way of a value, whose f64 would show digits that thresholds in f32 do not have.
        println!(r#"{{"costs":{},"policies":{}}}"#, serde_json::to_string(&costs)?, serde_json::to_string(&found)?);
    } else {
        csv(&found)
    }
    Ok(())
}

/// Decodes everything by every policy that the log does not have yet.
fn sweep(bench: &Bench, candidates: &[Candidate], costs: &Costs, log: &mut Log<Found>) -> Result<(), Error> {
    let progress = support::bar(candidates.len() as u64, "Sweeping");
    for candidate in candidates {
        if !log.records.iter().any(|found| found.curve == candidate.curve && found.label == candidate.label) {
            log.add(one(bench, candidate, costs)?)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

fn one(bench: &Bench, candidate: &Candidate, costs: &Costs) -> Result<Found, Error> {
    let all: Vec<usize> = (0..bench.sources.len()).collect();
    let decoded = bench.decode(&candidate.policy, &all, || {})?;
    let (Scores { bleu, chrf, rouge_l, .. }, statistics) = (scores(&decoded), statistics(&decoded));
    Ok(Found {
        curve: candidate.curve.into(),
        label: candidate.label.clone(),
        policy: candidate.policy.clone(),
        bleu,
        chrf,
        rouge_l,
        speedup: 0.0,
        confirmed: None,
        draft_steps: statistics.draft_steps,
        verifier_calls: statistics.verifier_calls,
        tokens: statistics.tokens,
        predicted: predicted(&decoded, costs, &candidate.policy),
    })
}

impl Found {
    fn quality(&self, metric: Metric) -> f64 {
        metric.of(&Scores { bleu: self.bleu, chrf: self.chrf, rouge_l: self.rouge_l, ..Scores::default() })
    }

    fn is_alone(&self) -> bool {
        self.curve.ends_with(" alone")
    }
}

/// Times policies spread over the front, each in turn with the big model alone.
fn confirm(args: &Args, bench: &Bench, found: &mut [Found]) -> Result<(), Error> {
    let points: Vec<_> = found.iter().map(|found| (found.speedup, found.quality(args.metric))).collect();
    let mut front: Vec<usize> = (0..found.len())
        .zip(pareto(&points))
        .filter(|(i, best)| *best && !found[*i].is_alone())
        .map(|(i, _)| i)
        .collect();
    front.sort_by(|&a, &b| found[a].speedup.total_cmp(&found[b].speedup));
    let some = args.confirm.min(front.len());
    let chosen: Vec<usize> = (0..some).map(|i| front[(i * front.len() + front.len() / 2) / some]).collect();
    let timed = args.costs.timed(bench)?;
    let progress = support::bar((some * timed.sources.len()) as u64, "Confirming by the clock");
    for index in chosen {
        let generator = timed.generator(&found[index].policy)?;
        let alone = timed.generator(&AnyPolicy::Big(BigAlone {}))?;
        let mut seconds = [0.0; 2];
        for source in &timed.sources {
            for (generator, seconds) in [&generator, &alone].into_iter().zip(&mut seconds) {
                *seconds += generator.generate(source)?.statistics.total_time.as_secs_f64();
            }
            progress.inc(1);
        }
        found[index].confirmed = Some(seconds[1] / seconds[0]);
    }
    progress.finish_and_clear();
    Ok(())
}

fn csv(found: &[Found]) {
    println!("curve,setting,bleu,chrf,rougeL,speedup,confirmed,draft_steps,verifier_calls,tokens,policy");
    for f in found {
        let confirmed = f.confirmed.map(|speedup| format!("{speedup:.3}")).unwrap_or_default();
        let policy = serde_json::to_string(&f.policy).unwrap_or_default().replace('"', "\"\"");
        println!(
            "\"{}\",\"{}\",{:.3},{:.3},{:.3},{:.3},{confirmed},{},{},{},\"{policy}\"",
            f.curve, f.label, f.bleu, f.chrf, f.rouge_l, f.speedup, f.draft_steps, f.verifier_calls, f.tokens
        );
    }
}

/// One curve a policy, the models alone as points.
fn figure(args: &Args, found: &[Found]) -> String {
    let point = |found: &Found| Point { x: found.speedup, y: found.quality(args.metric), label: found.label.clone() };
    let mut curves: Vec<Curve> = Vec::new();
    for f in found.iter().filter(|found| !found.is_alone()) {
        match curves.iter_mut().find(|curve| curve.name == f.curve) {
            Some(curve) => curve.points.push(point(f)),
            None => curves.push(Curve { name: f.curve.clone(), points: vec![point(f)] }),
        }
    }
    let name = args.metric.name();
    let plot = Plot {
        title: format!("{name} against speedup"),
        x_label: "times as fast as the big model alone".into(),
        y_label: name.into(),
        curves,
        marks: found.iter().filter(|found| found.is_alone()).map(point).collect(),
    };
    plot.svg()
}
