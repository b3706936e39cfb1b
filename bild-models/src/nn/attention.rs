use burn::tensor::{Tensor, backend::Backend};

use super::{
    Padded,
    cache::{Attending, attend},
    loader::Loader,
    norm::RmsNorm,
    projection::Projection,
    wide,
};
use crate::error::Result;

/// How attention is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    /// Of queries, keys and values of one head.
    pub(crate) width: usize,
}

impl Heads {
    /// The width of all heads together.
    pub(crate) fn all(self) -> usize {
        self.count * self.width
    }
}

/// Multi-head attention without a scaling of the scores and without biases in the projections, with the norm before it.
pub(crate) struct Attention<B: Backend> {
    norm: RmsNorm<B>,
    /// What is projected from the rows that attend: queries, and keys and values if they attend to each other.
    input: Projection<B>,
    output: Projection<B>,
    heads: Heads,
}

impl<B: Backend> Attention<B> {
    /// Reads the projection of `inputs` (queries, or queries, keys and values), and that of what was found.
    pub(crate) fn load(
        loader: &Loader<'_, B>,
        norm: RmsNorm<B>,
        inputs: &[String],
        output: String,
        width: usize,
        heads: Heads,
    ) -> Result<Self> {
        let (norm, input) = Projection::load_after(loader, norm, inputs, [heads.all(), width])?;
        Ok(Self { norm, input, output: Projection::load(loader, &[output], [width, heads.all()])?, heads })
    }

    /// What rows (`[rows, width]`, one session after the other) find after the norm, each in the cache of its session, projected back to
    /// `[rows, width]`; keys and values of theirs, if they attend to each other, are written to the caches first.
    pub(crate) fn forward(
        &self,
        x: Tensor<B, 2>,
        parts: Vec<Attending<'_, B>>,
        padded: Option<&Padded<'_, B>>,
    ) -> Tensor<B, 2> {
        let projected = self.input.forward(self.norm.forward(x));
        wide(self.output.forward(attend(projected, parts, self.heads, padded)))
    }
}
