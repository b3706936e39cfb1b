use burn::tensor::{Tensor, backend::Backend};

use super::loader::Loader;
use crate::{T5Config, error::Result};

/// T5's layer norm: scaled by the root of the mean square; no mean is subtracted, no bias added.
pub(super) struct RmsNorm<B: Backend> {
    /// `[1, d_model]`
    weight: Tensor<B, 2>,
    epsilon: f64,
}

impl<B: Backend> RmsNorm<B> {
    pub(super) fn load(loader: &Loader<'_, B>, name: &str, config: &T5Config) -> Result<Self> {
        let weight = loader.tensor(&format!("{name}.weight"), [config.d_model])?;
        Ok(Self { weight: weight.reshape([1, config.d_model]), epsilon: config.layer_norm_epsilon })
    }

    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let _span = tracing::trace_span!("norm").entered();
        #[cfg(feature = "flex")]
        if let Some(normed) = crate::flex::rms_norm(&x, &self.weight, self.epsilon) {
            return normed;
        }
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let root = mean_square.add_scalar(self.epsilon).sqrt();
        x.div(root) * self.weight.clone()
    }
}
