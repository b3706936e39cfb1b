use bild::models::{Activation, T5Config};
use burn::{
    Tensor,
    module::{Module, Param},
    tensor::{TensorData, backend::Backend},
};
use std::{collections::BTreeMap, sync::Arc};

use super::id;
use crate::{
    compute::{Attending, Compute},
    data::Padded,
    error::Result,
    random::Dropouts,
};

/// The numbers of a parameter, given its name and shape.
pub(super) type Values<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>> + 'a;

/// Makes parameters of what is known of each: its name and its shape.
pub(super) struct Maker<'a, B: Backend> {
    pub(super) values: &'a mut Values<'a>,
    pub(super) names: BTreeMap<u64, String>,
    pub(super) device: &'a B::Device,
}

impl<B: Backend> Maker<'_, B> {
    pub(super) fn make<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Result<Param<Tensor<B, D>>> {
        let values = TensorData::new((self.values)(&name, &shape)?, shape);
        let tensor = Tensor::from_data(values, self.device).require_grad();
        let id = id(&name);
        let taken = self.names.insert(id, name);
        assert_eq!(taken, None, "ids of parameters are made from their names");
        Ok(Param::initialized(id.into(), tensor))
    }
}

/// Attention with its norm, T5's way: no biases, no scaling.
#[derive(Module, Debug)]
struct Attention<B: Backend> {
    norm: Param<Tensor<B, 1>>,
    query: Param<Tensor<B, 2>>,
    key: Param<Tensor<B, 2>>,
    value: Param<Tensor<B, 2>>,
    output: Param<Tensor<B, 2>>,
}

impl<B: Backend> Attention<B> {
    fn make(maker: &mut Maker<'_, B>, config: &T5Config, layer: &str, kind: &str) -> Result<Self> {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let name = |part: &str| format!("{layer}.{kind}.{part}.weight");
        Ok(Self {
            norm: maker.make(format!("{layer}.layer_norm.weight"), [width])?,
            query: maker.make(name("q"), [inner, width])?,
            key: maker.make(name("k"), [inner, width])?,
            value: maker.make(name("v"), [inner, width])?,
            output: maker.make(name("o"), [width, inner])?,
        })
    }
}

impl<B: Compute> Attention<B> {
    /// Adds to `x` what it finds in `from`, or in itself.
    fn forward(
        &self,
        x: Tensor<B, 2>,
        from: Option<Tensor<B, 2>>,
        bias: Option<Tensor<B, 2>>,
        attending: &Attending,
        epsilon: f64,
        dropouts: &mut Dropouts,
    ) -> Tensor<B, 2> {
        let normed = B::rms_norm(x.clone(), self.norm.val(), epsilon);
        let queries = B::project(normed.clone(), self.query.val());
        let from = from.unwrap_or(normed);
        let keys = B::project(from.clone(), self.key.val());
        let values = B::project(from, self.value.val());
        let attending = Attending { dropout: dropouts.next_place(), ..attending.clone() };
        let found = B::attend([queries, keys, values], bias, &attending);
        B::residual(x, B::project(found, self.output.val()), dropouts.next_place())
    }
}

/// The feed-forward layer with its norm.
#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    norm: Param<Tensor<B, 1>>,
    gate: Param<Tensor<B, 2>>,
    up: Option<Param<Tensor<B, 2>>>,
    output: Param<Tensor<B, 2>>,
}

impl<B: Backend> FeedForward<B> {
    fn make(maker: &mut Maker<'_, B>, config: &T5Config, layer: &str) -> Result<Self> {
        let (width, inner) = (config.d_model, config.d_ff);
        let name = |part: &str| format!("{layer}.DenseReluDense.{part}.weight");
        let norm = maker.make(format!("{layer}.layer_norm.weight"), [width])?;
        let (gate, up) = if config.gated {
            (maker.make(name("wi_0"), [inner, width])?, Some(maker.make(name("wi_1"), [inner, width])?))
        } else {
            (maker.make(name("wi"), [inner, width])?, None)
        };
        Ok(Self { norm, gate, up, output: maker.make(name("wo"), [width, inner])? })
    }
}

impl<B: Compute> FeedForward<B> {
    fn forward(&self, x: Tensor<B, 2>, activation: Activation, epsilon: f64, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        let normed = B::rms_norm(x.clone(), self.norm.val(), epsilon);
        let up = self.up.as_ref().map(|up| B::project(normed.clone(), up.val()));
        let gate = B::project(normed, self.gate.val());
        let inner = B::activate(gate, up, activation, dropouts.next_place());
        B::residual(x, B::project(inner, self.output.val()), dropouts.next_place())
    }
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    own: Attention<B>,
    /// Attention to the encoder's states, which a decoder has.
    cross: Option<Attention<B>>,
    feed_forward: FeedForward<B>,
}

/// What encoder and decoder have in common: layers, a bias that all of them add, and a final norm.
#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Layer<B>>,
    /// `[buckets, heads]`
    bias: Param<Tensor<B, 2>>,
    norm: Param<Tensor<B, 1>>,
    #[module(skip)]
    config: Arc<T5Config>,
    #[module(skip)]
    is_encoder: bool,
}

impl<B: Backend> Stack<B> {
    fn make(maker: &mut Maker<'_, B>, config: &Arc<T5Config>, is_encoder: bool) -> Result<Self> {
        let (stack, layers) =
            if is_encoder { ("encoder", config.encoder_layers) } else { ("decoder", config.decoder_layers) };
        let mut made = Vec::new();
        for i in 0..layers {
            let layer = |part: usize| format!("{stack}.block.{i}.layer.{part}");
            let own = Attention::make(maker, config, &layer(0), "SelfAttention")?;
            let (cross, feed_forward) = if is_encoder {
                (None, FeedForward::make(maker, config, &layer(1))?)
            } else {
                let cross = Attention::make(maker, config, &layer(1), "EncDecAttention")?;
                (Some(cross), FeedForward::make(maker, config, &layer(2))?)
            };
            made.push(Layer { own, cross, feed_forward });
        }
        let bias = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        Ok(Self {
            layers: made,
            bias: maker.make(bias, [config.position_buckets, config.num_heads])?,
            norm: maker.make(format!("{stack}.final_layer_norm.weight"), [config.d_model])?,
            config: config.clone(),
            is_encoder,
        })
    }
}

impl<B: Compute> Stack<B> {
    fn forward(
        &self,
        embedded: Tensor<B, 2>,
        own: &Padded,
        encoded: Option<(Tensor<B, 2>, &Padded)>,
        dropouts: &mut Dropouts,
    ) -> Tensor<B, 2> {
        let config = &*self.config;
        let epsilon = config.layer_norm_epsilon;
        let mut x = B::dropout(embedded, dropouts.next_place());
        let to_own = self.attending(own, own);
        let to_source =
            encoded.as_ref().map(|(_, source)| Attending { is_causal: false, ..self.attending(own, source) });
        let bias = self.bias.val();
        for layer in &self.layers {
            x = layer.own.forward(x, None, Some(bias.clone()), &to_own, epsilon, dropouts);
            if let (Some(cross), Some((states, _)), Some(to_source)) = (&layer.cross, &encoded, &to_source) {
                x = cross.forward(x, Some(states.clone()), None, to_source, epsilon, dropouts);
            }
            x = layer.feed_forward.forward(x, config.activation, epsilon, dropouts);
        }
        B::dropout(B::rms_norm(x, self.norm.val(), epsilon), dropouts.next_place())
    }

    fn attending(&self, queries: &Padded, keys: &Padded) -> Attending {
        let ahead = |i: usize| i as isize - (queries.width as isize - 1);
        let bucket = |i| self.config.position_bucket(ahead(i), self.is_encoder);
        Attending {
            batch: queries.count,
            heads: self.config.num_heads,
            queries: queries.width,
            keys: keys.width,
            lengths: keys.lengths.clone(),
            is_causal: !self.is_encoder,
            buckets: (0..queries.width + keys.width - 1).map(bucket).collect(),
            dropout: Dropouts::none().next_place(),
        }
    }
}

/// An encoder: it can be frozen, or run on a backend without gradients.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    stack: Stack<B>,
}

impl<B: Backend> Encoder<B> {
    pub(super) fn make(maker: &mut Maker<'_, B>, config: &Arc<T5Config>) -> Result<Self> {
        Ok(Self { stack: Stack::make(maker, config, true)? })
    }
}

impl<B: Compute> Encoder<B> {
    /// From the embeddings of sources, `[count · width, d_model]`, to as many states after the final norm.
    pub fn forward(&self, embedded: Tensor<B, 2>, sources: &Padded, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        self.stack.forward(embedded, sources, None, dropouts)
    }
}

/// A decoder, for the states of whichever encoder.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    stack: Stack<B>,
}

impl<B: Backend> Decoder<B> {
    pub(super) fn make(maker: &mut Maker<'_, B>, config: &Arc<T5Config>) -> Result<Self> {
        Ok(Self { stack: Stack::make(maker, config, false)? })
    }

    /// Whether the norm after the layers is trained, whatever they are.
    pub(super) fn with_norm_trained(mut self, trained: bool) -> Self {
        self.stack.norm = self.stack.norm.set_require_grad(trained);
        self
    }
}

impl<B: Compute> Decoder<B> {
    /// From the embeddings of what it reads, `[count · width, d_model]`, and the states of the sources to as many rows after the final
    /// norm, which the head scores.
    pub fn forward(
        &self,
        embedded: Tensor<B, 2>,
        inputs: &Padded,
        states: Tensor<B, 2>,
        sources: &Padded,
        dropouts: &mut Dropouts,
    ) -> Tensor<B, 2> {
        self.stack.forward(embedded, inputs, Some((states, sources)), dropouts)
    }
}
