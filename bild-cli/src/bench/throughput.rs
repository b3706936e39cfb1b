//! Times many sources at once.

use std::time::Instant;

use bild::decode::{Generator, Pair, Source, Statistics};
use serde_json::json;

use super::measure::Spread;
use crate::{Error, progress::bar};

/// Tokens a second of all generations together, from their beginning to their end, encoders included.
pub(crate) struct Throughput {
    tokens_per_s: Spread,
    runs: Vec<f64>,
    at_once: usize,
    sources: usize,
    /// Of one run.
    statistics: Statistics,
}

impl Throughput {
    pub(crate) fn measure<P: Pair>(generator: &Generator<P>, sources: &[Source], runs: usize) -> Result<Self, Error> {
        let progress = bar(runs + 1, "Measuring");
        let mut speeds = Vec::new();
        let mut statistics = Statistics::default();
        // The first time warms up.
        for run in 0..=runs {
            let mut failed = None;
            statistics = Statistics::default();
            let begun = Instant::now();
            generator.generate_many(sources, |_, output| match output {
                Ok(output) => statistics += &output.statistics,
                Err(error) => _ = failed.get_or_insert(error),
            });
            let speed = statistics.tokens as f64 / begun.elapsed().as_secs_f64();
            if let Some(error) = failed {
                return Err(error.into());
            }
            speeds.extend((run > 0).then_some(speed));
            progress.inc(1);
        }
        progress.finish_and_clear();
        let at_once = generator.at_once().min(sources.len());
        Ok(Self { tokens_per_s: Spread::of(&speeds), runs: speeds, at_once, sources: sources.len(), statistics })
    }

    pub(crate) fn json(&self) -> String {
        let Spread { median, min, max } = self.tokens_per_s;
        json!({
            "tokens_per_s": median, "tokens_per_s_min": min, "tokens_per_s_max": max, "runs": self.runs,
            "sources": self.sources, "batch": self.at_once, "stats": self.statistics,
        })
        .to_string()
    }

    pub(crate) fn text(&self) -> String {
        let Spread { median, min, max } = self.tokens_per_s;
        let Self { sources, at_once, statistics, .. } = self;
        format!(
            "{sources} sources, {at_once} at once: {median:.1} tokens a second ({min:.1} to {max:.1})\n{statistics}\n"
        )
    }
}
