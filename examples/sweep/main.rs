//! Quality against speed of many policies on a dataset: the paper's grid of thresholds, its ablations, other signals.
//!
//! cargo run --release --example sweep -- --source valid.de --reference valid.en --svg sweep.svg > sweep.csv

#[path = "../support/mod.rs"]
mod support;

mod plot;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bild::{AnyPolicy, BigAlone};
use clap::Parser;
use plot::{Curve, Plot, Point, pareto};
use serde::{Deserialize, Serialize};
use support::{
    Error,
    args::{self, CostsArgs, DatasetArgs, MetricArg, PairArgs, TextArgs, whole},
    candidates::{self, Candidate},
    clock::in_turn,
    costs::Costs,
    dataset,
    digest::of_texts,
    interval::speedup,
    log::Log,
    metrics::Scores,
    output::{Files, OutputFile},
    pair::AnyPair,
    policy::Needs,
    progress,
    streams::Stdout,
    trial::{Bench, Metric, predicted, scores, statistics},
};

/// Quality against speed of many policies on a dataset, as a table and as a figure.
///
/// What a policy writes, and in how many passes, is counted; its time is told from what passes cost, measured once. So a
/// pair may be swept in place of a larger one that writes the same, whose passes are measured.
#[derive(Parser)]
#[command(name = "sweep", allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    costs: CostsArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// The quality of the figure and of the front that --confirm times [default: bleu]
    #[arg(long, value_enum)]
    metric: Option<MetricArg>,
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
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole(0..=u64::MAX))]
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
    args::main(run)
}

fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let (pair, dataset, costs) = (args.pair.options(), args.dataset.options()?, args.costs.options());
    let mut files = Files::default();
    dataset.name(&mut files);
    files.reads_folders(pair.folders()).reads_folders(costs.folders());
    files.writes("--svg", args.svg.as_deref()).writes("--resume", args.resume.as_deref());
    files.writes("--costs", costs.path(args.resume.as_deref()).as_deref()).check()?;
    let svg = args.svg.as_deref().map(OutputFile::tried).transpose()?;
    warn(args);
    let mut examples = dataset.read()?;
    examples.truncate(dataset.taken(examples.len()));
    let limits = args.texts.limits(args.dataset.max_source_tokens, true);
    let mut bench = Bench::new(pair.load(Needs::Both)?, examples, &args.texts.prefix, &limits)?;
    bench.settings.trace = true;
    let bench = bench;
    let measured = costs.pair(&bench)?;
    let passes = costs.costs(&measured, &bench, args.resume.as_deref())?;
    let has_little = matches!(bench.pair(), AnyPair::Two(..));
    let candidates = if args.grid { candidates::grid()? } else { candidates::all(&passes, has_little)? };
    let mut log = Log::open(args.resume.as_deref(), "sweep", || {
        let passes = of_texts([&*serde_json::to_string(&passes)?]);
        let conditions = bench.conditions()?.and(dataset::conditions(&bench.examples)?);
        Ok(conditions.with("the costs of passes", passes)?)
    })?;
    sweep(&bench, &candidates, &passes, &mut log)?;
    // A log may hold more: it was begun without --grid.
    let asked = |found: &Found| candidates.iter().any(|c| c.curve == found.curve && c.label == found.label);
    let mut found: Vec<Found> = log.records.iter().filter(|found| asked(found)).cloned().collect();
    let big = |found: &&Found| found.curve == "big alone";
    let baseline = found.iter().find(big).map(|found| found.predicted);
    let baseline = match baseline {
        Some(time) => time,
        None => {
            one(&bench, &Candidate { curve: "", label: String::new(), policy: AnyPolicy::Big(BigAlone {}) }, &passes)?
                .predicted
        }
    };
    for found in &mut found {
        found.speedup = baseline / found.predicted;
    }
    let metric = args.metric.map_or(Metric::Bleu, Metric::from);
    if args.confirm > 0 {
        confirm(args.confirm, metric, &costs.timed(&measured, &bench, 0), &mut found)?;
    }
    let printed = if args.json {
        // Not by way of a value, whose f64 would show digits that thresholds in f32 do not have.
        let (source_tokens, truncated) = bench.read();
        let (passes, policies) = (serde_json::to_string(&passes)?, serde_json::to_string(&found)?);
        out.line(format_args!(
            r#"{{"costs":{passes},"policies":{policies},"source_tokens":{source_tokens},"truncated":{truncated}}}"#
        ))
    } else {
        out.line(csv(&found))
    };
    if let Some(svg) = &svg {
        svg.write(&figure(metric, &found))?;
    }
    printed.map(|()| true)
}

/// Says which options have no effect.
fn warn(args: &Args) {
    let ignored = [
        (
            args.metric.is_some() && args.svg.is_none() && args.confirm == 0,
            "--metric has no effect without --svg or --confirm",
        ),
        (args.costs.times() && args.confirm == 0, "--timed has no effect without --confirm"),
    ];
    let ignored = ignored.into_iter().filter(|(is, _)| *is).map(|(_, sentence)| sentence.to_owned());
    args::warn(args.pair.warnings(Needs::Both).into_iter().chain(ignored));
}

/// Decodes everything by every policy that the log does not have yet.
fn sweep(bench: &Bench, candidates: &[Candidate], costs: &Costs, log: &mut Log<Found>) -> Result<(), Error> {
    let progress = progress::bar(candidates.len(), "Sweeping");
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

/// The most time for one policy by the clock.
const BUDGET: Duration = Duration::from_secs(600);

/// Times policies spread over the front, each in turn with the big model alone.
fn confirm(count: usize, metric: Metric, timed: &Bench, found: &mut [Found]) -> Result<(), Error> {
    let points: Vec<_> = found.iter().map(|found| (found.speedup, found.quality(metric))).collect();
    let mut front: Vec<usize> = (0..found.len())
        .zip(pareto(&points))
        .filter(|(i, best)| *best && !found[*i].is_alone())
        .map(|(i, _)| i)
        .collect();
    front.sort_by(|&a, &b| found[a].speedup.total_cmp(&found[b].speedup));
    let some = count.min(front.len());
    let chosen: Vec<usize> = (0..some).map(|i| front[(i * front.len() + front.len() / 2) / some]).collect();
    let progress = progress::bar(some * timed.sources.len(), "Confirming by the clock");
    let alone = timed.generator(&AnyPolicy::Big(BigAlone {}))?;
    for index in chosen {
        let generator = timed.generator(&found[index].policy)?;
        let times = in_turn([&generator, &alone], timed.sources.iter(), 1, BUDGET, || progress.inc(1))?;
        found[index].confirmed = Some(speedup(&times).times);
    }
    progress.finish_and_clear();
    Ok(())
}

fn csv(found: &[Found]) -> String {
    let mut csv =
        "curve,setting,bleu,chrf,rougeL,speedup,confirmed,draft_steps,verifier_calls,tokens,policy".to_owned();
    for f in found {
        let confirmed = f.confirmed.map(|speedup| format!("{speedup:.3}")).unwrap_or_default();
        let policy = serde_json::to_string(&f.policy).unwrap_or_default().replace('"', "\"\"");
        csv += &format!(
            "\n\"{}\",\"{}\",{:.3},{:.3},{:.3},{:.3},{confirmed},{},{},{},\"{policy}\"",
            f.curve, f.label, f.bleu, f.chrf, f.rouge_l, f.speedup, f.draft_steps, f.verifier_calls, f.tokens
        );
    }
    csv
}

/// One curve a policy, the models alone as points.
fn figure(metric: Metric, found: &[Found]) -> String {
    let point = |found: &Found| Point { x: found.speedup, y: found.quality(metric), label: found.label.clone() };
    let mut curves: Vec<Curve> = Vec::new();
    for f in found.iter().filter(|found| !found.is_alone()) {
        match curves.iter_mut().find(|curve| curve.name == f.curve) {
            Some(curve) => curve.points.push(point(f)),
            None => curves.push(Curve { name: f.curve.clone(), points: vec![point(f)] }),
        }
    }
    let name = metric.name();
    let plot = Plot {
        title: format!("{name} against speedup"),
        x_label: "times as fast as the big model alone".into(),
        y_label: name.into(),
        curves,
        marks: found.iter().filter(|found| found.is_alone()).map(point).collect(),
    };
    plot.svg()
}
