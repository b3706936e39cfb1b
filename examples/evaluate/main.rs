//! Quality and speed of a policy on a dataset, beside the big model alone in the same run.
//!
//! cargo run --release --example evaluate -- --source valid.de --reference valid.en --fallback 0.6 --rollback 3

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use bild::{AnyPolicy, BigAlone, Generator, Overflow, Settings, Statistics};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{
    Error,
    dataset::DatasetArgs,
    log::Log,
    metrics::{Scores, Sentence, bootstrap},
    pair::{AnyPair, PairArgs},
    policy::PolicyArgs,
    trial::{self, Bench},
};

/// Quality and speed of a policy on a dataset: BLEU, chrF and ROUGE, and how many times as fast it is as the big model
/// alone, both timed in turn on every sentence.
#[derive(Parser)]
#[command(name = "evaluate")]
struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The most tokens to write for a source
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// The most tokens of a source; what is longer is cut
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_source_tokens: usize,
    /// The seed of a policy that draws random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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

/// One sentence by one policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    text: String,
    statistics: Statistics,
}

impl Record {
    fn seconds(&self) -> f64 {
        self.statistics.total_time.as_secs_f64()
    }
}

fn main() -> ExitCode {
    support::exit(run(&Args::parse()).map(|()| true))
}

fn run(args: &Args) -> Result<(), Error> {
    let examples = args.dataset.read()?;
    let policy = args.policy.policy()?;
    let settings = Settings::default()
        .max_new_tokens(args.max_new_tokens)
        .max_source_tokens(args.max_source_tokens, Overflow::Truncate)
        .seed(args.seed);
    // What was done under other conditions is not gone on with. The number of sentences may grow.
    let dataset = DatasetArgs { count: None, ..args.dataset.clone() };
    let conditions = format!("{dataset:?} {:?} {policy:?} {settings:?}", args.pair);
    let mut log = Log::<(Record, Record)>::open(args.resume.as_deref(), &conditions)?;
    let bench = Bench::new(args.pair.load()?, examples, &args.pair.prefix, settings)?;
    let big = AnyPolicy::Big(BigAlone {});
    let (generator, alone) = (bench.generator(&policy)?, bench.generator(&big)?);
    let count = bench.sources.len();
    let progress = support::bar(count as u64, "Evaluating");
    if log.records.len() < count {
        // The first generation of a process is slower than those after it.
        one(&bench, &generator, &policy, 0)?;
        one(&bench, &alone, &big, 0)?;
    }
    progress.set_position(log.records.len().min(count) as u64);
    for index in log.records.len()..count {
        // In turn, so that what else the machine does falls on both.
        let both = if index % 2 == 0 {
            let found = one(&bench, &generator, &policy, index)?;
            (found, one(&bench, &alone, &big, index)?)
        } else {
            let alone = one(&bench, &alone, &big, index)?;
            (one(&bench, &generator, &policy, index)?, alone)
        };
        log.add(both)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let records = &log.records[..count.min(log.records.len())];
    if let Some(path) = &args.hyp {
        let mut file = BufWriter::new(File::create(path).map_err(|error| format!("{}: {error}", path.display()))?);
        records.iter().try_for_each(|(found, _)| writeln!(file, "{}", found.text.replace(['\n', '\r'], " ")))?;
        file.flush()?;
    }
    let result = result(records, &bench);
    if args.json {
        println!("{result}")
    } else {
        print(&result)
    }
    Ok(())
}

/// One sentence by one policy.
fn one(bench: &Bench, generator: &Generator<AnyPair>, policy: &AnyPolicy, index: usize) -> Result<Record, Error> {
    let mut output =
        generator.generate(&bench.sources[index]).map_err(|error| format!("source {}: {error}", index + 1))?;
    trial::count_as(policy, &mut output);
    Ok(Record { text: bench.tokenizer.decode(&output.tokens)?, statistics: output.statistics })
}

/// Resamples for an interval.
const RESAMPLES: usize = 1000;

fn result(records: &[(Record, Record)], bench: &Bench) -> Value {
    let judged = |record: &Record, i: usize| Sentence::of(&record.text, &bench.examples[i].reference);
    let found: Vec<Sentence> = records.iter().enumerate().map(|(i, (found, _))| judged(found, i)).collect();
    let big: Vec<Sentence> = records.iter().enumerate().map(|(i, (_, big))| judged(big, i)).collect();
    let speedup = |indices: &[usize]| {
        let sum = |of: fn(&(Record, Record)) -> f64| indices.iter().map(|&i| of(&records[i])).sum::<f64>();
        sum(|(_, big)| big.seconds()) / sum(|(found, _)| found.seconds())
    };
    let all: Vec<usize> = (0..records.len()).collect();
    let interval = |f: &dyn Fn(&[usize]) -> f64| {
        let (low, high) = bootstrap(records.len(), RESAMPLES, 1, f);
        json!([low, high])
    };
    let of = |sentences: &[Sentence], indices: &[usize]| Scores::of(indices.iter().map(|&i| &sentences[i]));
    let scores = |sentences: &[Sentence]| {
        let Scores { bleu, chrf, rouge1, rouge2, rouge_l } = Scores::of(sentences.iter());
        json!({ "bleu": bleu, "chrf": chrf, "rouge1": rouge1, "rouge2": rouge2, "rougeL": rouge_l })
    };
    let mut result = scores(&found);
    let (mut sum, mut big_sum) = (Statistics::default(), Statistics::default());
    for (found, big) in records {
        sum += &found.statistics;
        big_sum += &big.statistics;
    }
    let more = json!({
        "speedup": speedup(&all),
        "block_efficiency": sum.block_efficiency(),
        "big_share": sum.verifier_share(),
        "fallback_rate": sum.fallback_rate(),
        "rollback_rate": sum.rollback_rate(),
        "acceptance_rate": sum.acceptance_rate(),
        "sentences": records.len(), "tokens": sum.tokens, "seconds": sum.total_time.as_secs_f64(),
        "draft_steps": sum.draft_steps, "verifier_calls": sum.verifier_calls,
        "same_as_big": records.iter().filter(|(found, big)| found.text == big.text).count(),
        "intervals": {
            "bleu": interval(&|indices| of(&found, indices).bleu),
            "bleu_loss": interval(&|indices| of(&big, indices).bleu - of(&found, indices).bleu),
            "rougeL": interval(&|indices| of(&found, indices).rouge_l),
            "speedup": interval(&speedup),
        },
    });
    result.as_object_mut().expect("it is an object").extend(more.as_object().expect("it is an object").clone());
    let mut big = scores(&big);
    big["seconds"] = big_sum.total_time.as_secs_f64().into();
    big["tokens"] = big_sum.tokens.into();
    result["big"] = big;
    result
}

/// The result for a reader.
fn print(result: &Value) {
    println!("{:<18}{:>10}{:>12}", "", "policy", "big alone");
    for (name, key) in
        [("BLEU", "bleu"), ("chrF", "chrf"), ("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL")]
    {
        let value = |object: &Value| object[key].as_f64().unwrap_or(f64::NAN);
        println!("{name:<18}{:>10.2}{:>12.2}", value(result), value(&result["big"]));
    }
    let low_high = |key: &str| {
        let ends = &result["intervals"][key];
        format!("{:.2} to {:.2}", ends[0].as_f64().unwrap_or(f64::NAN), ends[1].as_f64().unwrap_or(f64::NAN))
    };
    println!("{:<18}{:>10}", "sentences", result["sentences"]);
    println!("{:<18}{:>10}", "the same text", result["same_as_big"]);
    println!(
        "{:<18}{:>10.2}   (95 %: {})",
        "times as fast",
        result["speedup"].as_f64().unwrap_or(f64::NAN),
        low_high("speedup")
    );
    println!("{:<18}{:>10}   (95 %)", "BLEU lost", low_high("bleu_loss"));
    for key in ["block_efficiency", "big_share", "fallback_rate", "rollback_rate", "acceptance_rate"] {
        if let Some(value) = result[key].as_f64() {
            println!("{:<18}{value:>10.2}", key.replace('_', " "));
        }
    }
}
