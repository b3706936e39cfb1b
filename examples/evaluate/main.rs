//! Quality and speed of a policy on a dataset, beside the big model alone in the same run.
//!
//! cargo run --release --example evaluate -- --source valid.de --reference valid.en --fallback 0.6 --rollback 3

#[path = "../support/mod.rs"]
mod support;

mod result;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use bild::{AnyPolicy, BigAlone, Generator, Output, Statistics};
use clap::Parser;
use serde::{Deserialize, Serialize};
use support::{
    Error,
    args::{self, DatasetArgs, PairArgs, PolicyArgs, TextArgs, whole},
    clock::{Timed, both},
    dataset,
    log::Log,
    output::{Files, OutputFile},
    pair::AnyPair,
    policy::{Needs, needs},
    progress,
    streams::Stdout,
    trial::{self, Bench},
};

/// Quality and speed of a policy on a dataset: BLEU, chrF and ROUGE, and how many times as fast it is as the big model
/// alone, both timed in turn on every sentence.
#[derive(Parser)]
#[command(name = "evaluate", allow_negative_numbers = true)]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// How often to time every sentence; more rounds tell the machine's noise [default: as many as ten seconds hold, 20 at
    /// most]
    #[arg(long, value_name = "N", value_parser = whole(1..=1000))]
    rounds: Option<usize>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Write the outputs to this file, one a line
    #[arg(long, value_name = "FILE")]
    hyp: Option<PathBuf>,
    /// Keep what is done in this file, and go on from there if it is there already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// How long rounds are added for, and how many there are at most, if nothing is said.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
const ROUNDS: usize = 20;

/// One sentence by one model or pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    text: String,
    statistics: Statistics,
}

/// What was done, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Done {
    /// A sentence for the first time: by the policy and by the big model alone.
    First { index: usize, policy: Box<Record>, big: Box<Record> },
    /// Its seconds once more.
    Again { index: usize, policy_seconds: f64, big_seconds: f64 },
}

impl Done {
    fn times(&self) -> Timed {
        match self {
            Self::First { index, policy, big } => {
                let seconds = |record: &Record| record.statistics.total_time.as_secs_f64();
                Timed { index: *index, policy: seconds(policy), big: seconds(big) }
            }
            Self::Again { index, policy_seconds, big_seconds } => {
                Timed { index: *index, policy: *policy_seconds, big: *big_seconds }
            }
        }
    }
}

fn main() -> ExitCode {
    args::main(run)
}

fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let (pair, dataset) = (args.pair.options(), args.dataset.options()?);
    let mut files = Files::default();
    dataset.name(&mut files);
    files.reads_folders(pair.folders());
    files.reads("--policy-file", args.policy.file());
    files.writes("--hyp", args.hyp.as_deref()).writes("--resume", args.resume.as_deref()).check()?;
    let hyp = args.hyp.as_deref().map(OutputFile::tried).transpose()?;
    let policy = args.policy.policy()?;
    // The big model is always there, to be compared with.
    let needs = if needs(&policy) == Needs::Big { Needs::Big } else { Needs::Both };
    args::warn(args.policy.warnings().into_iter().chain(args.pair.warnings(needs)));
    args::warn(args.texts.warning(&policy));
    if needs == Needs::Big {
        args::warn(["the big model is compared with itself".into()]);
    }
    let mut examples = dataset.read()?;
    let count = dataset.taken(examples.len());
    let loaded = pair.load(needs)?;
    let limits = args.texts.limits(args.dataset.max_source_tokens, true);
    let data = dataset::conditions(&examples)?;
    examples.truncate(count);
    let bench = Bench::new(loaded, examples, &args.texts.prefix, &limits)?;
    // What was done under other conditions is not gone on with. The number of sentences may grow.
    let conditions = || Ok(bench.conditions()?.and(data).with("the policy", &policy)?);
    let mut log = Log::open(args.resume.as_deref(), "evaluate", conditions)?;
    measure(args, &bench, &policy, &mut log)?;
    let (mut records, mut times) = (vec![None; count], Vec::new());
    for done in log.records.iter().filter(|done| done.times().index < count) {
        times.push(done.times());
        if let Done::First { index, policy, big } = done {
            records[*index] = Some((&**policy, &**big));
        }
    }
    let records: Vec<(&Record, &Record)> = records.into_iter().flatten().collect();
    let result = result::json(&records, &times, &bench);
    let printed = if args.json { out.line(&result) } else { out.line(result::table(&result)) };
    if let Some(hyp) = &hyp {
        let line = |record: &Record| record.text.replace(['\n', '\r'], " ") + "\n";
        hyp.write(&records.iter().map(|(policy, _)| line(policy)).collect::<String>())?;
    }
    result::warn(&result);
    printed.map(|()| true)
}

/// Decodes and times what the log does not have yet, round by round.
fn measure(args: &Args, bench: &Bench, policy: &AnyPolicy, log: &mut Log<Done>) -> Result<(), Error> {
    let count = bench.sources.len();
    let mut rounds = vec![0; count];
    let mut seconds = 0.0;
    for timed in log.records.iter().map(Done::times).filter(|timed| timed.index < count) {
        rounds[timed.index] += 1;
        seconds += timed.policy + timed.big;
    }
    let (generator, alone) = (bench.generator(policy)?, bench.generator(&AnyPolicy::Big(BigAlone {}))?);
    let mut is_warm = false;
    loop {
        let done = rounds.iter().copied().min().unwrap_or(0);
        let is_enough = match args.rounds {
            Some(rounds) => done >= rounds,
            // Another round must fit as well.
            None => done >= ROUNDS || (done > 0 && seconds * (1.0 + 1.0 / done as f64) > LONG_ENOUGH.as_secs_f64()),
        };
        if is_enough {
            return Ok(());
        }
        let missing: Vec<usize> = (0..count).filter(|index| rounds[*index] == done).collect();
        let progress = progress::bar(count, if done == 0 { "Evaluating" } else { "Timing" });
        progress.set_position((count - missing.len()) as u64);
        let begun = Instant::now();
        for index in missing {
            if !std::mem::replace(&mut is_warm, true) {
                // The first generation of a process is slower than those after it.
                one(bench, [&generator, &alone], index, 0)?;
            }
            let outputs = one(bench, [&generator, &alone], index, index + done)?;
            log.add(record(bench, policy, index, done, outputs)?)?;
            rounds[index] += 1;
            progress.inc(1);
        }
        seconds += begun.elapsed().as_secs_f64();
        progress.finish_and_clear();
    }
}

fn one(bench: &Bench, both_ways: [&Generator<AnyPair>; 2], index: usize, first: usize) -> Result<[Output; 2], Error> {
    both(both_ways, &bench.sources[index], first).map_err(|error| format!("source {}: {error}", index + 1).into())
}

fn record(bench: &Bench, policy: &AnyPolicy, index: usize, round: usize, outputs: [Output; 2]) -> Result<Done, Error> {
    let [mut found, big] = outputs;
    if round > 0 {
        let [policy_seconds, big_seconds] = [found, big].map(|output| support::clock::seconds(&output));
        return Ok(Done::Again { index, policy_seconds, big_seconds });
    }
    trial::count_as(policy, &mut found);
    let record = |output: Output| -> Result<Box<Record>, Error> {
        Ok(Box::new(Record { text: bench.tokenizer.decode(&output.tokens)?, statistics: output.statistics }))
    };
    Ok(Done::First { index, policy: record(found)?, big: record(big)? })
}
