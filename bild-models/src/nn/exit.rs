use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection, wide};
use crate::error::Result;

/// What stands between an early layer and the head: a norm, and an adapter that adds to what comes out of it. With n for that it is
/// n + up · gelu(down · n), where gelu is by tanh and `down` and `up` are of low rank.
pub(crate) struct Exit<B: Backend> {
    norm: RmsNorm<B>,
    down: Projection<B>,
    up: Projection<B>,
}

impl<B: Backend> Exit<B> {
    /// Reads the norm and the matrices of these names, `[rank, width]` and `[width, rank]`.
    pub(crate) fn load(
        loader: &Loader<'_, B>,
        norm: RmsNorm<B>,
        [down, up]: [&str; 2],
        [width, rank]: [usize; 2],
    ) -> Result<Self> {
        let down = Projection::load(loader, &[down.into()], [rank, width])?;
        let up = Projection::load(loader, &[up.into()], [width, rank])?;
        Ok(Self { norm, down, up })
    }

    /// `[rows, width]` to `[rows, width]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.norm.forward(x);
        let inner = activation::gelu_approximate(wide(self.down.forward(normed.clone())));
        normed + wide(self.up.forward(inner))
    }
}
