//! A decoder-only family, from the rooms: its weights, its layers and nothing else; and what it gets for that.

use std::{ops::Range, sync::Arc};

use bild_core::{Result, SessionLimit, Source, Token, Vocabulary};
use burn::tensor::{Int, Tensor, backend::Backend};

use super::{Decoder, Part, drafts_and_verifies, run};
use crate::{
    Activation, Checkpoint, LoadError, LoadOptions, Precision, Threads,
    checkpoint::{Family, Tensors},
    nn::*,
};

pub(super) const LAYERS: usize = 3;
pub(super) const WIDTH: usize = 24;
pub(super) const VOCABULARY: usize = 40;
const HEADS: Heads = Heads { count: 3, width: 8 };
const BUCKETS: Buckets = Buckets { count: 8, max_distance: 20, bidirectional: false };

#[derive(Clone)]
pub(super) struct Toy<B: Backend> {
    pub(super) weights: Arc<ToyWeights<B>>,
}

#[derive(Clone)]
pub(super) struct ToyWeights<B: Backend> {
    vocabulary: Vocabulary,
    device: B::Device,
    threads: Threads,
    embedding: Arc<Projection<B>>,
    pub(super) layers: Vec<Arc<(Attention<B>, FeedForward<B>)>>,
    bias: Arc<PositionBias<B>>,
    norm: Arc<RmsNorm<B>>,
}

/// In the caches the source stands first, as a prompt.
pub(super) struct ToyState<B: Backend> {
    caches: Vec<Cache<B>>,
    bias: Arc<BiasTable<B>>,
    prompt: usize,
}

impl<B: Backend> Toy<B> {
    pub(super) fn load(checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let (device, options) = (B::Device::default(), LoadOptions::default());
        let tensors = Tensors::of(checkpoint, Family { name: "toy", anchor: "norm.weight", is_read: |_| true })?;
        let loader = Loader::new(&tensors, tensors.read_names(), &device, &options)?;
        let norm = |name: &str| RmsNorm::load(&loader, name, WIDTH, 1e-6);
        let layer = |i: usize| {
            let name = |part: &str| format!("layers.{i}.{part}.weight");
            let (first, second) = (norm(&name("norm1"))?, norm(&name("norm2"))?);
            let (inputs, inner, sizes) = (["q", "k", "v"].map(name), ["gate", "up"].map(name), [WIDTH, 2 * WIDTH]);
            let own = Attention::load(&loader, first, &inputs, name("o"), WIDTH, HEADS)?;
            let feed = FeedForward::load(&loader, second, &inner, name("down"), sizes, Activation::Silu)?;
            Ok(Arc::new((own, feed)))
        };
        let weights = ToyWeights {
            vocabulary: Vocabulary::new(VOCABULARY, 0, [1]),
            embedding: Arc::new(Projection::load(&loader, &["embedding.weight".into()], [VOCABULARY, WIDTH])?),
            layers: (0..LAYERS).map(layer).collect::<Result<_, LoadError>>()?,
            bias: Arc::new(PositionBias::load(&loader, "bias.weight", BUCKETS, HEADS.count)?),
            norm: Arc::new(norm("norm.weight")?),
            threads: options.threads.clone(),
            device,
        };
        Ok(Self { weights: Arc::new(weights) })
    }
}

impl<B: Backend> Decoder for ToyWeights<B> {
    type Backend = B;
    type Encoded = Tensor<B, 2>;
    type State = ToyState<B>;

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn weights(&self) -> usize {
        10 * self.layers.len() * WIDTH * WIDTH + VOCABULARY * WIDTH
    }

    fn device(&self) -> &B::Device {
        &self.device
    }

    fn threads(&self) -> &Threads {
        &self.threads
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        (self.layers.len() as f64 * Cache::<B>::bytes(source + tokens, HEADS, Precision::F32)) as u64
    }

    fn encode(self: &Arc<Self>, sources: &[(&Source, &SessionLimit)]) -> Vec<Result<Tensor<B, 2>>> {
        super::tests::ENCODED.set(super::tests::ENCODED.get() + sources.len());
        let embedded = |(source, _): &(&Source, _)| {
            super::check_tokens(&**self, source.tokens(), super::in_output(0))?;
            Ok(self.embed(source.tokens()))
        };
        sources.iter().map(embedded).collect()
    }

    fn begin(self: &Arc<Self>, embedded: Vec<(Tensor<B, 2>, &SessionLimit)>) -> Vec<Result<ToyState<B>>> {
        let begin = |(embedded, limit): (Tensor<B, 2>, &SessionLimit)| {
            let (prompt, tokens) = (embedded.dims()[0], limit.tokens);
            Ok(run(self, prompt, move |weights| {
                let layout = Layout { heads: HEADS, precision: Precision::F32, threads: &weights.threads };
                let cache = |_| Cache::new(prompt + tokens, layout, &weights.device);
                let caches = weights.layers.iter().map(cache).collect();
                let mut state = ToyState { caches, bias: weights.bias.table(prompt + tokens), prompt: 0 };
                weights.forward(embedded, &mut [Part { state: &mut state, at: 0, rows: prompt }], 0..weights.layers());
                ToyState { prompt, ..state }
            }))
        };
        embedded.into_iter().map(begin).collect()
    }

    fn embed(&self, tokens: &[Token]) -> Tensor<B, 2> {
        self.embedding.rows(tokens, &self.device)
    }

    fn embed_on_device(&self, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        self.embedding.rows_on_device(tokens)
    }

    fn forward(&self, mut x: Tensor<B, 2>, parts: &mut [Part<'_, ToyState<B>>], layers: Range<usize>) -> Tensor<B, 2> {
        for i in layers {
            let (attention, feed_forward) = &*self.layers[i];
            let attending = parts.iter_mut().map(|Part { state, at, rows }| {
                let ToyState { caches, bias, prompt } = &mut **state;
                let end = *prompt + *at + *rows;
                (*rows, &mut caches[i], end, bias.rows(end - *rows, *rows, end))
            });
            let mut attending: Vec<_> = attending.collect();
            let attending = attending.iter_mut().map(|(rows, cache, count, bias)| Attending {
                rows: *rows,
                cache,
                count: *count,
                bias: Some(bias),
            });
            let attending = attending.collect();
            x = feed_forward.forward(x.clone() + attention.forward(x, attending, None));
        }
        x
    }

    fn norm(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(rows)
    }

    fn head(&self, rows: Tensor<B, 2>, short: Option<&ShortHead<B>>) -> Tensor<B, 2> {
        match short {
            Some(short) => short.forward(rows),
            None => self.embedding.forward(rows),
        }
    }
}

drafts_and_verifies!(Toy, ToyWeights);
