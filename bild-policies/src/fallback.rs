use bild_core::{Context, Error, Result, Row, Want};
use serde::{Deserialize, Serialize};

/// When the little model hands over instead of keeping its token: the fallback of a policy.
pub trait FallbackRule: Send + Sync {
    /// What the rule needs to know of a row.
    fn want(&self) -> Want {
        Want::default()
    }

    /// Whether the token that `row` predicts is discarded and the big model asked instead.
    fn falls_back(&self, at: &Context<'_>, row: &Row) -> bool;
}

/// Falls back where the probability of the most likely token is below α_FB, strictly (section 3.2 of the paper).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "f32", try_from = "f32")]
pub struct LowProbability(f32);

impl LowProbability {
    /// A rule with the threshold `alpha` in [0, 1]: 0 never falls back, 1 keeps only what is certain.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `alpha` is outside that range or NaN.
    pub fn new(alpha: f32) -> Result<Self> {
        if (0.0..=1.0).contains(&alpha) {
            Ok(Self(alpha))
        } else {
            let expected = "a probability in [0, 1]";
            Err(Error::Setting { name: "the fallback threshold", found: alpha.to_string(), expected })
        }
    }

    /// The threshold α_FB.
    pub fn alpha(self) -> f32 {
        self.0
    }
}

impl FallbackRule for LowProbability {
    fn falls_back(&self, _at: &Context<'_>, row: &Row) -> bool {
        row.probability < self.0
    }
}

impl From<LowProbability> for f32 {
    fn from(rule: LowProbability) -> f32 {
        rule.0
    }
}

impl TryFrom<f32> for LowProbability {
    type Error = Error;

    fn try_from(alpha: f32) -> Result<Self> {
        Self::new(alpha)
    }
}
