use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection, wide};
use crate::{backend::memory::is_host, error::Result};

/// The non-linearity of the feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// max(0, x): T5 1.0.
    Relu,
    /// x · Φ(x), by the error function.
    Gelu,
    /// The approximation of gelu by tanh: T5 1.1, FLAN-T5 and mT5.
    GeluTanh,
    /// x · σ(x): UL2.
    Silu,
}

/// Norm, two projections with a non-linearity between them, and the residual.
pub(crate) struct FeedForward<B: Backend> {
    norm: RmsNorm<B>,
    /// To what the non-linearity is applied; where it gates, gate and up.
    inner: Projection<B>,
    activation: Activation,
    gated: bool,
    outer: Projection<B>,
}

impl<B: Backend> FeedForward<B> {
    /// Reads the products from `width` to `inner_width`, one or, where it gates, two, and the one back.
    pub(crate) fn load(
        loader: &Loader<'_, B>,
        norm: RmsNorm<B>,
        inner: &[String],
        outer: String,
        [width, inner_width]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let gated = inner.len() == 2;
        let (norm, inner) = Projection::load_after(loader, norm, inner, [inner_width, width])?;
        let outer = Projection::load(&loader.wider(), &[outer], [width, inner_width])?;
        Ok(Self { norm, inner, activation, gated, outer })
    }

    /// `[rows, width]` to `[rows, width]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.norm.forward(x.clone());
        let inner = if self.gated {
            let [gate, up] = self.inner.forward_parts(normed).map(wide);
            let _span = tracing::trace_span!("activation").entered();
            gated(self.activation, gate, up)
        } else {
            let inner = wide(self.inner.forward(normed));
            let _span = tracing::trace_span!("activation").entered();
            apply(self.activation, inner)
        };
        x + wide(self.outer.forward(inner))
    }
}

fn gated<B: Backend>(activation: Activation, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if activation == Activation::GeluTanh
        && let Some(product) = crate::backend::flex::gated_gelu(&gate, &up)
    {
        return product;
    }
    apply(activation, gate) * up
}

fn apply<B: Backend>(activation: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match activation {
        // One launch on a device, where `relu` and `clamp_min` are two. On the host it would make 0 of a NaN.
        Activation::Relu if !is_host::<B>(&x.device()) => x.clamp(0.0, f32::INFINITY),
        Activation::Relu => activation::relu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::Silu => activation::silu(x),
    }
}
