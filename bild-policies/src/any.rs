use std::num::NonZeroUsize;

use bild_core::{Policy, PolicyState, Start, Wants, plain_words};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    AdaptiveLength, AnyFallback, AnyRollback, BigAlone, Bild, CostAware, LittleAlone, Lossless, Prices, Sampling,
    TargetRollback,
};

/// Any policy of this crate, as a file names it, for programs that read their policy at run time. A program that knows its
/// policy uses that one's type.
///
/// ```
/// use bild::policies::AnyPolicy;
///
/// let json = r#"{"policy":"bild","fallback":{"entropy":1.5},"rollback":{"rank":3},"max_draft":8}"#;
/// let policy: AnyPolicy = serde_json::from_str(json)?;
/// assert!(matches!(policy, AnyPolicy::Bild(_)));
///
/// // What is left out is as the policy's type has it by default.
/// let json = r#"{"policy":"bild","max_draft":8}"#;
/// assert!(matches!(serde_json::from_str(json)?, AnyPolicy::Bild(_)));
///
/// let json = r#"{"policy":"cost_aware","of":{"policy":"lossless","max_draft":null}}"#;
/// assert!(matches!(serde_json::from_str(json)?, AnyPolicy::CostAware(_)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case", remote = "Self")]
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
    #[serde(deserialize_with = "adaptive_length")]
    AdaptiveLength(AdaptiveLength<Box<AnyPolicy>>),
    /// Another policy that drafts as much as pays.
    #[serde(deserialize_with = "cost_aware")]
    CostAware(CostAware<Box<AnyPolicy>>),
    /// The paper's policy with a fallback threshold that follows a rollback rate.
    TargetRollback(TargetRollback<AnyRollback>),
}

/// As derived (`remote` makes that a function of the type), with errors in plain words.
impl<'de> Deserialize<'de> for AnyPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer).map_err(|error| D::Error::custom(plain_words(error)))
    }
}

impl Serialize for AnyPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// What a policy that sets draft lengths is laid over where a file does not say.
fn without_limit() -> Box<AnyPolicy> {
    Box::new(AnyPolicy::Lossless(Lossless::without_limit()))
}

fn adaptive_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AdaptiveLength<Box<AnyPolicy>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        #[serde(default = "without_limit")]
        of: Box<AnyPolicy>,
        start: Option<NonZeroUsize>,
    }

    let Fields { of, start } = Fields::deserialize(deserializer)?;
    let policy = AdaptiveLength::new(of);
    Ok(if let Some(start) = start { policy.with_start(start) } else { policy })
}

fn cost_aware<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CostAware<Box<AnyPolicy>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        #[serde(default = "without_limit")]
        of: Box<AnyPolicy>,
        prices: Option<Prices>,
    }

    let Fields { of, prices } = Fields::deserialize(deserializer)?;
    let policy = CostAware::new(of);
    Ok(if let Some(prices) = prices { policy.with_prices(prices) } else { policy })
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
