use bild_core::{Context, Draft, Drafted, Error, Policy, PolicyState, Result, Role, Row, Start, Verdict, Wants};
use serde::{Deserialize, Serialize};

use crate::{Bild, HighCrossEntropy, LowProbability, RollbackRule};

/// The paper's policy with a fallback threshold that follows a target: the share of verifications, passes of the verifier with
/// drafts, that roll back. After a
/// call that did, the threshold rises and the big model is asked earlier; after one that did not it falls, by steps whose mean is
/// 0 at the target (the stochastic approximation of Robbins and Monro, 1951).
///
/// Every generation begins with the threshold of `of` again, so what is written does not depend on what was written before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Fields<R>", bound(deserialize = "R: serde::de::DeserializeOwned + Default"))]
pub struct TargetRollback<R = HighCrossEntropy> {
    of: Bild<LowProbability, R>,
    rate: f32,
    step: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "R: serde::de::DeserializeOwned + Default")]
struct Fields<R> {
    of: Option<Bild<LowProbability, R>>,
    rate: Option<f32>,
    #[serde(default = "default_step")]
    step: f32,
}

fn default_step() -> f32 {
    0.1
}

impl<R> TryFrom<Fields<R>> for TargetRollback<R> {
    type Error = Error;

    fn try_from(fields: Fields<R>) -> Result<Self> {
        let missing = |name, expected| Error::Setting { name, found: "missing".into(), expected };
        let of = || missing("`of` of the policy `target_rollback`", "a policy as `bild` is written, which may be {}");
        let rate = || missing("`rate` of the policy `target_rollback`", "the share of verifications that roll back");
        Self::checked(fields.of.ok_or_else(of)?, fields.rate.ok_or_else(rate)?, fields.step)
    }
}

impl<R> TargetRollback<R> {
    /// Lets the fallback threshold of `of` follow the share `rate` of calls that roll back, in [0, 1].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `rate` is outside that range or NaN.
    pub fn new(policy: Bild<LowProbability, R>, rate: f32) -> Result<Self> {
        Self::checked(policy, rate, default_step())
    }

    /// Sets how far the threshold moves after a call, in [0, 1]; 0.1 if not set.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `step` is outside that range or NaN.
    pub fn with_step(self, step: f32) -> Result<Self> {
        Self::checked(self.of, self.rate, step)
    }

    fn checked(policy: Bild<LowProbability, R>, rate: f32, step: f32) -> Result<Self> {
        for (name, value) in [("the target rollback rate", rate), ("the step of the fallback threshold", step)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Setting { name, found: value.to_string(), expected: "a number in [0, 1]" });
            }
        }
        Ok(Self { of: policy, rate, step })
    }
}

impl<R: RollbackRule + Clone + 'static> Policy for TargetRollback<R> {
    fn wants(&self) -> Wants {
        self.of.wants()
    }

    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

/// The policy is its own state: the threshold of its copy moves.
impl<R: RollbackRule> PolicyState for TargetRollback<R> {
    fn first(&self) -> Role {
        PolicyState::first(&self.of)
    }

    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        self.of.drafted(at, row)
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        self.of.expected_drafts(at)
    }

    fn verified(&mut self, at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let verdict = self.of.verified(at, drafts, rows);
        if !drafts.is_empty() {
            let rolled_back = f32::from(u8::from(verdict.accepted < drafts.len()));
            let alpha = self.of.fallback.alpha() + self.step * (rolled_back - self.rate);
            self.of.fallback = LowProbability::new(alpha.clamp(0.0, 1.0)).expect("it is in the range");
        }
        verdict
    }

    fn verify_before_end(&self) -> bool {
        self.of.verify_before_end()
    }
}
