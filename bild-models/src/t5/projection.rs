use burn::tensor::{Tensor, backend::Backend};

/// A product with a weight matrix and nothing else (T5 has no biases). The one place that decides how weights lie in
/// memory.
pub(super) struct Projection<B: Backend> {
    /// `[out, in]`, as checkpoints store it: at one row of input its transposed view is read at nearly the speed of
    /// memory on flex.
    weight: Tensor<B, 2>,
}

impl<B: Backend> Projection<B> {
    pub(super) fn new(weight: Tensor<B, 2>) -> Self {
        Self { weight }
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.weight.clone().transpose())
    }
}
