use burn::tensor::{Tensor, activation, backend::Backend};

use super::{loader::Loader, norm::RmsNorm, projection::Projection};
use crate::{T5Config, error::Result};

/// Multi-head attention as T5 has it: no scaling of the scores, no biases in the projections. Norm and residual are
/// part of it.
pub(super) struct Attention<B: Backend> {
    norm: RmsNorm<B>,
    query: Projection<B>,
    key: Projection<B>,
    value: Projection<B>,
    output: Projection<B>,
    heads: usize,
    d_kv: usize,
}

/// Keys and values, `[keys, heads, d_kv]` each.
#[derive(Clone)]
pub(super) struct KeysValues<B: Backend> {
    pub(super) keys: Tensor<B, 3>,
    pub(super) values: Tensor<B, 3>,
}

impl<B: Backend> Attention<B> {
    /// `name` and `kind` as in `decoder.block.0.layer.1` and `EncDecAttention`.
    pub(super) fn load(loader: &Loader<'_, B>, name: &str, kind: &str, config: &T5Config) -> Result<Self> {
        let (d_model, inner) = (config.d_model, config.num_heads * config.d_kv);
        let projection = |part: &str, shape| Projection::load(loader, &format!("{name}.{kind}.{part}.weight"), shape);
        Ok(Self {
            norm: RmsNorm::load(loader, &format!("{name}.layer_norm"), config)?,
            query: projection("q", [inner, d_model])?,
            key: projection("k", [inner, d_model])?,
            value: projection("v", [inner, d_model])?,
            output: projection("o", [d_model, inner])?,
            heads: config.num_heads,
            d_kv: config.d_kv,
        })
    }

    pub(super) fn normed(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    /// The keys and values of `x`, `[rows, d_model]`.
    pub(super) fn keys_values(&self, x: Tensor<B, 2>) -> KeysValues<B> {
        KeysValues { keys: self.split(self.key.forward(x.clone())), values: self.split(self.value.forward(x)) }
    }

    /// What the rows of `normed` (`[rows, d_model]`) find among the keys. `bias` is `[heads, rows, keys]`.
    pub(super) fn attend(
        &self,
        normed: Tensor<B, 2>,
        memory: KeysValues<B>,
        bias: Option<Tensor<B, 3>>,
    ) -> Tensor<B, 2> {
        let query = self.query.forward(normed);
        #[cfg(feature = "flex")]
        if let Some(found) = crate::flex::attend(&query, &memory.keys, &memory.values, bias.as_ref()) {
            return self.output.forward(found);
        }
        let rows = query.dims()[0];
        let query = self.split(query).swap_dims(0, 1); // [heads, rows, d_kv]
        let scores = query.matmul(memory.keys.permute([1, 2, 0])); // [heads, rows, keys]
        let scores = match bias {
            Some(bias) => scores + bias,
            None => scores,
        };
        let found = activation::softmax(scores, 2).matmul(memory.values.swap_dims(0, 1)); // [heads, rows, d_kv]
        self.output.forward(found.swap_dims(0, 1).reshape([rows, self.heads * self.d_kv]))
    }

    /// `[rows, heads · d_kv]` to `[rows, heads, d_kv]`.
    fn split(&self, x: Tensor<B, 2>) -> Tensor<B, 3> {
        let rows = x.dims()[0];
        x.reshape([rows, self.heads, self.d_kv])
    }
}
