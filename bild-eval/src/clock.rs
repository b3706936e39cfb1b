//! Two generators timed in turn, so that what else the machine does falls on both.

use std::time::{Duration, Instant};

use bild::{
    Output,
    decode::{BoxedPair, Generator, Source},
};

use crate::Result;

/// The seconds that a policy and the big model alone took for one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// The number of the source.
    pub index: usize,
    /// With the policy.
    pub policy: f64,
    /// By the big model alone.
    pub big: f64,
}

/// Both outputs for one source. Which generator comes first goes by `first`.
pub(crate) fn both(generators: [&Generator<BoxedPair>; 2], source: &Source, first: usize) -> Result<[Output; 2]> {
    let [policy, big] = generators;
    Ok(if first.is_multiple_of(2) {
        let output = policy.generate(source)?;
        [output, big.generate(source)?]
    } else {
        let output = big.generate(source)?;
        [policy.generate(source)?, output]
    })
}

/// Times the sources in as many rounds, or fewer once `budget` is spent: what was timed, in order. Of the generators the first
/// has the policy, the second is the big model alone; `each` is called after every source.
///
/// # Errors
///
/// If a generation fails.
pub fn in_turn<'a>(
    generators: [&Generator<BoxedPair>; 2],
    sources: impl ExactSizeIterator<Item = &'a Source> + Clone,
    rounds: usize,
    budget: Duration,
    mut each: impl FnMut(),
) -> Result<Vec<Timed>> {
    let mut times = Vec::new();
    // The first generation of a process is slower than those after it.
    if let Some(source) = sources.clone().next() {
        both(generators, source, 0)?;
    }
    let begun = Instant::now();
    for round in 0..rounds {
        for (index, source) in sources.clone().enumerate() {
            if begun.elapsed() > budget && !times.is_empty() {
                return Ok(times);
            }
            let [policy, big] = both(generators, source, round + index)?.map(|output| seconds(&output));
            times.push(Timed { index, policy, big });
            each();
        }
    }
    Ok(times)
}

/// The seconds that a generation took.
pub fn seconds(output: &Output) -> f64 {
    output.statistics.total_time.as_secs_f64()
}
