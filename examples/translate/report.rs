//! What a person reads under the translation: what the pair did, and how fast beside the big model alone.

use std::{fmt, time::Instant};

use bild::{Flex, Generator, NoDraft, Output, Pair, Source, Statistics, T5};

use crate::support::{Error, median};

/// How often a single sentence is timed.
pub(crate) const ROUNDS: usize = 7;

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) sources: usize,
    statistics: Statistics,
    seconds: f64,
    /// Of the big model alone, where two models decoded.
    baseline: Option<f64>,
    rounds: usize,
}

impl Report {
    /// Adds one source. It was decoded once by now, which warmed everything up; it is timed `rounds` times more, in turn
    /// with the big model alone.
    pub(crate) fn add<P: Pair>(
        &mut self,
        output: &Output,
        generator: &Generator<P>,
        baseline: Option<&Generator<(NoDraft, T5<Flex>)>>,
        source: &Source,
        rounds: usize,
    ) -> Result<(), Error> {
        self.sources += 1;
        self.rounds = rounds;
        self.statistics += &output.statistics;
        let Some(baseline) = baseline else {
            self.seconds += output.statistics.total_time.as_secs_f64();
            return Ok(());
        };
        baseline.generate(source)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(seconds(|| generator.generate(source))?);
            theirs.push(seconds(|| baseline.generate(source))?);
        }
        self.seconds += median(ours);
        *self.baseline.get_or_insert(0.0) += median(theirs);
        Ok(())
    }
}

fn seconds(generate: impl FnOnce() -> bild::Result<Output>) -> bild::Result<f64> {
    let begun = Instant::now();
    generate()?;
    Ok(begun.elapsed().as_secs_f64())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let tokens = self.statistics.tokens;
        match self.baseline {
            None => write!(
                f,
                "{tokens} token{} by one model in {}",
                if tokens == 1 { "" } else { "s" },
                milliseconds(self.seconds)
            ),
            Some(baseline) => {
                writeln!(f, "{}", self.statistics)?;
                let times = baseline / self.seconds;
                write!(
                    f,
                    "{} for the pair, {} for the big model alone: {times:.2}x as fast",
                    milliseconds(self.seconds),
                    milliseconds(baseline)
                )?;
                if self.rounds > 1 { write!(f, " (medians of {})", self.rounds) } else { Ok(()) }
            }
        }
    }
}
