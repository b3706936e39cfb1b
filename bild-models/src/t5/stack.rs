use std::ops::Range;

use bild_core::SessionLimit;
use burn::tensor::{Tensor, backend::Backend};

use super::{
    attention::{self, Attention},
    cache::Cache,
    feed_forward::FeedForward,
    loader::Loader,
    norm::RmsNorm,
    position::{BiasTable, PositionBias},
    projection::Projection,
};
use crate::{T5Config, Threads, error::Result};

/// The encoder: layers of self-attention and feed-forward, and a final norm.
pub(super) struct EncoderStack<B: Backend> {
    layers: Vec<(Attention<B>, FeedForward<B>)>,
    bias: PositionBias<B>,
    norm: RmsNorm<B>,
}

impl<B: Backend> EncoderStack<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &T5Config) -> Result<Self> {
        let layer = |i: usize| {
            let name = format!("encoder.block.{i}.layer");
            let attention = Attention::load(loader, &format!("{name}.0"), "SelfAttention", &["q", "k", "v"], config)?;
            Ok((attention, FeedForward::load(loader, &format!("{name}.1"), config)?))
        };
        Ok(Self {
            layers: (0..config.encoder_layers).map(layer).collect::<Result<_>>()?,
            bias: PositionBias::load(loader, "encoder", config)?,
            norm: RmsNorm::load(loader, "encoder.final_layer_norm", config)?,
        })
    }

    /// `[tokens, d_model]` to `[tokens, d_model]`, unless `limit` says in between that nobody waits for it any more.
    pub(super) fn forward(
        &self,
        mut x: Tensor<B, 2>,
        config: &T5Config,
        threads: &Threads,
        limit: &SessionLimit,
    ) -> bild_core::Result<Tensor<B, 2>> {
        let tokens = x.dims()[0];
        let table = self.bias.table(tokens);
        let bias = table.rows(0, tokens, tokens);
        let mut cache = Cache::new(tokens, config, threads, &x.device()); // of one layer after the other
        for (attention, feed_forward) in &self.layers {
            limit.check()?;
            let [query, keys, values] = attention.project(x.clone());
            cache.write(keys, values, 0);
            x = feed_forward.forward(x + attention.attend(query, &cache, tokens, Some(&bias)));
        }
        Ok(self.norm.forward(x))
    }
}

/// The decoder: layers of self-attention, attention to the source and feed-forward, and a final norm.
pub(super) struct DecoderStack<B: Backend> {
    layers: Vec<DecoderLayer<B>>,
    bias: PositionBias<B>,
    norm: RmsNorm<B>,
}

struct DecoderLayer<B: Backend> {
    own: Attention<B>,
    cross: Attention<B>,
    /// From the encoder's hidden states to the keys and values of `cross`.
    source: Projection<B>,
    feed_forward: FeedForward<B>,
}

/// What one generation needs of a decoder.
pub(super) struct DecoderState<B: Backend> {
    layers: Vec<LayerState<B>>,
    bias: BiasTable<B>,
    /// Tokens of the source.
    source: usize,
}

struct LayerState<B: Backend> {
    own: Cache<B>,
    source: Cache<B>,
}

impl<B: Backend> DecoderStack<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &T5Config) -> Result<Self> {
        let layer = |i: usize| {
            let name = format!("decoder.block.{i}.layer");
            Ok(DecoderLayer {
                own: Attention::load(loader, &format!("{name}.0"), "SelfAttention", &["q", "k", "v"], config)?,
                cross: Attention::load(loader, &format!("{name}.1"), "EncDecAttention", &["q"], config)?,
                source: attention::projection(loader, &format!("{name}.1.EncDecAttention"), &["k", "v"], config)?,
                feed_forward: FeedForward::load(loader, &format!("{name}.2"), config)?,
            })
        };
        Ok(Self {
            layers: (0..config.decoder_layers).map(layer).collect::<Result<_>>()?,
            bias: PositionBias::load(loader, "decoder", config)?,
            norm: RmsNorm::load(loader, "decoder.final_layer_norm", config)?,
        })
    }

    /// The state of a generation within `limit`, from the encoder's hidden states `[source, d_model]`.
    pub(super) fn begin(
        &self,
        encoded: Tensor<B, 2>,
        config: &T5Config,
        threads: &Threads,
        limit: &SessionLimit,
    ) -> bild_core::Result<DecoderState<B>> {
        let device = encoded.device();
        let layer = |layer: &DecoderLayer<B>| {
            limit.check()?;
            let [keys, values] = layer.source.forward_parts(encoded.clone());
            let own = Cache::new(limit.tokens, config, threads, &device);
            Ok(LayerState { own, source: Cache::of(keys, values, config, threads) })
        };
        Ok(DecoderState {
            layers: self.layers.iter().map(layer).collect::<bild_core::Result<_>>()?,
            bias: self.bias.table(limit.tokens),
            source: encoded.dims()[0],
        })
    }

    /// One pass over new tokens, `[tokens, d_model]` to the same, of which the first stands at position `at`.
    pub(super) fn forward(&self, state: &mut DecoderState<B>, x: Tensor<B, 2>, at: usize) -> Tensor<B, 2> {
        self.normed(self.forward_layers(state, x, at, 0..self.layers.len()))
    }

    /// The final norm, after whichever layer.
    pub(super) fn normed(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(x)
    }

    /// As [`forward`](Self::forward), through some of the layers and without the final norm.
    pub(super) fn forward_layers(
        &self,
        state: &mut DecoderState<B>,
        mut x: Tensor<B, 2>,
        at: usize,
        layers: Range<usize>,
    ) -> Tensor<B, 2> {
        let count = at + x.dims()[0];
        let bias = state.bias.rows(at, x.dims()[0], count);
        let states = &mut state.layers[layers.clone()];
        for (layer, LayerState { own, source }) in self.layers[layers].iter().zip(states) {
            let [query, keys, values] = layer.own.project(x.clone());
            own.write(keys, values, at);
            x = x + layer.own.attend(query, own, count, Some(&bias));
            let [query] = layer.cross.project(x.clone());
            x = x + layer.cross.attend(query, source, state.source, None);
            x = layer.feed_forward.forward(x);
        }
        x
    }
}
