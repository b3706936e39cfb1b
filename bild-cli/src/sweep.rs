//! Quality against speed of many policies on a dataset: the paper's grid of thresholds, its ablations, other signals.

use std::path::PathBuf;

use bild_eval::{Metric, OutputFile, candidates, confirm, csv, figure, sweep};

use crate::{
    Error,
    files::Files,
    options::{self, MetricArg, whole},
    policy::Needs,
    prepared::PreparedArgs,
    progress::Terminal,
    streams::Stdout,
};

/// Compare many policies on a dataset, as a table and as a figure.
///
/// What a policy writes, and in how many passes, is counted; its time is told from what passes cost, measured once. So a
/// pair may be swept in place of a larger one that writes the same, whose passes are measured.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    #[command(flatten)]
    prepared: PreparedArgs,
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
}

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let mut files = Files::default();
    files.writes("--svg", args.svg.as_deref());
    args.prepared.name(&mut files)?;
    files.check()?;
    let svg = args.svg.as_deref().map(OutputFile::tried).transpose()?;
    warn(args);
    let terminal = Terminal::default();
    let prepared =
        args.prepared.prepare(&args.prepared.pair.options(), args.prepared.dataset.examples()?, &terminal)?;
    let (bench, costs) = (&prepared.bench, &prepared.costs);
    let candidates = if args.grid { candidates::grid()? } else { candidates::all(costs, prepared.has_little)? };
    let mut found = sweep(bench, &candidates, costs, &mut prepared.log("sweep", &terminal)?, &terminal)?;
    let metric = args.metric.map_or(Metric::Bleu, Metric::from);
    if args.confirm > 0 {
        let timed = bench.some(prepared.measured.clone(), 0, args.prepared.costs.timed());
        confirm(args.confirm, metric, &timed, &mut found, &terminal)?;
    }
    let printed = if args.json {
        // Not by way of a value, whose f64 would show digits that thresholds in f32 do not have.
        let (source_tokens, truncated) = bench.read();
        let (passes, policies) = (serde_json::to_string(costs)?, serde_json::to_string(&found)?);
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
        (args.prepared.costs.times() && args.confirm == 0, "--timed has no effect without --confirm"),
    ];
    let ignored = ignored.into_iter().filter(|(is, _)| *is).map(|(_, sentence)| sentence.to_owned());
    options::warn(args.prepared.pair.warnings(Needs::Both).into_iter().chain(ignored));
}
