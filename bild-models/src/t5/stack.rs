use std::{fmt, ops::Range, sync::Arc};

use bild_core::SessionLimit;
use burn::tensor::{Tensor, backend::Backend};

use super::T5Config;
use crate::{
    Precision, Threads,
    backend::{is_flex, memory::is_host},
    decode::Part,
    error::Result,
    nn::{
        Attending, Attention, BLOCK, Bias, BiasTable, Cache, FeedForward, Heads, Layout, Loader, Padded, Padding,
        PositionBias, Projection, RmsNorm, held, joined,
    },
};

impl T5Config {
    pub(super) fn heads(&self) -> Heads {
        Heads { count: self.num_heads, width: self.d_kv }
    }
}

/// Reads the parts of a stack (`encoder` or `decoder`) by their names.
struct Parts<'a, B: Backend> {
    loader: &'a Loader<'a, B>,
    config: &'a T5Config,
    stack: &'static str,
}

impl<B: Backend> Parts<'_, B> {
    fn norm(&self, name: &str) -> Result<RmsNorm<B>> {
        let name = format!("{}.{name}.weight", self.stack);
        RmsNorm::load(self.loader, &name, self.config.d_model, self.config.layer_norm_epsilon)
    }

    /// `kind` as in `SelfAttention`; `inputs` are among `q`, `k`, `v`.
    fn attention(&self, layer: &str, kind: &str, inputs: &[&str]) -> Result<Attention<B>> {
        let names = self.names(layer, kind, inputs);
        let [output] = <[String; 1]>::try_from(self.names(layer, kind, &["o"])).expect("one name for one part");
        let norm = self.norm(&format!("{layer}.layer_norm"))?;
        Attention::load(self.loader, norm, &names, output, self.config.d_model, self.config.heads())
    }

    fn feed_forward(&self, layer: &str) -> Result<FeedForward<B>> {
        let T5Config { d_model, d_ff, activation, gated, .. } = *self.config;
        let inner = self.names(layer, "DenseReluDense", if gated { &["wi_0", "wi_1"] } else { &["wi"] });
        let outer = format!("{}.{layer}.DenseReluDense.wo.weight", self.stack);
        let norm = self.norm(&format!("{layer}.layer_norm"))?;
        FeedForward::load(self.loader, norm, &inner, outer, [d_model, d_ff], activation)
    }

    /// The first layer of a stack holds the bias and all layers add it.
    fn bias(&self) -> Result<PositionBias<B>> {
        let name = format!("{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", self.stack);
        PositionBias::load(self.loader, &name, self.config.buckets(self.stack == "encoder"), self.config.num_heads)
    }

    fn names(&self, layer: &str, kind: &str, parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| format!("{}.{layer}.{kind}.{part}.weight", self.stack)).collect()
    }
}

/// The encoder: layers of self-attention and feed-forward, and a final norm.
pub(super) struct EncoderStack<B: Backend> {
    layers: Vec<(Attention<B>, FeedForward<B>)>,
    bias: PositionBias<B>,
    norm: RmsNorm<B>,
}

impl<B: Backend> EncoderStack<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &T5Config) -> Result<Self> {
        let parts = Parts { loader, config, stack: "encoder" };
        let layer = |i: usize| {
            let attention = parts.attention(&format!("block.{i}.layer.0"), "SelfAttention", &["q", "k", "v"])?;
            Ok((attention, parts.feed_forward(&format!("block.{i}.layer.1"))?))
        };
        let layers = (0..config.encoder_layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, bias: parts.bias()?, norm: parts.norm("final_layer_norm")? })
    }

    /// The rows of sources of these lengths one after the other, [`held`] of each, `[rows, d_model]`, to the states of each, as many,
    /// unless its limit says in between that nobody waits for it any more.
    pub(super) fn forward(
        &self,
        mut x: Tensor<B, 2>,
        config: &T5Config,
        threads: &Threads,
        sources: &[(usize, SessionLimit)],
    ) -> Vec<bild_core::Result<Tensor<B, 2>>> {
        let table = self.bias.table(sources.iter().map(|(length, _)| *length).max().unwrap_or_default());
        // What is found in a layer is used up there: 16 bits would save nothing.
        let layout = Layout { heads: config.heads(), precision: Precision::F32, threads };
        let rows: Vec<_> = sources.iter().map(|(length, _)| held::<B>(*length)).collect();
        // Of one layer after the other.
        let mut caches: Vec<Cache<B>> = rows.iter().map(|&rows| Cache::full(rows, layout)).collect();
        let biases = rows.iter().zip(sources).map(|(&rows, (length, _))| table.rows(0, rows, *length));
        let biases: Vec<_> = biases.collect();
        let mut goes_on: Vec<_> = sources.iter().map(|_| Ok(())).collect();
        for (attention, feed_forward) in &self.layers {
            for (goes_on, (_, limit)) in goes_on.iter_mut().zip(sources) {
                if goes_on.is_ok() {
                    *goes_on = limit.check();
                }
            }
            if goes_on.iter().all(Result::is_err) {
                break;
            }
            let parts = rows.iter().zip(&mut caches).zip(&biases);
            let parts =
                parts.map(|((&rows, cache), bias)| Attending { rows, cache, count: rows, bias: Some(bias) }).collect();
            let found = attention.forward(x.clone(), parts, None);
            x = feed_forward.forward(x + found);
        }
        let x = self.norm.forward(x);
        let mut at = 0;
        let states = rows.iter().zip(goes_on).map(|(rows, goes_on)| {
            at += rows;
            goes_on.map(|()| if sources.len() == 1 { x.clone() } else { x.clone().narrow(0, at - rows, *rows) })
        });
        states.collect()
    }
}

/// The decoder: layers of self-attention, attention to the source and feed-forward, and a final norm. Other decoders may be made
/// of the same layers.
pub(super) struct DecoderStack<B: Backend> {
    layers: Vec<Arc<DecoderLayer<B>>>,
    of_source: OfSource<B>,
    bias: Arc<PositionBias<B>>,
    pub(super) norm: Arc<RmsNorm<B>>,
    /// Of the weights, and so of keys and values.
    pub(super) precision: Precision,
}

struct DecoderLayer<B: Backend> {
    own: Attention<B>,
    cross: Attention<B>,
    feed_forward: FeedForward<B>,
}

/// Rows of sources that are long.
const LONG: usize = 512;

/// From the encoder's hidden states to the keys and values of the source in each layer.
enum OfSource<B: Backend> {
    /// A product for each layer: where one takes long, and may be the last that anybody waits for.
    EachLayer(Vec<Arc<Projection<B>>>),
    /// One for all layers, where each is a launch; of a long source, whose launches do not matter, by layers again, so that nothing as
    /// large is held beside the caches.
    AllLayers(Arc<Projection<B>>),
}

impl<B: Backend> OfSource<B> {
    fn load(loader: &Loader<'_, B>, layers: &[Vec<String>], shape: [usize; 2]) -> Result<Self> {
        if is_flex::<B>() {
            let layer = |names: &Vec<String>| Ok(Arc::new(Projection::load(loader, names, shape)?));
            Ok(Self::EachLayer(layers.iter().map(layer).collect::<Result<_>>()?))
        } else {
            Ok(Self::AllLayers(Arc::new(Projection::load(loader, &layers.concat(), shape)?)))
        }
    }

    fn of_layers(&self, layers: &[usize], all: usize) -> Self {
        match self {
            Self::EachLayer(each) => Self::EachLayer(layers.iter().map(|&layer| each[layer].clone()).collect()),
            Self::AllLayers(product) => Self::AllLayers(Arc::new(product.parts(layers, all))),
        }
    }

    /// The products to make of so many rows, for so many layers.
    fn products(&self, rows: usize, layers: usize) -> Vec<Arc<Projection<B>>> {
        match self {
            Self::EachLayer(each) => each.clone(),
            Self::AllLayers(all) if rows <= LONG => vec![all.clone()],
            Self::AllLayers(all) => (0..layers).map(|layer| Arc::new(all.parts(&[layer], layers))).collect(),
        }
    }
}

/// What an encoder made of a source.
#[derive(Clone)]
pub struct Encoded<B: Backend> {
    /// Hidden states, [`held`] rows: `[rows, d_model]`.
    pub(super) states: Tensor<B, 2>,
    /// How many of them are of tokens.
    pub(super) tokens: usize,
}

impl<B: Backend> fmt::Debug for Encoded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// What one generation needs of a decoder.
pub struct DecoderState<B: Backend> {
    layers: Vec<LayerState<B>>,
    bias: Arc<BiasTable<B>>,
    /// Tokens of the source.
    source: usize,
    /// What masks the rows of the source that are no tokens.
    mask: Option<Bias<'static, B>>,
}

impl<B: Backend> fmt::Debug for DecoderState<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecoderState")
            .field("layers", &self.layers.len())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

struct LayerState<B: Backend> {
    own: Cache<B>,
    source: Cache<B>,
}

impl<B: Backend> DecoderStack<B> {
    pub(super) fn load(loader: &Loader<'_, B>, config: &T5Config) -> Result<Self> {
        let parts = Parts { loader, config, stack: "decoder" };
        let layer = |i: usize| {
            let name = |layer: usize| format!("block.{i}.layer.{layer}");
            let [own, cross, feed_forward] = [0, 1, 2].map(name);
            Ok(Arc::new(DecoderLayer {
                own: parts.attention(&own, "SelfAttention", &["q", "k", "v"])?,
                cross: parts.attention(&cross, "EncDecAttention", &["q"])?,
                feed_forward: parts.feed_forward(&feed_forward)?,
            }))
        };
        let layers = (0..config.decoder_layers).map(layer).collect::<Result<_>>()?;
        let keys_values = |i| parts.names(&format!("block.{i}.layer.1"), "EncDecAttention", &["k", "v"]);
        let keys_values: Vec<_> = (0..config.decoder_layers).map(keys_values).collect();
        let of_source = OfSource::load(&loader.finer(), &keys_values, [config.heads().all(), config.d_model])?;
        let (bias, norm) = (Arc::new(parts.bias()?), Arc::new(parts.norm("final_layer_norm")?));
        Ok(Self { layers, of_source, bias, norm, precision: loader.precision() })
    }

    /// Some of the layers, with the same bias and norm.
    pub(super) fn of_layers(&self, layers: &[usize]) -> Self {
        let of_source = self.of_source.of_layers(layers, self.layers.len());
        let layers = layers.iter().map(|&layer| self.layers[layer].clone()).collect();
        Self { layers, of_source, bias: self.bias.clone(), norm: self.norm.clone(), ..*self }
    }

    /// The states of generations within their limits, from what the encoder made of the source of each; unless its
    /// limit says in between that nobody waits for it any more.
    pub(super) fn begin(
        &self,
        sources: Vec<(Encoded<B>, SessionLimit)>,
        config: &T5Config,
        threads: &Threads,
    ) -> Vec<bild_core::Result<DecoderState<B>>> {
        let Some((first, _)) = sources.first() else { return Vec::new() };
        let device = first.states.device();
        let layout = Layout { heads: config.heads(), precision: self.precision, threads };
        let mut states: Vec<_> = sources
            .iter()
            .map(|(encoded, limit)| {
                let (layers, bias) = (Vec::with_capacity(self.layers.len()), self.bias.table(limit.tokens));
                Ok(DecoderState { layers, bias, source: encoded.tokens, mask: Bias::mask(encoded.tokens, &device) })
            })
            .collect();
        let (encoded, limits): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
        let lengths: Vec<_> = encoded.iter().map(|encoded| encoded.states.dims()[0]).collect();
        let encoded = joined(encoded.into_iter().map(|encoded| encoded.states).collect());
        for product in self.of_source.products(encoded.dims()[0], self.layers.len()) {
            let keys_values = product.forward(encoded.clone());
            let mut at = 0;
            for ((state, limit), &length) in states.iter_mut().zip(&limits).zip(&lengths) {
                let first = at;
                at += length;
                if let Ok(begun) = state {
                    for source in Cache::of(keys_values.clone().narrow(0, first, length), layout) {
                        let own = Cache::new(limit.tokens, layout, &device);
                        begun.layers.push(LayerState { own, source });
                    }
                    if let Err(error) = limit.check() {
                        *state = Err(error);
                    }
                }
            }
            if states.iter().all(Result::is_err) {
                break;
            }
        }
        states
    }

    /// Rows of one or more sessions, `[rows, d_model]` to the same, through some of the layers and without the final norm.
    pub(super) fn forward(
        &self,
        mut x: Tensor<B, 2>,
        parts: &mut [Part<'_, DecoderState<B>>],
        layers: Range<usize>,
    ) -> Tensor<B, 2> {
        let mut parts: Vec<InPass<'_, B>> = parts.iter_mut().map(|part| InPass::new(part, layers.clone())).collect();
        let together = Together::of(&parts, &x.device());
        let padded = together.as_ref().map(Together::padded);
        let (of_own, of_source) = padded.as_ref().map_or((None, None), |[own, source]| (Some(own), Some(source)));
        for (i, layer) in self.layers[layers].iter().enumerate() {
            let own = parts.iter_mut().map(|part| part.own(i)).collect();
            x = x.clone() + layer.own.forward(x, own, of_own);
            let source = parts.iter_mut().map(|part| part.source(i)).collect();
            x = x.clone() + layer.cross.forward(x, source, of_source);
            x = layer.feed_forward.forward(x);
        }
        x
    }
}

/// Attention of several sessions at once, where launches are what takes time: what it needs in every layer.
struct Together<B: Backend> {
    padding: Padding<B>,
    /// How many keys are looked at, and their bias: of the tokens so far, and of the source.
    own: (usize, Tensor<B, 4>),
    source: (usize, Option<Tensor<B, 4>>),
}

impl<B: Backend> Together<B> {
    /// For passes that are no longer than what the biases of one session stand ready for.
    fn of(parts: &[InPass<'_, B>], device: &B::Device) -> Option<Self> {
        let counts: Vec<_> = parts.iter().map(|part| part.rows).collect();
        if parts.len() == 1 || counts.iter().any(|&rows| rows > BLOCK) || is_flex::<B>() || is_host::<B>(device) {
            return None;
        }
        let padding = Padding::of(&counts, device);
        let most = |count: fn(&InPass<'_, B>) -> usize| parts.iter().map(|part| held::<B>(count(part))).max();
        let (own, source) = (most(|part| part.at + part.rows)?, most(|part| part.source)?);
        let biases = parts.iter().map(|part| part.table.block(part.at, padding.rows(), own));
        let own = (own, Tensor::cat(biases.collect::<Option<_>>()?, 0));
        let masked = parts.iter().any(|part| part.mask.is_some());
        let mask = |part: &InPass<'_, B>| match part.mask {
            Some(mask) => mask.plain(),
            None => Tensor::zeros([1, 1, 1, held::<B>(part.source)], device),
        };
        // Sources of other lengths are looked at one after the other.
        let even = parts.iter().all(|part| held::<B>(part.source) == source);
        let mask = (masked && even).then(|| Tensor::cat(parts.iter().map(mask).collect(), 0));
        Some(Self { padding, own, source: (source, mask) })
    }

    fn padded(&self) -> [Padded<'_, B>; 2] {
        let Self { padding, own, source } = self;
        [
            Padded { padding, keys: own.0, bias: Some(&own.1) },
            Padded { padding, keys: source.0, bias: source.1.as_ref() },
        ]
    }
}

/// The rows of one session in a pass through some of the layers.
struct InPass<'a, B: Backend> {
    table: &'a BiasTable<B>,
    layers: &'a mut [LayerState<B>],
    bias: Bias<'a, B>,
    at: usize,
    rows: usize,
    /// Tokens of the source.
    source: usize,
    mask: Option<&'a Bias<'static, B>>,
}

impl<'a, B: Backend> InPass<'a, B> {
    fn new(part: &'a mut Part<'_, DecoderState<B>>, layers: Range<usize>) -> Self {
        let (at, rows) = (part.at, part.rows);
        let DecoderState { layers: states, bias, source, mask } = &mut *part.state;
        let table = &**bias;
        let bias = table.rows(at, rows, at + rows);
        Self { table, layers: &mut states[layers], bias, at, rows, source: *source, mask: mask.as_ref() }
    }

    /// Attention to the tokens so far, in layer `i` of those of the pass.
    fn own(&mut self, i: usize) -> Attending<'_, B> {
        let count = self.at + self.rows;
        Attending { rows: self.rows, cache: &mut self.layers[i].own, count, bias: Some(&self.bias) }
    }

    /// Attention to the source.
    fn source(&mut self, i: usize) -> Attending<'_, B> {
        Attending { rows: self.rows, cache: &mut self.layers[i].source, count: self.source, bias: self.mask }
    }
}
