use burn::tensor::{Tensor, backend::Backend};

use super::{cache::Cache, loader::Loader, norm::RmsNorm, position::Bias, projection::Projection};
use crate::{T5Config, error::Result};

/// Multi-head attention as T5 has it: no scaling of the scores, no biases in the projections. The norm is part of it.
pub(super) struct Attention<B: Backend> {
    norm: RmsNorm<B>,
    /// What is projected from the rows that attend: queries, and keys and values if they attend to each other.
    input: Projection<B>,
    output: Projection<B>,
    heads: usize,
}

/// The projections of an attention that are named `parts`, as one.
pub(super) fn projection<B: Backend>(
    loader: &Loader<'_, B>,
    name: &str,
    parts: &[&str],
    config: &T5Config,
) -> Result<Projection<B>> {
    let names: Vec<String> = parts.iter().map(|part| format!("{name}.{part}.weight")).collect();
    Projection::load(loader, &names, [config.num_heads * config.d_kv, config.d_model])
}

impl<B: Backend> Attention<B> {
    /// `layer` and `kind` as in `decoder.block.0.layer.1` and `EncDecAttention`; `inputs` are among `q`, `k`, `v`.
    pub(super) fn load(
        loader: &Loader<'_, B>,
        layer: &str,
        kind: &str,
        inputs: &[&str],
        config: &T5Config,
    ) -> Result<Self> {
        let name = format!("{layer}.{kind}");
        let outer = [config.d_model, config.num_heads * config.d_kv];
        Ok(Self {
            norm: RmsNorm::load(loader, &format!("{layer}.layer_norm"), config)?,
            input: projection(loader, &name, inputs, config)?,
            output: Projection::load(loader, &[format!("{name}.o.weight")], outer)?,
            heads: config.num_heads,
        })
    }

    /// The projections of `x` (`[rows, d_model]`) after the norm, `[rows, heads · d_kv]` each.
    pub(super) fn project<const N: usize>(&self, x: Tensor<B, 2>) -> [Tensor<B, 2>; N] {
        self.input.forward_parts(self.norm.forward(x))
    }

    /// What queries (`[rows, heads · d_kv]`) find among the first `count` keys of a cache, projected to `[rows, d_model]`.
    pub(super) fn attend(
        &self,
        query: Tensor<B, 2>,
        cache: &Cache<B>,
        count: usize,
        bias: Option<&Bias<'_, B>>,
    ) -> Tensor<B, 2> {
        self.output.forward(cache.attend(query, count, bias, self.heads))
    }
}
