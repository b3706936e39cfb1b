//! Policies: when the little model hands over to the big one, and which of its tokens are taken back.
//!
//! - [`Bild`] is the policy of the Big Little Decoder paper (arXiv 2302.07863), a [`FallbackRule`] and a
//!   [`RollbackRule`] put together; fast, with a loss that its two thresholds bound in practice but do not guarantee.
//! - [`Lossless`] gives token for token what the big model alone gives when it decodes greedily.
//!
//! All of them are plain values that serde reads and writes, with their ranges checked. To write your own, implement
//! [`Policy`](bild_core::Policy), or one of the two rules for use in [`Bild`].
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod bild;
mod fallback;
mod lossless;
mod rollback;

pub use bild::{Bild, Variant};
pub use fallback::{FallbackRule, LowProbability};
pub use lossless::Lossless;
pub use rollback::{HighCrossEntropy, RollbackRule};
