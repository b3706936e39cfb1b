//! What families are built of: products, norms, attention with its cache and positions, feed-forward layers, and the reduction
//! of logits. The tokens of one or more sequences one after the other, so hidden
//! states are `[rows, width]` without a batch dimension.

mod attention;
mod cache;
mod exit;
mod feed_forward;
mod loader;
mod norm;
mod padded;
mod position;
mod projection;
pub(crate) mod reduce;
mod short_head;

use burn::tensor::{Element, FloatDType, Tensor, backend::Backend};

pub(crate) use attention::{Attention, Heads};
pub(crate) use cache::{Attending, Cache, Layout, held};
pub(crate) use exit::Exit;
pub use feed_forward::Activation;
pub(crate) use feed_forward::FeedForward;
pub(crate) use loader::Loader;
pub(crate) use norm::RmsNorm;
pub(crate) use padded::{Padded, Padding};
pub(crate) use position::{BLOCK, Bias, BiasTable, Buckets, PositionBias};
pub(crate) use projection::Projection;
pub(crate) use short_head::ShortHead;

/// The same numbers as other floats.
pub(crate) fn cast<B: Backend, const D: usize>(x: Tensor<B, D>, to: FloatDType) -> Tensor<B, D> {
    if x.dtype() == to.into() { x } else { x.cast(to) }
}

/// The same numbers as floats of the backend's own kind, which sums are made in.
pub(crate) fn wide<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    cast(x, B::FloatElem::dtype().into())
}

/// Rows below one another.
pub(crate) fn joined<B: Backend>(mut parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}
