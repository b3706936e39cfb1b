//! Distributions over the vocabulary, on the host.

use std::num::NonZeroUsize;

use bild_core::{Token, internals::exp};

/// The logarithm of the softmax of logits, in f64.
pub(crate) fn log_softmax(logits: &[f32]) -> impl Iterator<Item = f64> {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let log_sum = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
    logits.iter().map(move |&logit| f64::from(logit) - max - log_sum)
}

/// Weights scaled to the sum 1.
fn normalized(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// A distribution to sample from.
pub(crate) struct Distribution {
    /// The tokens that have a probability, ascending; all of the vocabulary if they are not named.
    tokens: Option<Vec<Token>>,
    probabilities: Vec<f64>,
}

impl Distribution {
    /// All the probability lies on one token.
    pub(crate) fn point(token: Token) -> Self {
        Self { tokens: Some(vec![token]), probabilities: vec![1.0] }
    }

    /// Of logits over `temperature` (above 0), of which the `top_k` largest are kept (and equals of the last of them), and of
    /// those the fewest that have `top_p` of the probability.
    pub(crate) fn of(logits: &[f32], temperature: f32, top_k: Option<NonZeroUsize>, top_p: f32) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Less the largest first: however low the temperature, nothing overflows.
        let weight = |logit: f32| f64::from(exp((logit - max) / temperature));
        let all = match top_k.filter(|k| k.get() < logits.len()) {
            Some(k) => {
                let tokens = largest(logits, k.get());
                let weights = tokens.iter().map(|&token| weight(logits[token as usize])).collect();
                Self { tokens: Some(tokens), probabilities: normalized(weights) }
            }
            None => {
                let weights = logits.iter().map(|&logit| weight(logit)).collect();
                Self { tokens: None, probabilities: normalized(weights) }
            }
        };
        if top_p < 1.0 { all.nucleus(f64::from(top_p)) } else { all }
    }

    pub(crate) fn probability(&self, token: Token) -> f64 {
        let place = match &self.tokens {
            Some(tokens) => tokens.binary_search(&token).ok(),
            None => Some(token as usize),
        };
        place.and_then(|place| self.probabilities.get(place)).copied().unwrap_or(0.0)
    }

    /// The token at a place among the probabilities.
    fn token(&self, place: usize) -> Token {
        self.tokens.as_ref().map_or(place as Token, |tokens| tokens[place])
    }

    /// The token at which the sum of the probabilities passes `uniform`, in [0, 1).
    pub(crate) fn at(&self, uniform: f64) -> Token {
        let mut sum = 0.0;
        let passed = self.probabilities.iter().position(|p| {
            sum += p;
            uniform < sum
        });
        // Rounding may leave the sum of all just below 1.
        let last = || self.probabilities.iter().rposition(|&p| p > 0.0).unwrap_or(0);
        self.token(passed.unwrap_or_else(last))
    }

    /// ½ Σ |p − q|.
    pub(crate) fn variation(&self, other: &Self) -> f64 {
        let shared = |(place, p): (usize, &f64)| p.min(other.probability(self.token(place)));
        1.0 - self.probabilities.iter().enumerate().map(shared).sum::<f64>()
    }

    /// What is left of this distribution where `taken` had its say: max(0, p − q), scaled to the sum 1; this one itself if nothing
    /// is left, which only rounding can bring about.
    pub(crate) fn without(&self, taken: &Self) -> Self {
        let left = |(place, p): (usize, &f64)| (p - taken.probability(self.token(place))).max(0.0);
        let rest: Vec<f64> = self.probabilities.iter().enumerate().map(left).collect();
        let nothing = rest.iter().all(|&p| p <= 0.0);
        let probabilities = if nothing { self.probabilities.clone() } else { normalized(rest) };
        Self { tokens: self.tokens.clone(), probabilities }
    }

    /// Keeps the fewest tokens that have `top_p` of the probability (one at least; of equals the lower token).
    fn nucleus(&self, top_p: f64) -> Self {
        // They are few as a rule: only what is likely enough is sorted.
        let mut least = 1e-3;
        let kept = loop {
            let likely = self.probabilities.iter().enumerate().filter(|(_, p)| **p >= least);
            let mut likely: Vec<(usize, f64)> = likely.map(|(place, &p)| (place, p)).collect();
            likely.sort_unstable_by(|(x, p), (y, q)| q.total_cmp(p).then(x.cmp(y)));
            let mut sum = 0.0;
            let enough = likely.iter().position(|(_, p)| {
                sum += p;
                sum >= top_p
            });
            match enough {
                Some(last) => {
                    likely.truncate(last + 1);
                    break likely;
                }
                None if least == 0.0 => break likely,
                None => least = if least > 1e-9 { least / 30.0 } else { 0.0 },
            }
        };
        let mut kept: Vec<(Token, f64)> = kept.into_iter().map(|(place, p)| (self.token(place), p)).collect();
        kept.sort_unstable_by_key(|(token, _)| *token);
        let (tokens, probabilities) = kept.into_iter().unzip();
        Self { tokens: Some(tokens), probabilities: normalized(probabilities) }
    }
}

/// The tokens of the `k` largest logits and of equals of the last of them, ascending.
fn largest(logits: &[f32], k: usize) -> Vec<Token> {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    // Of the largest so far more are kept than needed, so that they are seldom sorted out.
    let most = 4 * k + 256;
    let (mut some, mut least) = (Vec::with_capacity(most), f32::NEG_INFINITY);
    for &logit in logits {
        if logit >= least {
            some.push(logit);
            if some.len() == most {
                some.select_nth_unstable_by(k - 1, descending);
                some.truncate(k);
                least = some[k - 1];
            }
        }
    }
    least = *some.select_nth_unstable_by(k - 1, descending).1;
    (0..).zip(logits).filter(|(_, logit)| **logit >= least).map(|(token, _)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(distribution: Distribution) -> Vec<f64> {
        let most = distribution.tokens.as_ref().map_or(distribution.probabilities.len(), |tokens| {
            1 + tokens.iter().copied().max().unwrap_or_default() as usize
        });
        (0..most.max(4)).map(|token| distribution.probability(token as Token)).collect()
    }

    #[test]
    fn top_k_and_top_p_keep_what_they_say() {
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        let close = |found: Vec<f64>, expected: [f64; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        };
        close(table(Distribution::of(&logits, 1.0, None, 1.0)), [0.1, 0.4, 0.2, 0.3]);
        close(table(Distribution::of(&logits, 1.0, NonZeroUsize::new(2), 1.0)), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        close(table(Distribution::of(&logits, 1.0, None, 0.5)), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        close(table(Distribution::of(&logits, 1.0, None, 1e-3)), [0.0, 1.0, 0.0, 0.0]);
        close(table(Distribution::of(&logits, f32::MIN_POSITIVE, None, 1.0)), [0.0, 1.0, 0.0, 0.0]);
        let squares = [0.01, 0.16, 0.04, 0.09].map(|p| p / 0.3);
        close(table(Distribution::of(&logits, 0.5, None, 1.0)), squares);
    }

    #[test]
    fn a_wide_nucleus_is_sorted_in_parts() {
        let logits: Vec<f32> = (0..3000).map(|i| (i * 7919 % 3000) as f32 * 1e-3).collect();
        let found = table(Distribution::of(&logits, 1.0, None, 0.9));
        let all: Vec<f64> = log_softmax(&logits).map(f64::exp).collect();
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut sum = 0.0;
        let count = 1 + sorted
            .iter()
            .position(|p| {
                sum += p;
                sum >= 0.9
            })
            .unwrap();
        assert!(count > 1024);
        let kept: Vec<usize> = (0..found.len()).filter(|&i| found[i] > 0.0).collect();
        assert_eq!(kept.len(), count);
        assert!(kept.iter().all(|&i| all[i] >= sorted[count - 1]));
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_largest_are_those_of_a_sort_with_equals_of_the_last() {
        for (count, distinct) in [(1, 1), (5, 3), (300, 300), (3000, 40), (20_000, 19_997)] {
            let logits: Vec<f32> = (0..count).map(|i| (i * 7919 % distinct) as f32 - 20.0).collect();
            let mut sorted = logits.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for k in [1, 2, 50, 999].into_iter().filter(|&k| k <= count) {
                let expected = (0..count as Token).filter(|&token| logits[token as usize] >= sorted[k - 1]);
                assert!(largest(&logits, k).into_iter().eq(expected), "{k} of {count}");
            }
        }
        assert_eq!(largest(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 0.0], 2), [1, 3]);
    }

    #[test]
    fn what_is_left_lies_where_the_verifier_has_more() {
        let [p, q] = [[0.5f32, 0.3, 0.2, 0.0], [0.1, 0.6, 0.0, 0.3]].map(|p| p.map(f32::ln));
        let all = |logits: &[f32]| Distribution::of(logits, 1.0, None, 1.0);
        for p in [all(&p), Distribution::of(&p, 1.0, NonZeroUsize::new(3), 1.0)] {
            let left = table(p.without(&all(&q)));
            assert!(left.iter().zip([2.0 / 3.0, 0.0, 1.0 / 3.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{left:?}");
            let left = table(p.without(&Distribution::point(0)));
            assert!(left.iter().zip([0.0, 0.6, 0.4, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{left:?}");
        }
        assert_eq!(Distribution::point(3).without(&all(&q)).at(0.5), 3);
        assert!((all(&p).variation(&all(&q)) - 0.6).abs() < 1e-6);
        assert!((all(&q).variation(&all(&p)) - 0.6).abs() < 1e-6 && all(&p).variation(&all(&p)).abs() < 1e-6);
    }
}
