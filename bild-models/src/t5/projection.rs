use burn::tensor::{Tensor, backend::Backend};

/// A product with a weight matrix and nothing else (T5 has no biases). The one place that decides how weights lie in
/// memory.
pub(super) enum Projection<B: Backend> {
    /// `[out, in]`, as checkpoints store it.
    Plain(Tensor<B, 2>),
    #[cfg(feature = "flex")]
    Panels(crate::kernel::Panels),
}

impl<B: Backend> Projection<B> {
    /// From `[out, in]`.
    pub(super) fn new(weight: Tensor<B, 2>) -> Self {
        #[cfg(feature = "flex")]
        if let Some(panels) = crate::flex::panels(&weight) {
            return Self::Panels(panels);
        }
        Self::Plain(weight)
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Plain(weight) => x.matmul(weight.clone().transpose()),
            #[cfg(feature = "flex")]
            Self::Panels(panels) => crate::flex::product(&x, panels).expect("panels are made for flex in f32 alone"),
        }
    }
}
