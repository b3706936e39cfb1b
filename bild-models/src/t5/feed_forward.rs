use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection};
use crate::{Activation, T5Config, error::Result};

/// Norm, two projections with a non-linearity between them, and the residual.
pub(super) struct FeedForward<B: Backend> {
    norm: RmsNorm<B>,
    inner: Inner<B>,
    outer: Projection<B>,
}

enum Inner<B: Backend> {
    Relu(Projection<B>),
    /// Gate and up.
    GatedGelu(Projection<B>),
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
            inner: match config.activation {
                Activation::Relu => Inner::Relu(projection(&["wi"], [d_ff, d_model])?),
                Activation::GatedGelu => Inner::GatedGelu(projection(&["wi_0", "wi_1"], [d_ff, d_model])?),
            },
            outer: projection(&["wo"], [d_model, d_ff])?,
        })
    }

    /// `[rows, d_model]` to `[rows, d_model]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.norm.forward(x.clone());
        let inner = match &self.inner {
            Inner::Relu(projection) => {
                let inner = projection.forward(normed);
                let _span = tracing::trace_span!("activation").entered();
                activation::relu(inner)
            }
            Inner::GatedGelu(projection) => {
                let [gate, up] = projection.forward_parts(normed);
                let _span = tracing::trace_span!("activation").entered();
                gated_gelu(gate, up)
            }
        };
        x + self.outer.forward(inner)
    }
}

fn gated_gelu<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    #[cfg(feature = "flex")]
    if let Some(product) = crate::flex::gated_gelu(&gate, &up) {
        return product;
    }
    activation::gelu_approximate(gate) * up
}
