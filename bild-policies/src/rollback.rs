use bild_core::{Drafted, Error, Result, Row, Want};
use serde::{Deserialize, Serialize};

/// Which drafts the big model takes back: the rollback of a policy.
pub trait RollbackRule: Send + Sync {
    /// What the rule needs to know of a verifier's row.
    fn want(&self) -> Want {
        Want::default()
    }

    /// Whether `draft` is refused; `row` is the verifier's distribution where it stands.
    fn refuses(&self, draft: &Drafted, row: &Row) -> bool;
}

/// Refuses a draft whose cross-entropy under the verifier, −ln p(draft), is above α_RB, strictly (section 3.3 of the
/// paper).
///
/// In JSON the threshold is a number, or `"inf"` for ∞.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Threshold", try_from = "Threshold")]
pub struct HighCrossEntropy(f32);

impl HighCrossEntropy {
    /// A rule with the threshold `alpha` in [0, ∞], in nats: 0 keeps only what is certain, ∞ refuses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `alpha` is negative or NaN.
    pub fn new(alpha: f32) -> Result<Self> {
        if alpha >= 0.0 {
            Ok(Self(alpha))
        } else {
            let expected = "a number of nats in [0, inf]";
            Err(Error::Setting { name: "the rollback threshold", found: alpha.to_string(), expected })
        }
    }

    /// The threshold α_RB.
    pub fn alpha(self) -> f32 {
        self.0
    }
}

impl RollbackRule for HighCrossEntropy {
    fn want(&self) -> Want {
        Want::default().cross_entropy()
    }

    fn refuses(&self, _draft: &Drafted, row: &Row) -> bool {
        row.cross_entropy.is_some_and(|cross_entropy| cross_entropy > self.0)
    }
}

/// JSON has no number for ∞.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or \"inf\"")]
enum Threshold {
    Finite(f32),
    Infinite(Infinite),
}

#[derive(Serialize, Deserialize)]
enum Infinite {
    #[serde(rename = "inf")]
    Inf,
}

impl From<HighCrossEntropy> for Threshold {
    fn from(rule: HighCrossEntropy) -> Self {
        if rule.0.is_finite() { Self::Finite(rule.0) } else { Self::Infinite(Infinite::Inf) }
    }
}

impl TryFrom<Threshold> for HighCrossEntropy {
    type Error = Error;

    fn try_from(threshold: Threshold) -> Result<Self> {
        match threshold {
            Threshold::Finite(alpha) => Self::new(alpha),
            Threshold::Infinite(Infinite::Inf) => Self::new(f32::INFINITY),
        }
    }
}
