//! How sure a measured speedup is: what other sentences would change, and what the machine does beside.
//!
//! Sentences are resampled. The machine's noise is told from blocks: the measurements in the order of time, cut into a
//! few stretches, whose speedups would be the same on a quiet machine. What is slower than the whole run is in neither.

use crate::{clock::Timed, metrics::bootstrap};

/// How many stretches of time are compared.
const BLOCKS: usize = 10;
/// The quantile of Student's distribution that belongs to so many, for 95 %.
const STUDENT: f64 = 2.262;
const RESAMPLES: usize = 1000;

/// A speedup, and where it lies with 95 %; of one sentence that is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Speedup {
    /// How many times as fast as the big model alone.
    pub times: f64,
    /// For other sentences and other moments like those of the run.
    pub interval: Option<(f64, f64)>,
    /// For other sentences alone.
    pub sentences: Option<(f64, f64)>,
    /// Whether the stretches of time differ by more than their sentences explain.
    pub noisy: bool,
}

fn ratio<'a>(times: impl IntoIterator<Item = &'a Timed>) -> f64 {
    let (policy, big) = times.into_iter().fold((0.0, 0.0), |(policy, big), t| (policy + t.policy, big + t.big));
    big / policy
}

/// The mean times of each sentence over its rounds.
fn by_sentence(times: &[Timed]) -> Vec<Timed> {
    let count = times.iter().map(|timed| timed.index + 1).max().unwrap_or(0);
    let mut sums = vec![(Timed { index: 0, policy: 0.0, big: 0.0 }, 0.0); count];
    for timed in times {
        let (sum, rounds) = &mut sums[timed.index];
        (sum.index, sum.policy, sum.big) = (timed.index, sum.policy + timed.policy, sum.big + timed.big);
        *rounds += 1.0;
    }
    let mean = |(sum, n): (Timed, f64)| Timed { policy: sum.policy / n, big: sum.big / n, ..sum };
    sums.into_iter().filter(|(_, rounds)| *rounds > 0.0).map(mean).collect()
}

/// The speedup of measurements in the order in which they were made.
pub fn speedup(times: &[Timed]) -> Speedup {
    let whole = ratio(times);
    let sentences = by_sentence(times);
    let Some(resampled) =
        bootstrap(sentences.len(), RESAMPLES, 1, |chosen| ratio(chosen.iter().map(|&i| &sentences[i])))
    else {
        return Speedup { times: whole, interval: None, sentences: None, noisy: false };
    };
    let of_sentences = (resampled.1 / resampled.0).ln() / (2.0 * 1.96);
    let rounds = times.len() / sentences.len().max(1);
    let of_time = if rounds > 1 { between_rounds(times, &sentences) } else { between_blocks(times) };
    // In one round the stretches hold other sentences too, so that the larger of the two errors is both; in several
    // rounds the sentences were taken out.
    let (error, noisy) = if rounds > 1 {
        (of_sentences.hypot(of_time), of_time > of_sentences)
    } else {
        (of_sentences.max(of_time), of_time > 1.5 * of_sentences)
    };
    let quantile = if of_time > of_sentences { STUDENT } else { 1.96 };
    let wide = (quantile * error).exp();
    // The bootstrap's own interval need not be symmetric.
    let interval = (resampled.0.min(whole / wide), resampled.1.max(whole * wide));
    Speedup { times: whole, interval: Some(interval), sentences: Some(resampled), noisy }
}

/// Stretches of time of about one length.
fn blocks(times: &[Timed]) -> impl Iterator<Item = &[Timed]> {
    let count = BLOCKS.min(times.len());
    (0..count).map(move |i| &times[i * times.len() / count..(i + 1) * times.len() / count])
}

/// The standard error of the speedup's logarithm by leaving out one stretch after the other (the jackknife).
fn between_blocks(times: &[Timed]) -> f64 {
    let count = BLOCKS.min(times.len());
    if count < 2 {
        return 0.0;
    }
    let without: Vec<f64> = (0..count)
        .map(|left_out| {
            let others = blocks(times).enumerate().filter(|(i, _)| *i != left_out);
            ratio(others.flat_map(|(_, block)| block)).ln()
        })
        .collect();
    let mean = without.iter().sum::<f64>() / count as f64;
    let squares = without.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (squares * (count - 1) as f64 / count as f64).sqrt()
}

/// The standard error of the speedup's logarithm that comes from the moments: how the speedup of each stretch differs from
/// that of the same sentences in all rounds.
fn between_rounds(times: &[Timed], sentences: &[Timed]) -> f64 {
    let rounds = times.len() as f64 / sentences.len() as f64;
    let of = |index: usize| &sentences[sentences.partition_point(|timed| timed.index < index)];
    let differences: Vec<f64> =
        blocks(times).map(|block| (ratio(block) / ratio(block.iter().map(|t| of(t.index)))).ln()).collect();
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let variance = differences.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // The rounds' mean holds a part of each stretch's own noise.
    (variance / count * rounds / (rounds - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SplitMix64;

    /// A run of rounds over sentences: true speedup 1.2, sentences that differ, and a machine that is slower for the policy in
    /// stretches of `stretch` measurements, by up to `noise`.
    fn run(random: &mut SplitMix64, sentences: usize, rounds: usize, noise: f64, stretch: usize) -> Vec<Timed> {
        let mut uniform = |width: f64| 1.0 + width * (random.below(1 << 20) as f64 / f64::from(1 << 19) - 1.0);
        let lengths: Vec<(f64, f64)> = (0..sentences).map(|_| (uniform(0.5), uniform(0.1))).collect();
        let mut slow = 1.0;
        let one = |i: usize| {
            if i.is_multiple_of(stretch) {
                slow = uniform(noise);
            }
            let (length, gain) = lengths[i % sentences];
            Timed { index: i % sentences, policy: length * gain * slow, big: 1.2 * length }
        };
        (0..sentences * rounds).map(one).collect()
    }

    /// How many of 100 runs have an interval that holds the truth: theirs, and that of sentences alone.
    fn covered(sentences: usize, rounds: usize, noise: f64, stretch: usize) -> (usize, usize, usize) {
        let mut random = SplitMix64::new(5);
        let runs: Vec<_> = (0..100).map(|_| speedup(&run(&mut random, sentences, rounds, noise, stretch))).collect();
        let holds = |of: fn(&Speedup) -> Option<(f64, f64)>| {
            runs.iter().filter(|run| of(run).is_some_and(|(low, high)| low <= 1.2 && 1.2 <= high)).count()
        };
        (holds(|run| run.interval), holds(|run| run.sentences), runs.iter().filter(|run| run.noisy).count())
    }

    #[test]
    fn intervals_hold_the_machines_noise() {
        // Quiet: both hold, and the wider is not much wider.
        let (wide, narrow, noisy) = covered(60, 1, 0.0, 1);
        assert!(wide >= 92 && narrow >= 88 && noisy <= 10, "{wide} {narrow} {noisy}");
        let (wide, narrow, noisy) = covered(60, 5, 0.0, 1);
        assert!(wide >= 90 && narrow >= 88 && noisy == 0, "{wide} {narrow} {noisy}");
        // Noise in stretches: only those that know of it hold.
        for (sentences, rounds, most) in [(60, 1, 75), (40, 5, 55)] {
            let (wide, narrow, noisy) = covered(sentences, rounds, 0.4, sentences * rounds / 12);
            assert!(wide >= 85 && narrow <= most && noisy >= 80, "{sentences} {rounds}: {wide} {narrow} {noisy}");
        }
    }

    #[test]
    fn few_measurements() {
        let one = speedup(&[Timed { index: 0, policy: 1.0, big: 2.0 }]);
        assert_eq!((one.times, one.interval, one.sentences, one.noisy), (2.0, None, None, false));
        let again = vec![Timed { index: 3, policy: 1.0, big: 2.0 }; 7];
        assert_eq!(speedup(&again).interval, None, "one sentence, however often");
        let same: Vec<_> = (0..7).map(|index| Timed { index, policy: 1.0, big: 2.0 }).collect();
        let (low, high) = speedup(&same).interval.unwrap();
        assert!((high - low).abs() < 1e-9, "{low} to {high}");
        let quiet = run(&mut SplitMix64::new(1), 40, 3, 0.0, 1);
        let found = speedup(&quiet);
        let ((low, high), (of_sentences, _)) = (found.interval.unwrap(), found.sentences.unwrap());
        assert!(low <= found.times && found.times <= high && !found.noisy);
        assert!((low / of_sentences - 1.0).abs() < 0.02, "{found:?}");
    }
}
