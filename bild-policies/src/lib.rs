//! Policies: when the little model hands over to the big one, and which of its tokens are taken back.
//!
//! - [`Bild`] is the policy of the Big Little Decoder paper (arXiv 2302.07863), a [`FallbackRule`] and a
//!   [`RollbackRule`] put together; fast, with a loss that its two thresholds bound in practice but do not guarantee.
//! - [`Lossless`] gives token for token what the big model alone gives when it decodes greedily, and [`Sampling`] what it gives
//!   when it is sampled, in distribution.
//! - [`AdaptiveLength`] and [`CostAware`] choose the draft length of another policy while it runs; [`TargetRollback`] moves
//!   the paper's fallback threshold.
//! - [`BigAlone`] and [`LittleAlone`] are what a pair is compared with.
//!
//! [`GenerationConfig`] is what a checkpoint says of its own generating, as settings and a policy.
//!
//! Policies are plain values that serde reads and writes, with their ranges checked; [`AnyPolicy`] is any of them by its
//! name. To write your own, implement [`Policy`](bild_core::Policy), or one of the two rules for use in [`Bild`].
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

mod adaptive;
mod alone;
mod any;
mod bild;
mod cost_aware;
mod costs;
mod distribution;
mod fallback;
mod generation_config;
mod lossless;
mod pointers;
pub mod processors;
mod random;
mod rollback;
mod sampling;
mod target_rollback;
mod threshold;

pub use adaptive::AdaptiveLength;
pub use alone::{BigAlone, LittleAlone};
pub use any::AnyPolicy;
pub use bild::{Bild, Variant};
pub use cost_aware::{CostAware, Prices};
pub use fallback::{
    AnyFallback, FallbackRule, HighEntropy, LowAcceptance, LowAccumulated, LowProbability, RandomFallback, SmallMargin,
};
pub use generation_config::GenerationConfig;
pub use lossless::Lossless;
pub use rollback::{
    AnyRollback, Atypical, Deferral, HighCrossEntropy, HighDivergence, LowRank, LowVerifierProbability, RollbackRule,
};
pub use sampling::Sampling;
pub use target_rollback::TargetRollback;
