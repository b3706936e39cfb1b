//! Chooses the fastest policy within a stated loss of quality, for a pair and a kind of text.

use std::path::PathBuf;

use bild::models::Shortlist;
use bild_eval::{Metric, OutputFile, TuneOptions, Tuned, tune};

use serde_json::Value;

use crate::{
    Error, drafts,
    files::Files,
    options::{self, MetricArg, PrecisionArg, number},
    pair::Drafting,
    policy::Needs,
    prepared::PreparedArgs,
    progress::Terminal,
    streams::{Stdout, say},
};

/// Choose the fastest policy within a stated loss of quality.
///
/// It loses at most so much to the big model alone, and is written to a file that `--policy-file` and programs load.
///
/// It is chosen on the first half of the sentences, by decoding few of them with most policies and more with those that may
/// win, and judged on the second half. How fast a policy is goes by its counted passes and what passes cost; the one chosen is
/// timed by the clock as well, on some sentences.
///
/// How drafts are made costs no quality where a policy is lossless: with --try-precisions and --try-shortlists that is chosen first,
/// and said.
///
/// If no policy is sure enough to lose no more than allowed, the exit status is 1 and nothing is written.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    #[command(flatten)]
    prepared: PreparedArgs,
    /// The most quality to lose, in points of the metric
    #[arg(long, value_name = "POINTS", default_value = "1", value_parser = number(0.0, 100.0), allow_hyphen_values = true)]
    loss: f64,
    /// What quality is
    #[arg(long, value_enum, default_value = "bleu")]
    metric: MetricArg,
    /// The policy
    #[arg(long, value_name = "FILE", default_value = "policy.json")]
    out: PathBuf,
    /// Choose also how the weights of the little model or of the draft decoder are held, from these: what is fastest losslessly
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PRECISIONS", conflicts_with_all = ["little_precision", "resume", "cost_big", "costs", "early_exit"])]
    try_precisions: Vec<PrecisionArg>,
    /// Choose also the tokens of drafts, from all and these lists of `bild shortlist`: what is fastest losslessly
    #[arg(long, value_delimiter = ',', value_name = "FILES", conflicts_with_all = ["shortlist", "resume", "cost_big", "costs"])]
    try_shortlists: Vec<PathBuf>,
    /// Choose from the paper's grid by decoding everything with every policy, for comparison
    #[arg(long)]
    grid: bool,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Whether a policy was found that loses no more than allowed.
pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let mut files = Files::default();
    files.writes("--out", Some(&args.out));
    args.prepared.name(&mut files)?;
    args.try_shortlists.iter().for_each(|list| _ = files.reads("--try-shortlists", Some(list)));
    files.check()?;
    let file = OutputFile::tried(&args.out)?;
    options::warn(args.prepared.pair.warnings(Needs::Both));
    options::warn(args.prepared.seed_warning());
    let examples = args.prepared.dataset.examples()?;
    TuneOptions::check(examples.len())?;
    let terminal = Terminal::default();
    let mut pair = args.prepared.pair.options();
    if pair.drafting == Drafting::Lookup && !(args.try_precisions.is_empty() && args.try_shortlists.is_empty()) {
        return Err("--try-precisions and --try-shortlists need a model that drafts: look-up has no weights".into());
    }
    for list in &args.try_shortlists {
        Shortlist::open(list)?;
    }
    let mut ways = drafts::ways(&pair.loading, &args.try_precisions, &args.try_shortlists);
    if ways.len() > 1 {
        drafts::measure(&args.prepared, &pair, &examples, &mut ways, &terminal)?;
    }
    pair.loading = ways[0].loading.clone();
    let prepared = args.prepared.prepare(&pair, examples, &terminal)?;
    let metric = Metric::from(args.metric);
    let mut options = TuneOptions::default().with_loss(args.loss, metric);
    (options.grid, options.timed) = (args.grid, args.prepared.costs.timed());
    options.timed_pair = Some(prepared.measured.clone());
    let log = prepared.log("tune", &terminal)?;
    let tuned = tune(&prepared.bench, &prepared.costs, &options, log, &terminal)?;
    let policy = serde_json::to_string(&tuned.policy)?;
    let printed = if args.json {
        // By way of its text: as a value, a number of f32 would show the digits that it does not have.
        let mut result: Value = serde_json::from_str(&serde_json::to_string(&tuned)?)?;
        let (source_tokens, truncated) = prepared.bench.read();
        (result["source_tokens"], result["truncated"]) = (source_tokens.into(), truncated.into());
        if ways.len() > 1 {
            result["drafts"] = ways.iter().map(drafts::Way::json).collect();
        }
        out.line(result)
    } else {
        out.line(words(metric, &tuned, &policy) + &drafts::words(&ways))
    };
    if tuned.is_allowed {
        file.write(&(policy + "\n"))?;
        say(args.out.display());
    } else {
        let (most, out) = (args.loss, args.out.display());
        say(format_args!(
            "error: no policy is sure enough to lose at most {most} points; the one shown loses least, and {out} is left as it is"
        ));
    }
    printed.map(|()| tuned.is_allowed)
}

fn words(metric: Metric, tuned: &Tuned, policy: &str) -> String {
    let (judged, clock) = (&tuned.judged_on, &tuned.judged_on.by_the_clock);
    let interval =
        |ends: Option<(f64, f64)>| ends.map_or(String::new(), |(low, high)| format!(" (95 %: {low:.2} to {high:.2})"));
    format!(
        "{}: {}\n{policy}\n\
         On {} sentences that it was not chosen on: {:.2} {} lost{}.\n\
         By its counted passes and what passes cost it is {:.2} times as fast as the big model alone there; by the clock, on {} of \
         them, {:.2} times{}.{}\n\
         {} sentences were decoded to choose it.",
        tuned.curve,
        tuned.setting,
        judged.sentences,
        judged.loss,
        metric.name(),
        interval(judged.loss_interval),
        judged.speedup,
        clock.sentences,
        clock.speedup,
        interval(clock.interval),
        if clock.noisy { " Something else was running meanwhile." } else { "" },
        tuned.sentences_decoded,
    )
}
