//! Runs a generator and takes the time.

use std::time::Instant;

use bild::{
    Output,
    decode::{Generator, Pair, Source},
};

use bild_eval::median;

use super::{Args, profile};
use crate::{Error, progress::bar};

/// What was measured.
pub(crate) struct Measured {
    /// What a user waits for once: the first run.
    pub(crate) first_ms: f64,
    pub(crate) outputs: Vec<Output>,
    /// How many times as fast several generations at once were as many one after the other.
    pub(crate) at_once: Option<Spread>,
}

/// A median, the least and the most.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Self {
        Self {
            median: median(values.to_vec()),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(0.0, f64::max),
        }
    }

    /// A line of a report, of milliseconds.
    pub(crate) fn line(self, name: &str) -> String {
        let Self { median, min, max } = self;
        format!("{name:<16} {median:>9.3} ms ({min:.3} to {max:.3})\n")
    }
}

pub(crate) fn measure<P: Pair>(args: &Args, generator: &Generator<P>, source: &Source) -> Result<Measured, Error> {
    let progress = bar(args.runs + 1, "Measuring");
    let first = generator.generate(source)?;
    progress.inc(1);
    profile::begin();
    let mut outputs = Vec::new();
    for _ in 0..args.runs {
        outputs.push(generator.generate(source)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let at_once = args.at_once.map(|count| at_once(generator, source, args.runs, count)).transpose()?;
    Ok(Measured { first_ms: first.statistics.total_time.as_secs_f64() * 1e3, outputs, at_once })
}

/// Both ways in turn, so that what else the machine does falls on both.
fn at_once<P: Pair>(generator: &Generator<P>, source: &Source, runs: usize, count: usize) -> Result<Spread, Error> {
    let mut speedups = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        for _ in 0..count {
            generator.generate(source)?;
        }
        let in_turn = begun.elapsed();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| generator.generate(source))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("nothing panics").map(drop))
        })?;
        speedups.push(in_turn.as_secs_f64() / begun.elapsed().as_secs_f64());
    }
    Ok(Spread::of(&speedups))
}
