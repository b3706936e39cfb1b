use std::sync::Arc;

use crate::{Error, Result, Token, softmax};

/// What a policy wants to know of a row beside its argmax and the probability of it. What is not asked for is not
/// computed, and the logits stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Want {
    /// [`Row::entropy`].
    pub entropy: bool,
    /// [`Row::cross_entropy`]: of the draft that follows the row; only a verifier's rows have one.
    pub cross_entropy: bool,
    /// [`Row::logits`].
    pub logits: bool,
}

impl Want {
    /// Asks for the entropy too.
    pub fn with_entropy(mut self) -> Self {
        self.entropy = true;
        self
    }

    /// Asks for the cross-entropy of the following draft too.
    pub fn with_cross_entropy(mut self) -> Self {
        self.cross_entropy = true;
        self
    }

    /// Asks for the whole row of logits too.
    pub fn with_logits(mut self) -> Self {
        self.logits = true;
        self
    }

    /// Everything that either asks for.
    pub fn and(self, other: Want) -> Self {
        Self {
            entropy: self.entropy || other.entropy,
            cross_entropy: self.cross_entropy || other.cross_entropy,
            logits: self.logits || other.logits,
        }
    }
}

/// A distribution over the next token, reduced to what was wanted of it. Probabilities are the f32 softmax over what the
/// head of the model scores: all of the vocabulary, or of a draft model with a short head the tokens of its list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The most likely token; of equals, the lowest.
    pub argmax: Token,
    /// The probability of [`argmax`](Self::argmax), in [0, 1].
    pub probability: f32,
    /// The entropy in nats, at least 0, if wanted.
    pub entropy: Option<f32>,
    /// −ln of the probability of the draft that follows this row, in [0, ∞], if wanted and if one follows.
    pub cross_entropy: Option<f32>,
    /// The logits, `[vocab]`, if wanted.
    pub logits: Option<Arc<[f32]>>,
    /// Whether it is of a draft that no model has proposed.
    pub(crate) copied: bool,
}

impl Row {
    /// A row of which the most likely token and its probability are known.
    pub fn new(argmax: Token, probability: f32) -> Self {
        Self { argmax, probability, entropy: None, cross_entropy: None, logits: None, copied: false }
    }

    /// The row of a draft that has no distribution, as a look-up: all the probability lies on one token. No generation ends on
    /// such drafts before the verifier has judged them.
    pub fn certain(token: Token) -> Self {
        Self { entropy: Some(0.0), copied: true, ..Self::new(token, 1.0) }
    }

    /// What no distribution over `size` tokens has, if this row has it: a model of one's own may return anything.
    #[inline]
    pub(crate) fn problem(&self, size: usize) -> Option<String> {
        let Self { argmax, probability, entropy, cross_entropy, ref logits, .. } = *self;
        if argmax as usize >= size {
            return Some(format!("its most likely token is {argmax}, of a vocabulary of {size}"));
        }
        if !(0.0..=1.0).contains(&probability) {
            return Some(format!("the probability of its most likely token is {probability}"));
        }
        if entropy.is_some_and(f32::is_nan) || cross_entropy.is_some_and(f32::is_nan) {
            return Some("its entropy or cross-entropy is NaN".into());
        }
        let logits = logits.as_deref()?;
        if logits.len() != size {
            return Some(format!("it has {} logits, of a vocabulary of {size}", logits.len()));
        }
        let broken = logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY);
        broken.then(|| "its logits hold NaN or +∞".into())
    }

    /// ln of the probability of `token`; NaN if that cannot be told, because `token` is not the most likely one and the
    /// logits were not asked for.
    pub fn log_prob(&self, token: Token) -> f32 {
        if token == self.argmax {
            self.probability.ln()
        } else if let Some(logits) = &self.logits {
            let logit = |token: Token| logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            self.probability.ln() + (logit(token) - logit(self.argmax))
        } else {
            f32::NAN
        }
    }

    /// Reduces `logits` (`[vocab]`) to what is wanted; `next` is the draft that follows, if one does.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] if the logits hold NaN or +∞, or nothing but −∞; [`Error::TokenOutOfRange`] for `next`.
    ///
    /// ```
    /// use bild::decode::{Row, Want};
    ///
    /// let row = Row::from_logits(&[0.0, 2.0, 2.0], Want::default().with_cross_entropy(), Some(0))?;
    /// assert_eq!(row.argmax, 1);
    /// assert!((row.probability - 0.468).abs() < 1e-3);
    /// assert!((row.cross_entropy.unwrap() - 2.758).abs() < 1e-3);
    /// # Ok::<(), bild::Error>(())
    /// ```
    pub fn from_logits(logits: &[f32], want: Want, next: Option<Token>) -> Result<Self> {
        let max = softmax::max(logits);
        let sum = softmax::sum_exp(logits, max);
        if !max.is_finite() || !sum.is_finite() {
            return Err(Error::NotFinite);
        }
        let argmax = logits.iter().position(|&x| x == max).unwrap_or(0) as Token;
        let mut row = Self::new(argmax, 1.0 / sum);
        if want.entropy {
            row.entropy = Some(sum.ln() + softmax::sum_exp_distance(logits, max) / sum);
        }
        if let Some(next) = next.filter(|_| want.cross_entropy) {
            let Some(logit) = logits.get(next as usize) else {
                return Err(Error::TokenOutOfRange {
                    token: next,
                    place: "among the drafts".into(),
                    size: logits.len(),
                });
            };
            row.cross_entropy = Some((max - logit) + sum.ln());
        }
        if want.logits {
            row.logits = Some(logits.into());
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 5.0).collect()
    }

    #[test]
    fn equals_the_plain_formulas() {
        for n in [1, 2, 15, 16, 17, 503, 4000, 32_128] {
            let x = logits(n);
            let z: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            let p: Vec<f64> = x.iter().map(|&x| f64::from(x).exp() / z).collect();
            let (best, top) = p.iter().enumerate().fold((0, 0.0), |b, (i, &p)| if p > b.1 { (i, p) } else { b });
            let entropy: f64 = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let next = n / 2;
            let row = Row::from_logits(
                &x,
                Want::default().with_entropy().with_cross_entropy().with_logits(),
                Some(next as Token),
            );
            let row = row.unwrap();
            assert_eq!(row.argmax as usize, best);
            assert!((f64::from(row.probability) - top).abs() < 1e-6);
            assert!((f64::from(row.entropy.unwrap()) - entropy).abs() < 1e-5 * entropy.max(1.0));
            assert!((f64::from(row.cross_entropy.unwrap()) + p[next].ln()).abs() < 1e-5);
            assert_eq!(row.logits.as_deref(), Some(&x[..]));
        }
    }

    #[test]
    fn ties_take_the_lowest_token() {
        for n in [2, 16, 40] {
            let mut x = vec![0.0; n];
            assert_eq!(Row::from_logits(&x, Want::default(), None).unwrap().argmax, 0);
            x[n - 1] = 1.0;
            x[n / 2] = 1.0;
            assert_eq!(Row::from_logits(&x, Want::default(), None).unwrap().argmax as usize, n / 2);
        }
    }

    #[test]
    fn masked_tokens_have_no_probability() {
        let row =
            Row::from_logits(&[f32::NEG_INFINITY, 0.0], Want::default().with_entropy().with_cross_entropy(), Some(0));
        let row = row.unwrap();
        assert_eq!((row.probability, row.entropy, row.cross_entropy), (1.0, Some(0.0), Some(f32::INFINITY)));
    }

    #[test]
    fn broken_rows_are_errors() {
        for n in [3, 16, 33] {
            for bad in [f32::NAN, f32::INFINITY] {
                for at in [0, n / 2, n - 1] {
                    let mut x = logits(n);
                    x[at] = bad;
                    assert!(
                        matches!(Row::from_logits(&x, Want::default(), None), Err(Error::NotFinite)),
                        "{bad} at {at}"
                    );
                }
            }
            let x = vec![f32::NEG_INFINITY; n];
            assert!(matches!(Row::from_logits(&x, Want::default(), None), Err(Error::NotFinite)));
        }
        assert!(matches!(Row::from_logits(&[], Want::default(), None), Err(Error::NotFinite)));
        let outside = Row::from_logits(&[0.0], Want::default().with_cross_entropy(), Some(1));
        assert!(matches!(outside, Err(Error::TokenOutOfRange { token: 1, size: 1, .. })));
    }
}
