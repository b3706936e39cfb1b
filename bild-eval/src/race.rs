//! Choosing among many policies with few decoded sentences: all of them on a few, those that may win on more, by successive
//! halving (Karnin et al. 2013).

use bild::policies::{AnyPolicy, BigAlone};
use serde::{Deserialize, Serialize};

use crate::{
    Bench, Candidate, Costs, Log, Metric, Observer, Result,
    metrics::{Scores, Sentence, resampled},
};

/// How many policies stay, and on what share of the sentences each has been tried by then.
const ROUNDS: [(usize, f64); 4] = [(usize::MAX, 0.06), (24, 0.2), (10, 0.5), (5, 1.0)];
/// How sure it must be that a policy does not lose more than allowed.
pub(crate) const SURE: f64 = 0.7;
/// How sure where all sentences were decoded with all policies.
pub(crate) const EVEN: f64 = 0.5;
const RESAMPLES: usize = 200;

/// A policy with what is known of it so far.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) candidate: Candidate,
    /// By sentence: the quality, and the milliseconds.
    pub(crate) decoded: Vec<(Sentence, f64)>,
    pub(crate) loss: f64,
    pub(crate) speedup: f64,
    /// How likely it is that it loses no more than allowed.
    pub(crate) allowed: f64,
}

impl Trial {
    fn new(candidate: Candidate) -> Self {
        Self { candidate, decoded: Vec::new(), loss: 0.0, speedup: 0.0, allowed: 0.0 }
    }
}

/// A sentence that was decoded, as it is kept in a log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    policy: AnyPolicy,
    index: usize,
    text: String,
    milliseconds: f64,
}

pub(crate) struct Race<'a> {
    bench: &'a Bench,
    costs: &'a Costs,
    metric: Metric,
    /// The most quality to lose.
    loss: f64,
    sentences: usize,
    big: Trial,
    log: Log<Line>,
    observer: &'a dyn Observer,
    decoded: usize,
}

impl<'a> Race<'a> {
    /// On the first `sentences` of the bench.
    pub(crate) fn new(
        bench: &'a Bench,
        costs: &'a Costs,
        metric: Metric,
        loss: f64,
        sentences: usize,
        log: Log<Line>,
        observer: &'a dyn Observer,
    ) -> Self {
        let policy = AnyPolicy::Big(BigAlone {});
        let big = Trial::new(Candidate { curve: "big alone", label: "big alone".into(), policy });
        Self { bench, costs, metric, loss, sentences, big, log, observer, decoded: 0 }
    }

    /// How many sentences were decoded.
    pub(crate) fn decoded(&self) -> usize {
        self.decoded
    }

    /// The fastest of the candidates that is allowed, or the best of them if none is.
    pub(crate) fn run(&mut self, candidates: Vec<Candidate>) -> Result<Trial> {
        let mut trials: Vec<Trial> = candidates.into_iter().map(Trial::new).collect();
        for (stay, share) in ROUNDS {
            // The value of a policy is its speed, if it turns out to be allowed.
            trials.sort_by(|a, b| (b.allowed * b.speedup).total_cmp(&(a.allowed * a.speedup)));
            // The fastest of those that are sure stays whatever it is worth: it may be the only one in the end.
            let sure = trials.iter().filter(|trial| trial.allowed >= SURE);
            let fastest = sure.max_by(|a, b| a.speedup.total_cmp(&b.speedup)).cloned();
            trials.truncate(stay);
            if let Some(fastest) = fastest.filter(|_| trials.iter().all(|trial| trial.allowed < SURE)) {
                trials.push(fastest);
            }
            self.try_on(&mut trials, ((self.sentences as f64 * share) as usize).max(20.min(self.sentences)))?;
        }
        Ok(self.fastest(trials, SURE))
    }

    /// The fastest of the candidates that loses no more than allowed on all sentences.
    pub(crate) fn run_all(&mut self, candidates: Vec<Candidate>) -> Result<Trial> {
        let mut trials: Vec<Trial> = candidates.into_iter().map(Trial::new).collect();
        self.try_on(&mut trials, self.sentences)?;
        Ok(self.fastest(trials, EVEN))
    }

    fn fastest(&self, mut trials: Vec<Trial>, sure: f64) -> Trial {
        trials.sort_by(|a, b| b.speedup.total_cmp(&a.speedup));
        let allowed = trials.iter().position(|trial| trial.allowed >= sure);
        let least = || (0..trials.len()).min_by(|&a, &b| trials[a].loss.total_cmp(&trials[b].loss)).unwrap_or(0);
        let chosen = allowed.unwrap_or_else(least);
        trials.swap_remove(chosen)
    }

    /// Decodes the first `count` sentences with each policy, as far as that was not done yet.
    fn try_on(&mut self, trials: &mut [Trial], count: usize) -> Result<()> {
        self.observer.begins("Trying", trials.len() + 1);
        let mut big = std::mem::replace(&mut self.big, Trial::new(trials[0].candidate.clone()));
        self.decode(&mut big, count)?;
        self.observer.advances();
        for trial in trials {
            self.decode(trial, count)?;
            self.judge(trial, &big);
            self.observer.advances();
        }
        self.big = big;
        self.observer.ends();
        Ok(())
    }

    fn decode(&mut self, trial: &mut Trial, count: usize) -> Result<()> {
        let policy = &trial.candidate.policy;
        // As it was written: JSON may change the last bit of a number, but not twice.
        let read_back: AnyPolicy = serde_json::from_str(&serde_json::to_string(policy)?)?;
        for index in trial.decoded.len()..count {
            let kept = self
                .log
                .records
                .iter()
                .find(|line| line.index == index && [policy, &read_back].contains(&&line.policy));
            let Some(line) = kept else { break };
            let sentence = Sentence::of(&line.text, &self.bench.examples[index].reference);
            trial.decoded.push((sentence, line.milliseconds));
            self.decoded += 1;
        }
        let rest: Vec<usize> = (trial.decoded.len()..count).collect();
        for (index, decoded) in rest.iter().zip(self.bench.decode(policy, &rest, || {})?) {
            let milliseconds = self.costs.of(&decoded.output);
            trial.decoded.push((decoded.sentence, milliseconds));
            self.log.add(Line { policy: policy.clone(), index: *index, text: decoded.text, milliseconds })?;
            self.decoded += 1;
        }
        Ok(())
    }

    /// What is known of a policy, from the sentences it has decoded, beside the big model on the same.
    fn judge(&self, trial: &mut Trial, big: &Trial) {
        let count = trial.decoded.len();
        let quality = |decoded: &[(Sentence, f64)], indices: &[usize]| {
            self.metric.of(&Scores::of(indices.iter().map(|&i| &decoded[i].0)))
        };
        let loss = |indices: &[usize]| quality(&big.decoded, indices) - quality(&trial.decoded, indices);
        let all: Vec<usize> = (0..count).collect();
        trial.loss = loss(&all);
        let within = resampled(count, RESAMPLES, 1, loss).into_iter().filter(|loss| *loss <= self.loss).count();
        // Few sentences may show no loss at all: never quite sure.
        trial.allowed = (within as f64 + 0.5) / (RESAMPLES as f64 + 1.0);
        let time = |decoded: &[(Sentence, f64)]| decoded[..count].iter().map(|(_, time)| time).sum::<f64>();
        trial.speedup = time(&big.decoded) / time(&trial.decoded);
    }
}
