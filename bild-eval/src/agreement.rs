//! How near a draft model is to the big one, token by token along what the big one writes.

use bild::decode::{Pair, PairSession, Pass, Row, SessionLimit, Source, Token, Want};
use serde::{Deserialize, Serialize};

use crate::{Observer, Result};

/// What a draft model says at each token of the big model's own outputs, beside what the big model says there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Agreement {
    /// The tokens that were compared, end-of-sequence included.
    pub tokens: usize,
    /// How often the most likely token of both is the same, between 0 and 1: what a lossless policy can accept.
    pub argmax: f64,
    /// The mean Kullback–Leibler divergence of the draft model's distribution from the big model's, in nats.
    pub divergence: f64,
    /// The mean of what the two distributions share, Σ min(p, q): how often speculative sampling at temperature 1 accepts
    /// (Leviathan et al., 2023, corollary 3.6).
    pub overlap: f64,
}

impl Agreement {
    /// Compares along outputs of the big model, token ids with end-of-sequence if it was written; an output that is empty is left out.
    ///
    /// # Errors
    ///
    /// If a pass fails.
    pub fn measure<'a>(
        pair: &impl Pair,
        outputs: impl ExactSizeIterator<Item = (&'a Source, &'a [Token])>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        observer.begins("Comparing", outputs.len());
        let mut sum = Self::default();
        let start = pair.vocabulary().start;
        for (source, output) in outputs {
            // What is taken in: all but the last token, after the start token.
            let given: Vec<Token> = [start].into_iter().chain(output.iter().copied()).take(output.len()).collect();
            if !given.is_empty() {
                sum.add(pair, source, &given)?;
            }
            observer.advances();
        }
        observer.ends();
        let tokens = sum.tokens.max(1) as f64;
        sum.argmax /= tokens;
        sum.divergence /= tokens;
        sum.overlap /= tokens;
        Ok(sum)
    }

    fn add(&mut self, pair: &impl Pair, source: &Source, given: &[Token]) -> Result<()> {
        let want = Want::default().with_logits();
        let mut session = pair.begin(source, &SessionLimit::new(given.len()))?;
        let mut drafted = Vec::new();
        for at in 0..given.len() {
            // A draft source that has nothing to say agrees with nothing.
            drafted.push(session.pass(&Pass::draft(at, &given[at..at + 1], want))?.into_iter().next());
        }
        let verified = session.pass(&Pass::verify(0, given, want))?;
        for (drafted, verified) in drafted.iter().zip(&verified) {
            self.tokens += 1;
            let Some(drafted) = drafted else { continue };
            self.argmax += f64::from(drafted.argmax == verified.argmax);
            for (p, q) in probabilities(verified).zip(probabilities(drafted)) {
                self.overlap += p.min(q);
                if p > 0.0 {
                    self.divergence += p * (p / q.max(f64::MIN_POSITIVE)).ln();
                }
            }
        }
        Ok(())
    }
}

/// The softmax of a row's logits; nothing for a row without.
fn probabilities(row: &Row) -> impl Iterator<Item = f64> {
    let logits = row.logits.as_deref().unwrap_or_default();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    logits.iter().map(move |x| f64::from(x - largest).exp() / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_probabilities() {
        let row = Row::from_logits(&[0.0, 3f32.ln(), f32::NEG_INFINITY], Want::default().with_logits(), None).unwrap();
        let found: Vec<f64> = probabilities(&row).collect();
        assert!((found[0] - 0.25).abs() < 1e-6 && (found[1] - 0.75).abs() < 1e-6 && found[2] == 0.0, "{found:?}");
        assert_eq!(probabilities(&Row::certain(1)).count(), 0);
    }
}
