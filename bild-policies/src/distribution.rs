//! Distributions over the vocabulary, on the host.

use std::num::NonZeroUsize;

use bild_core::Token;

/// The softmax of logits, in f64.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    normalized(logits.iter().map(|&logit| f64::from(logit - max).exp()).collect())
}

/// Weights scaled to the sum 1.
fn normalized(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// A distribution to sample from.
pub(crate) enum Distribution {
    /// All the probability lies on one token.
    Point(Token),
    /// The probability of each token.
    Table(Vec<f64>),
}

impl Distribution {
    /// Of logits over `temperature` (above 0), of which the `top_k` largest are kept (and equals of the last of them), and of
    /// those the fewest that have `top_p` of the probability.
    pub(crate) fn of(logits: &[f32], temperature: f32, top_k: Option<NonZeroUsize>, top_p: f32) -> Self {
        // Less the largest first: however low the temperature, nothing overflows.
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut logits: Vec<f32> = logits.iter().map(|logit| (logit - max) / temperature).collect();
        if let Some(k) = top_k.filter(|k| k.get() < logits.len()) {
            let mut sorted = logits.clone();
            let (_, &mut least, _) = sorted.select_nth_unstable_by(k.get() - 1, |a, b| b.total_cmp(a));
            logits.iter_mut().filter(|logit| **logit < least).for_each(|logit| *logit = f32::NEG_INFINITY);
        }
        let table = softmax(&logits);
        Self::Table(if top_p < 1.0 { nucleus(table, f64::from(top_p)) } else { table })
    }

    pub(crate) fn probability(&self, token: Token) -> f64 {
        match self {
            Self::Point(point) => f64::from(u8::from(*point == token)),
            Self::Table(table) => table.get(token as usize).copied().unwrap_or(0.0),
        }
    }

    /// The token at which the sum of the probabilities passes `uniform`, in [0, 1).
    pub(crate) fn at(&self, uniform: f64) -> Token {
        match self {
            Self::Point(token) => *token,
            Self::Table(table) => {
                let mut sum = 0.0;
                let passed = table.iter().position(|p| {
                    sum += p;
                    uniform < sum
                });
                // Rounding may leave the sum of all just below 1.
                let last = || table.iter().rposition(|&p| p > 0.0).unwrap_or(0);
                passed.unwrap_or_else(last) as Token
            }
        }
    }

    /// What is left of this distribution where `taken` had its say: max(0, p − q), scaled to the sum 1; this one itself if nothing
    /// is left, which only rounding can bring about.
    pub(crate) fn without(&self, taken: &Self) -> Self {
        let Self::Table(table) = self else { return Self::Point(self.at(0.0)) };
        let left = |(token, p): (usize, &f64)| (p - taken.probability(token as Token)).max(0.0);
        let rest: Vec<f64> = table.iter().enumerate().map(left).collect();
        let nothing = rest.iter().all(|&p| p <= 0.0);
        Self::Table(if nothing { table.clone() } else { normalized(rest) })
    }
}

/// Keeps the fewest tokens that have `top_p` of the probability (one at least; of equals the lower token) and scales them to
/// the sum 1.
fn nucleus(mut table: Vec<f64>, top_p: f64) -> Vec<f64> {
    let mut tokens: Vec<usize> = (0..table.len()).collect();
    let order = |a: &usize, b: &usize| table[*b].total_cmp(&table[*a]).then(a.cmp(b));
    // The nucleus is small as a rule: sort no more than it takes.
    let mut sorted = 64;
    let kept = loop {
        if sorted < tokens.len() {
            tokens.select_nth_unstable_by(sorted - 1, order);
        }
        let first = sorted.min(tokens.len());
        tokens[..first].sort_unstable_by(order);
        let mut sum = 0.0;
        let enough = tokens[..first].iter().position(|&token| {
            sum += table[token];
            sum >= top_p
        });
        match enough {
            Some(last) => break last + 1,
            None if first == tokens.len() => break first,
            None => sorted *= 16,
        }
    };
    tokens[kept..].iter().for_each(|&token| table[token] = 0.0);
    normalized(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(distribution: Distribution) -> Vec<f64> {
        let Distribution::Table(table) = distribution else { panic!("a table") };
        table
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
        let all = softmax(&logits);
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
        let kept: Vec<usize> = (0..3000).filter(|&i| found[i] > 0.0).collect();
        assert_eq!(kept.len(), count);
        assert!(kept.iter().all(|&i| all[i] >= sorted[count - 1]));
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
