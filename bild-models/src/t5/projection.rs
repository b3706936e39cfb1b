use bild_core::Token;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::loader::Loader;
use crate::error::Result;

/// A product with a weight matrix and nothing else (T5 has no biases). The one place that decides how weights lie in
/// memory.
pub(super) enum Projection<B: Backend> {
    /// `[out, in]`, as checkpoints store it.
    Plain(Tensor<B, 2>),
    #[cfg(feature = "flex")]
    Panels(crate::kernel::Panels),
}

impl<B: Backend> Projection<B> {
    /// Reads a matrix of `[out, in]`.
    pub(super) fn load(loader: &Loader<'_, B>, name: &str, shape: [usize; 2]) -> Result<Self> {
        #[cfg(feature = "flex")]
        if crate::flex::is_flex::<B>() {
            return loader.panels(name, shape).map(Self::Panels);
        }
        loader.tensor(name, shape).map(Self::Plain)
    }

    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Plain(weight) => x.matmul(weight.clone().transpose()),
            #[cfg(feature = "flex")]
            Self::Panels(panels) => crate::flex::product(&x, panels).expect("panels are made for flex in f32 alone"),
        }
    }

    /// The rows of the matrix itself at `tokens`, `[tokens, in]`: what an embedding is for. All are below `out`.
    pub(super) fn rows(&self, tokens: &[Token], device: &B::Device) -> Tensor<B, 2> {
        match self {
            Self::Plain(weight) => {
                let indices: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
                let indices = TensorData::new(indices, [tokens.len()]);
                weight.clone().select(0, Tensor::<B, 1, Int>::from_data(indices, device))
            }
            #[cfg(feature = "flex")]
            Self::Panels(panels) => {
                let rows: Vec<f32> = tokens.iter().flat_map(|&token| panels.row(token as usize)).collect();
                let width = rows.len() / tokens.len();
                Tensor::from_data(TensorData::new(rows, [tokens.len(), width]), device)
            }
        }
    }
}
