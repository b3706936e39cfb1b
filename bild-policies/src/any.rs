use bild_core::{Policy, PolicyState, Start, Wants};
use serde::{Deserialize, Serialize};

use crate::{
    AdaptiveLength, AnyFallback, AnyRollback, BigAlone, Bild, CostAware, LittleAlone, Lossless, Sampling,
    TargetRollback,
};

/// Any policy of this crate, as a file names it, for programs that read their policy at run time. A program that knows its
/// policy uses that one's type.
///
/// ```
/// use bild_policies::AnyPolicy;
///
/// let json = r#"{"policy":"bild","fallback":{"entropy":1.5},"rollback":{"rank":3},"max_draft":8}"#;
/// let policy: AnyPolicy = serde_json::from_str(json)?;
/// assert!(matches!(policy, AnyPolicy::Bild(_)));
///
/// let json = r#"{"policy":"cost_aware","of":{"policy":"lossless","max_draft":null}}"#;
/// assert!(matches!(serde_json::from_str(json)?, AnyPolicy::CostAware(_)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnyPolicy {
    /// Fallback and rollback by any two rules.
    Bild(Bild<AnyFallback, AnyRollback>),
    /// The big model's greedy output.
    Lossless(Lossless),
    /// The big model's distribution.
    Sampling(Sampling),
    /// The big model alone.
    Big(BigAlone),
    /// The little model alone.
    Little(LittleAlone),
    /// Another policy with a draft length that follows acceptance.
    AdaptiveLength(AdaptiveLength<Box<AnyPolicy>>),
    /// Another policy that drafts as much as pays.
    CostAware(CostAware<Box<AnyPolicy>>),
    /// The paper's policy with a fallback threshold that follows a rollback rate.
    TargetRollback(TargetRollback<AnyRollback>),
}

impl AnyPolicy {
    fn policy(&self) -> &dyn Policy {
        match self {
            Self::Bild(policy) => policy,
            Self::Lossless(policy) => policy,
            Self::Sampling(policy) => policy,
            Self::Big(policy) => policy,
            Self::Little(policy) => policy,
            Self::AdaptiveLength(policy) => policy,
            Self::CostAware(policy) => policy,
            Self::TargetRollback(policy) => policy,
        }
    }
}

impl Policy for AnyPolicy {
    fn wants(&self) -> Wants {
        self.policy().wants()
    }

    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
        self.policy().begin(start)
    }
}
