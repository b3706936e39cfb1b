//! A decoder-only family, from the rooms: its weights, its layers and nothing else; and what it gets for that.

use std::{ops::Range, sync::Arc};

use bild_core::{Result, SessionLimit, Source, Token, Vocabulary};
use burn::tensor::{Tensor, backend::Backend};

use super::{Decoder, Part, drafts_and_verifies, run};
use crate::{
    Activation, Checkpoint, LoadError, LoadOptions, Threads,
    checkpoint::{Family, Tensors},
    nn::{
        Attending, Attention, Bias, BiasTable, Buckets, Cache, FeedForward, Heads, Loader, PositionBias, Projection,
        RmsNorm,
    },
};

pub(super) const LAYERS: usize = 3;
pub(super) const WIDTH: usize = 24;
pub(super) const VOCABULARY: usize = 40;
const HEADS: Heads = Heads { count: 3, width: 8 };
const BUCKETS: Buckets = Buckets { count: 8, max_distance: 20, bidirectional: false };
const FAMILY: Family = Family { name: "toy", anchor: "norm.weight", is_read: |_| true };

#[derive(Clone)]
pub(super) struct Toy<B: Backend> {
    weights: Arc<ToyWeights<B>>,
}

pub(super) struct ToyWeights<B: Backend> {
    vocabulary: Vocabulary,
    device: B::Device,
    threads: Threads,
    embedding: Projection<B>,
    layers: Vec<(Attention<B>, FeedForward<B>)>,
    bias: PositionBias<B>,
    norm: RmsNorm<B>,
}

/// In the caches the source stands first, as a prompt.
pub(super) struct ToyState<B: Backend> {
    caches: Vec<Cache<B>>,
    bias: BiasTable<B>,
    prompt: usize,
}

impl<B: Backend> ToyState<B> {
    fn bias(&self, at: usize, rows: usize) -> Bias<'_, B> {
        self.bias.rows(self.prompt + at, rows, self.prompt + at + rows)
    }
}

impl<B: Backend> Toy<B> {
    pub(super) fn load(checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let (device, options) = (B::Device::default(), LoadOptions::default());
        let tensors = Tensors::of(checkpoint, FAMILY)?;
        let loader = Loader::new(&tensors, tensors.read_names(), &device, &options)?;
        let norm = |name: &str| RmsNorm::load(&loader, name, WIDTH, 1e-6);
        let layer = |i: usize| {
            let name = |part: &str| format!("layers.{i}.{part}.weight");
            let inputs = ["q", "k", "v"].map(name);
            let own = Attention::load(&loader, norm(&name("norm1"))?, &inputs, name("o"), WIDTH, HEADS)?;
            let inner = ["gate", "up"].map(name);
            let sizes = [WIDTH, 2 * WIDTH];
            let feed =
                FeedForward::load(&loader, norm(&name("norm2"))?, &inner, name("down"), sizes, Activation::Silu)?;
            Ok((own, feed))
        };
        let weights = ToyWeights {
            vocabulary: Vocabulary::new(VOCABULARY, 0, [1]),
            embedding: Projection::load(&loader, &["embedding.weight".into()], [VOCABULARY, WIDTH])?,
            layers: (0..LAYERS).map(layer).collect::<Result<_, LoadError>>()?,
            bias: PositionBias::load(&loader, "bias.weight", BUCKETS, HEADS.count)?,
            norm: norm("norm.weight")?,
            threads: options.threads.clone(),
            device,
        };
        Ok(Self { weights: Arc::new(weights) })
    }
}

impl<B: Backend> Decoder for ToyWeights<B> {
    type Backend = B;
    type State = ToyState<B>;

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn layers(&self) -> usize {
        LAYERS
    }

    fn weights(&self) -> usize {
        10 * LAYERS * WIDTH * WIDTH + VOCABULARY * WIDTH
    }

    fn device(&self) -> &B::Device {
        &self.device
    }

    fn threads(&self) -> &Threads {
        &self.threads
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        (LAYERS as f64 * Cache::<B>::numbers(source + tokens, HEADS)) as u64 * 4
    }

    fn begin(self: &Arc<Self>, source: &Source, limit: &SessionLimit) -> Result<ToyState<B>> {
        let (prompt, room) = (source.tokens().len(), source.tokens().len() + limit.tokens);
        let embedded = super::embed(&**self, source.tokens(), super::in_output(0))?;
        Ok(run(self, prompt, move |weights| {
            let cache = |_| Cache::new(room, HEADS, &weights.threads, &weights.device);
            let caches = (0..LAYERS).map(cache).collect();
            let mut state = ToyState { caches, bias: weights.bias.table(room), prompt: 0 };
            weights.forward(embedded, &mut [Part { state: &mut state, at: 0, rows: prompt }], 0..LAYERS);
            ToyState { prompt, ..state }
        }))
    }

    fn embed(&self, tokens: &[Token]) -> Tensor<B, 2> {
        self.embedding.rows(tokens, &self.device)
    }

    fn forward(&self, mut x: Tensor<B, 2>, parts: &mut [Part<'_, ToyState<B>>], layers: Range<usize>) -> Tensor<B, 2> {
        for i in layers {
            let (attention, feed_forward) = &self.layers[i];
            let [query, keys, values] = attention.project(x.clone());
            let mut row = 0;
            for Part { state, at, rows } in &mut *parts {
                let of = |x: &Tensor<B, 2>| x.clone().narrow(0, row, *rows);
                state.caches[i].write(of(&keys), of(&values), state.prompt + *at);
                row += *rows;
            }
            let biases: Vec<_> = parts.iter().map(|part| part.state.bias(part.at, part.rows)).collect();
            let attending = parts.iter().zip(&biases).map(|(Part { state, at, rows }, bias)| Attending {
                rows: *rows,
                cache: &state.caches[i],
                count: state.prompt + at + rows,
                bias: Some(bias),
            });
            x = x + attention.attend(query, &attending.collect::<Vec<_>>());
            x = feed_forward.forward(x);
        }
        x
    }

    fn logits(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        self.embedding.forward(self.norm.forward(rows))
    }
}

drafts_and_verifies!(Toy, ToyWeights);
