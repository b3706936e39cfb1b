use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection};
use crate::{Activation, T5Config, error::Result};

/// Norm, two projections with a non-linearity between them, and the residual.
pub(super) struct FeedForward<B: Backend> {
    norm: RmsNorm<B>,
    /// To what the non-linearity is applied; where it gates, gate and up.
    inner: Projection<B>,
    activation: Activation,
    gated: bool,
    outer: Projection<B>,
}

impl<B: Backend> FeedForward<B> {
    /// `name` as in `encoder.block.0.layer.1`.
    pub(super) fn load(loader: &Loader<'_, B>, name: &str, config: &T5Config) -> Result<Self> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let projection = |parts: &[&str], shape| {
            let names: Vec<String> = parts.iter().map(|part| format!("{name}.DenseReluDense.{part}.weight")).collect();
            Projection::load(loader, &names, shape)
        };
        Ok(Self {
            norm: RmsNorm::load(loader, &format!("{name}.layer_norm"), config)?,
            inner: projection(if config.gated { &["wi_0", "wi_1"] } else { &["wi"] }, [d_ff, d_model])?,
            activation: config.activation,
            gated: config.gated,
            outer: projection(&["wo"], [d_model, d_ff])?,
        })
    }

    /// `[rows, d_model]` to `[rows, d_model]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.norm.forward(x.clone());
        let inner = if self.gated {
            let [gate, up] = self.inner.forward_parts(normed);
            let _span = tracing::trace_span!("activation").entered();
            gated(self.activation, gate, up)
        } else {
            let inner = self.inner.forward(normed);
            let _span = tracing::trace_span!("activation").entered();
            apply(self.activation, inner)
        };
        x + self.outer.forward(inner)
    }
}

fn gated<B: Backend>(activation: Activation, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if activation == Activation::GeluTanh
        && let Some(product) = crate::flex::gated_gelu(&gate, &up)
    {
        return product;
    }
    apply(activation, gate) * up
}

fn apply<B: Backend>(activation: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match activation {
        Activation::Relu => activation::relu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::Silu => activation::silu(x),
    }
}
