//! What families are built of: products, norms, attention with its cache and positions, feed-forward layers, and the reduction
//! of logits. One sequence at a time in a row, so hidden states are `[rows, width]` without a batch dimension.

mod attention;
mod cache;
mod exit;
mod feed_forward;
mod loader;
mod norm;
mod position;
mod projection;
pub(crate) mod reduce;
mod short_head;

pub(crate) use attention::{Attending, Attention, Heads};
pub(crate) use cache::Cache;
pub(crate) use exit::Exit;
pub use feed_forward::Activation;
pub(crate) use feed_forward::FeedForward;
pub(crate) use loader::Loader;
pub(crate) use norm::RmsNorm;
pub(crate) use position::{Bias, BiasTable, Buckets, PositionBias};
pub(crate) use projection::Projection;
pub(crate) use short_head::ShortHead;
