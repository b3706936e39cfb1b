use burn::tensor::{Tensor, backend::Backend};

use super::loader::Loader;
use crate::error::Result;

/// A layer norm that scales by the root of the mean square; no mean is subtracted, no bias added.
pub(crate) struct RmsNorm<B: Backend> {
    /// `[1, width]`; `None` if what comes after it has taken it in.
    weight: Option<Tensor<B, 2>>,
    epsilon: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// Reads a vector of `width`; `epsilon` is added to the mean square.
    pub(crate) fn load(loader: &Loader<'_, B>, name: &str, width: usize, epsilon: f64) -> Result<Self> {
        Ok(Self { weight: Some(loader.tensor(name, [width])?.reshape([1, width])), epsilon })
    }

    pub(crate) fn weight(&self) -> Option<Tensor<B, 2>> {
        self.weight.clone()
    }

    /// One that only divides.
    pub(crate) fn without_weight(self) -> Self {
        Self { weight: None, ..self }
    }

    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let _span = tracing::trace_span!("norm").entered();
        #[cfg(feature = "flex")]
        if let Some(weight) = &self.weight
            && let Some(normed) = crate::backend::flex::rms_norm(&x, weight, self.epsilon)
        {
            return normed;
        }
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let root = mean_square.add_scalar(self.epsilon).sqrt();
        let divided = x.div(root);
        match &self.weight {
            Some(weight) => divided * weight.clone(),
            None => divided,
        }
    }
}
