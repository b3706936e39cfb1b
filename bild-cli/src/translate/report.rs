//! What a person reads beside the translation: what the pair did and how long it took; if asked for, how fast it is beside the
//! big model alone.

use std::{collections::BTreeMap, fmt, time::Duration};

use bild::{
    Output,
    decode::{BoxedPair, Generator, Source, Statistics},
};
use bild_eval::{in_turn, median};

use crate::Error;

/// The most sources that are timed, the most rounds, and the most time for it.
const TIMED: usize = 100;
const ROUNDS: usize = 7;
const BUDGET: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Report {
    /// Whether one model decodes alone.
    is_alone: bool,
    pub(crate) sources: usize,
    statistics: Statistics,
    seconds: f64,
    /// The first sources, if they are to be timed.
    kept: Vec<Source>,
}

impl Report {
    pub(crate) fn new(is_alone: bool) -> Self {
        Self { is_alone, ..Self::default() }
    }

    pub(crate) fn add(&mut self, output: &Output, source: &Source, keep: bool) {
        self.sources += 1;
        self.statistics += &output.statistics;
        // Of several at once each has its share.
        let Statistics { encode_time, draft_time, verifier_time, .. } = output.statistics;
        self.seconds += (encode_time + draft_time + verifier_time).as_secs_f64();
        if keep && self.kept.len() < TIMED {
            self.kept.push(source.clone());
        }
    }

    /// Times the first sources by the pair and by the big model alone.
    pub(crate) fn timed(&self, generators: [&Generator<BoxedPair>; 2]) -> Result<String, Error> {
        let times = in_turn(generators, self.kept.iter(), ROUNDS, BUDGET, || {})?;
        let mut by_source: BTreeMap<usize, [Vec<f64>; 2]> = BTreeMap::new();
        for timed in &times {
            let [policy, big] = by_source.entry(timed.index).or_default();
            policy.push(timed.policy);
            big.push(timed.big);
        }
        let rounds = times.len().div_ceil(by_source.len().max(1));
        let (count, all) = (by_source.len(), self.sources);
        let [ours, theirs] =
            [0, 1].map(|which| by_source.values().map(|both| median(both[which].clone())).sum::<f64>());
        let of = if count < all { format!(" of {count} of {all} sources") } else { String::new() };
        Ok(format!(
            "{} for the pair, {} for the big model alone: {:.2}x as fast (timed in turn, medians of {rounds}{of})",
            milliseconds(ours),
            milliseconds(theirs),
            theirs / ours
        ))
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { statistics, .. } = self;
        if self.is_alone {
            write!(f, "{} token{} by one model", statistics.tokens, if statistics.tokens == 1 { "" } else { "s" })?;
        } else {
            write!(f, "{statistics}")?;
        }
        write!(f, "; {}", milliseconds(self.seconds))
    }
}
