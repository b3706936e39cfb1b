//! Choosing the fastest policy within a stated loss of quality.

use std::time::Duration;

use bild::{
    decode::BoxedPair,
    policies::{AnyPolicy, BigAlone},
};
use serde::Serialize;

use crate::{
    Bench, Candidate, Costs, Decoded, Log, Metric, Observer, Result, candidates, in_turn,
    metrics::bootstrap,
    race::{EVEN, Line, Race, SURE},
    scores, speedup,
};

/// The most time for timing by the clock.
const BUDGET: Duration = Duration::from_secs(20);
const ROUNDS: usize = 5;
/// The fewest sentences to choose and to judge by.
const FEWEST: usize = 40;

/// What is looked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TuneOptions {
    /// The most quality to lose, in points of the metric: 1.
    pub loss: f64,
    /// What quality is: BLEU.
    pub metric: Metric,
    /// Whether everything is decoded with every policy of the paper's grid, for comparison.
    pub grid: bool,
    /// How many sentences the chosen policy is timed on by the clock: 40.
    pub timed: usize,
    /// Another pair for that: the one whose passes were measured.
    pub timed_pair: Option<BoxedPair>,
    /// What is chosen from, in place of all that may win.
    pub candidates: Option<Vec<Candidate>>,
}

impl Default for TuneOptions {
    fn default() -> Self {
        Self { loss: 1.0, metric: Metric::Bleu, grid: false, timed: 40, timed_pair: None, candidates: None }
    }
}

impl TuneOptions {
    /// Sets the most quality to lose, in points of a metric.
    pub fn with_loss(mut self, points: f64, metric: Metric) -> Self {
        (self.loss, self.metric) = (points, metric);
        self
    }

    /// Refuses so many sentences if they are too few to choose and to judge by, as [`tune`] does.
    ///
    /// # Errors
    ///
    /// If they are.
    pub fn check(sentences: usize) -> Result<()> {
        if sentences < FEWEST {
            let few = format!("{sentences} sentences are too few to choose and to judge by: give {FEWEST} at least");
            return Err(few.into());
        }
        Ok(())
    }
}

/// The policy that was chosen.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Tuned {
    /// It.
    pub policy: AnyPolicy,
    /// What it was compared as.
    pub curve: &'static str,
    /// Its thresholds in words.
    pub setting: String,
    /// What was known of it when it was chosen.
    pub chosen_on: ChosenOn,
    /// How many sentences were decoded to choose it.
    pub sentences_decoded: usize,
    /// What it does on the other half of the sentences.
    pub judged_on: JudgedOn,
    /// Whether it is sure enough to lose no more than allowed. If not, it is the one that loses least.
    #[serde(skip)]
    pub is_allowed: bool,
}

/// How a policy did on sentences that it was chosen by.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChosenOn {
    /// The quality lost to the big model alone.
    pub loss: f64,
    /// How many times as fast it is by its passes.
    pub speedup: f64,
    /// How many there were.
    pub sentences: usize,
}

/// How a policy did on sentences that it was not chosen by.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct JudgedOn {
    /// How many there were.
    pub sentences: usize,
    /// The quality.
    pub quality: f64,
    /// The quality of the big model alone.
    pub big: f64,
    /// The quality lost to it.
    pub loss: f64,
    /// Where that lies with 95 %, for other sentences.
    pub loss_interval: Option<(f64, f64)>,
    /// How many times as fast it is by its passes.
    pub speedup: f64,
    /// The same by the clock.
    pub by_the_clock: ByTheClock,
}

/// How fast a policy is by the clock.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ByTheClock {
    /// How many times as fast.
    pub speedup: f64,
    /// Where that lies with 95 %.
    pub interval: Option<(f64, f64)>,
    /// How many sentences were timed.
    pub sentences: usize,
    /// Whether something else was running.
    pub noisy: bool,
}

/// Chooses the fastest policy that loses at most so much quality to the big model alone: on the first half of the sentences, by
/// decoding few of them with most policies and more with those that may win. It is judged on the second half.
///
/// # Errors
///
/// If there are too few sentences or no candidates, a generation fails, or the log cannot be written.
pub fn tune(
    bench: &Bench,
    costs: &Costs,
    options: &TuneOptions,
    log: Log<Line>,
    observer: &dyn Observer,
) -> Result<Tuned> {
    let count = bench.sources.len();
    TuneOptions::check(count)?;
    if options.candidates.as_ref().is_some_and(Vec::is_empty) {
        return Err("there is no policy to choose from".into());
    }
    let half = count / 2;
    let mut race = Race::new(bench, costs, options.metric, options.loss, half, log, observer);
    let chosen = match &options.candidates {
        _ if options.grid => race.run_all(candidates::grid()?)?,
        Some(candidates) => race.run(candidates.clone())?,
        None => race.run(candidates::for_tuning(costs)?)?,
    };
    let policy = chosen.candidate.policy;
    Ok(Tuned {
        judged_on: judge(bench, costs, options, &policy, half, observer)?,
        policy,
        curve: chosen.candidate.curve,
        setting: chosen.candidate.label,
        chosen_on: ChosenOn { loss: chosen.loss, speedup: chosen.speedup, sentences: chosen.decoded.len() },
        sentences_decoded: race.decoded(),
        is_allowed: chosen.allowed >= if options.grid { EVEN } else { SURE },
    })
}

/// What a policy does on the sentences from `begin` on, beside the big model alone.
fn judge(
    bench: &Bench,
    costs: &Costs,
    options: &TuneOptions,
    policy: &AnyPolicy,
    begin: usize,
    observer: &dyn Observer,
) -> Result<JudgedOn> {
    let rest: Vec<usize> = (begin..bench.sources.len()).collect();
    observer.begins("Judging", 2 * rest.len());
    let found = bench.decode(policy, &rest, || observer.advances())?;
    let alone = AnyPolicy::Big(BigAlone {});
    let big = bench.decode(&alone, &rest, || observer.advances())?;
    observer.ends();

    let pair = options.timed_pair.as_ref().unwrap_or(&bench.pair);
    let timed = bench.some(pair.clone(), begin, options.timed);
    observer.begins("Timing", ROUNDS * timed.sources.len());
    let generators = [&timed.generator(policy)?, &timed.generator(&alone)?];
    let times = in_turn(generators, timed.sources.iter(), ROUNDS, BUDGET, || observer.advances())?;
    observer.ends();
    let clock = speedup(&times);

    let quality = |decoded: &[Decoded]| options.metric.of(&scores(decoded));
    let some = |decoded: &[Decoded], indices: &[usize]| {
        let chosen: Vec<Decoded> = indices.iter().map(|&i| decoded[i].clone()).collect();
        quality(&chosen)
    };
    Ok(JudgedOn {
        sentences: found.len(),
        quality: quality(&found),
        big: quality(&big),
        loss: quality(&big) - quality(&found),
        loss_interval: bootstrap(found.len(), 500, 1, |indices| some(&big, indices) - some(&found, indices)),
        speedup: costs.of_all(&big) / costs.of_all(&found),
        by_the_clock: ByTheClock {
            speedup: clock.times,
            interval: clock.interval,
            sentences: timed.sources.len().min(times.len()),
            noisy: clock.noisy,
        },
    })
}
