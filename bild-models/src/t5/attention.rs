use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection};
use crate::{T5Config, error::Result};

/// Multi-head attention as T5 has it: no scaling of the scores, no biases in the projections. The norm is part of it.
pub(super) struct Attention<B: Backend> {
    norm: RmsNorm<B>,
    /// What is projected from the rows that attend: queries, and keys and values if they attend to each other.
    input: Projection<B>,
    output: Projection<B>,
    heads: usize,
}

/// Keys and values, `[keys, heads · d_kv]` each.
#[derive(Clone)]
pub(super) struct KeysValues<B: Backend> {
    pub(super) keys: Tensor<B, 2>,
    pub(super) values: Tensor<B, 2>,
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

    /// What queries (`[rows, heads · d_kv]`) find among the keys, projected to `[rows, d_model]`. `bias` is
    /// `[heads, rows, keys]`.
    pub(super) fn attend(
        &self,
        query: Tensor<B, 2>,
        memory: KeysValues<B>,
        bias: Option<Tensor<B, 3>>,
    ) -> Tensor<B, 2> {
        self.output.forward(find(query, memory, bias, self.heads))
    }
}

/// The sums of values, weighted by the softmax of their keys' products with each query: `[rows, heads · d_kv]`.
fn find<B: Backend>(
    query: Tensor<B, 2>,
    memory: KeysValues<B>,
    bias: Option<Tensor<B, 3>>,
    heads: usize,
) -> Tensor<B, 2> {
    let _span = tracing::trace_span!("attention").entered();
    #[cfg(feature = "flex")]
    if let Some(found) = crate::flex::attend(&query, &memory.keys, &memory.values, bias.as_ref(), heads) {
        return found;
    }
    let [rows, width] = query.dims();
    let split = |x: Tensor<B, 2>| {
        let rows = x.dims()[0];
        x.reshape([rows, heads, width / heads]).swap_dims(0, 1) // [heads, rows, d_kv]
    };
    let scores = split(query).matmul(split(memory.keys).swap_dims(1, 2)); // [heads, rows, keys]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let found = activation::softmax(scores, 2).matmul(split(memory.values)); // [heads, rows, d_kv]
    found.swap_dims(0, 1).reshape([rows, width])
}
