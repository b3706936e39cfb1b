//! Quality and speed of one policy, beside the big model alone in the same run.

use std::time::{Duration, Instant};

use bild::{
    Output,
    decode::{BoxedPair, Generator, Statistics},
    policies::{AnyPolicy, BigAlone},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Bench, Log, Observer, Result, Timed,
    clock::{both, seconds},
    metrics::{Scores, Sentence, bootstrap},
    speedup,
};

/// Resamples for an interval.
const RESAMPLES: usize = 1000;
/// How long rounds are added for, and how many there are at most, if nothing is said.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
const ROUNDS: usize = 20;

/// One sentence by one model or pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// What was written.
    pub text: String,
    /// How it came about.
    pub statistics: Statistics,
}

/// What was done, as it is kept in a log, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Done {
    /// A sentence for the first time: by the policy and by the big model alone.
    First {
        /// The number of the sentence.
        index: usize,
        /// By the policy.
        policy: Box<Record>,
        /// By the big model alone.
        big: Box<Record>,
    },
    /// Its seconds once more.
    Again {
        /// The number of the sentence.
        index: usize,
        /// By the policy.
        policy_seconds: f64,
        /// By the big model alone.
        big_seconds: f64,
    },
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

/// All sentences by a policy and by the big model alone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evaluation {
    /// What was written for each, by the policy and by the big model.
    pub records: Vec<(Record, Record)>,
    /// The times of all rounds, in the order in which they were taken.
    pub times: Vec<Timed>,
}

/// Decodes every sentence with a policy and with the big model alone, in turn, and times both in so many rounds; if that is not
/// said, in as many as ten seconds hold, 20 at most. What the log has already is not done again.
///
/// # Errors
///
/// If a generation fails, or the log cannot be written.
pub fn evaluate(
    bench: &Bench,
    policy: &AnyPolicy,
    rounds: Option<usize>,
    mut log: Log<Done>,
    observer: &dyn Observer,
) -> Result<Evaluation> {
    measure(bench, policy, rounds, &mut log, observer)?;
    let count = bench.sources.len();
    let (mut records, mut times) = (vec![None; count], Vec::new());
    for done in log.records.into_iter().filter(|done| done.times().index < count) {
        times.push(done.times());
        if let Done::First { index, policy, big } = done {
            records[index] = Some((*policy, *big));
        }
    }
    Ok(Evaluation { records: records.into_iter().flatten().collect(), times })
}

/// Decodes and times what the log does not have yet, round by round.
fn measure(
    bench: &Bench,
    policy: &AnyPolicy,
    asked: Option<usize>,
    log: &mut Log<Done>,
    observer: &dyn Observer,
) -> Result<()> {
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
        let is_enough = match asked {
            Some(rounds) => done >= rounds,
            // Another round must fit as well.
            None => done >= ROUNDS || (done > 0 && seconds * (1.0 + 1.0 / done as f64) > LONG_ENOUGH.as_secs_f64()),
        };
        if is_enough {
            return Ok(());
        }
        let missing: Vec<usize> = (0..count).filter(|index| rounds[*index] == done).collect();
        observer.begins(if done == 0 { "Evaluating" } else { "Timing" }, missing.len());
        let begun = Instant::now();
        for index in missing {
            if !std::mem::replace(&mut is_warm, true) {
                // The first generation of a process is slower than those after it.
                one(bench, [&generator, &alone], index, 0)?;
            }
            let outputs = one(bench, [&generator, &alone], index, index + done)?;
            log.add(record(bench, index, done, outputs)?)?;
            rounds[index] += 1;
            observer.advances();
        }
        seconds += begun.elapsed().as_secs_f64();
        observer.ends();
    }
}

fn one(bench: &Bench, both_ways: [&Generator<BoxedPair>; 2], index: usize, first: usize) -> Result<[Output; 2]> {
    both(both_ways, &bench.sources[index], first).map_err(|error| format!("source {}: {error}", index + 1).into())
}

fn record(bench: &Bench, index: usize, round: usize, outputs: [Output; 2]) -> Result<Done> {
    let [found, big] = outputs;
    if round > 0 {
        let [policy_seconds, big_seconds] = [found, big].map(|output| seconds(&output));
        return Ok(Done::Again { index, policy_seconds, big_seconds });
    }
    let record = |output: Output| -> Result<Box<Record>> {
        Ok(Box::new(Record { text: bench.tokenizer.decode(&output.tokens)?, statistics: output.statistics }))
    };
    Ok(Done::First { index, policy: record(found)?, big: record(big)? })
}

impl Evaluation {
    /// The result for a program: scores, counts and times of the policy and of the big model alone, with intervals.
    pub fn json(&self, bench: &Bench) -> Value {
        json_of(&self.records, &self.times, bench)
    }
}

fn json_of(records: &[(Record, Record)], times: &[Timed], bench: &Bench) -> Value {
    let judged = |record: &Record, i: usize| Sentence::of(&record.text, &bench.examples[i].reference);
    let found: Vec<Sentence> = records.iter().enumerate().map(|(i, (found, _))| judged(found, i)).collect();
    let big: Vec<Sentence> = records.iter().enumerate().map(|(i, (_, big))| judged(big, i)).collect();
    let interval = |f: &dyn Fn(&[usize]) -> f64| bootstrap(records.len(), RESAMPLES, 1, f);
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
    let (source_tokens, truncated) = bench.read();
    let speed = speedup(times);
    let more = json!({
        "speedup": speed.times,
        "block_efficiency": sum.block_efficiency(),
        "big_share": sum.verifier_share(),
        "fallback_rate": sum.fallback_rate(),
        "rollback_rate": sum.rollback_rate(),
        "acceptance_rate": sum.acceptance_rate(),
        "sentences": records.len(), "tokens": sum.tokens, "seconds": sum.total_time.as_secs_f64(),
        "source_tokens": source_tokens, "truncated": truncated,
        "draft_steps": sum.draft_steps, "verifier_calls": sum.verifier_calls,
        "same_as_big": records.iter().filter(|(found, big)| found.text == big.text).count(),
        "rounds": times.len() as f64 / records.len() as f64,
        "timed_seconds": times.iter().map(|timed| timed.policy + timed.big).sum::<f64>(),
        "noisy": speed.noisy,
        "intervals": {
            "bleu": interval(&|indices| of(&found, indices).bleu),
            "bleu_loss": interval(&|indices| of(&big, indices).bleu - of(&found, indices).bleu),
            "rougeL": interval(&|indices| of(&found, indices).rouge_l),
            "speedup": speed.interval,
            "speedup_sentences": speed.sentences,
        },
    });
    result.as_object_mut().expect("it is an object").extend(more.as_object().expect("it is an object").clone());
    let mut big = scores(&big);
    big["seconds"] = big_sum.total_time.as_secs_f64().into();
    big["tokens"] = big_sum.tokens.into();
    result["big"] = big;
    result
}
