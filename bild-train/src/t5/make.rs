//! Where a model's first numbers come from: a checkpoint, some layers of one, or a seed.

use std::sync::Arc;

use bild::{
    Checkpoint,
    models::{Head, T5Config, T5Tensors},
};
use burn::tensor::backend::Backend;
use serde_json::{Map, Value};

use super::{
    About, Decoder, Encoder, Frozen, T5,
    stack::{Maker, Values},
};
use crate::{
    error::{Result, TrainError},
    random::Random,
};

/// Which layers of a model are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// All.
    #[default]
    All,
    /// So many, evenly spread, the first and the last among them; of one, the first.
    Spread(usize),
    /// These, from 0, in this order.
    These(Vec<usize>),
}

/// Which layers are kept of a model that is made smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shrink {
    /// Of the encoder.
    pub encoder: Layers,
    /// Of the decoder.
    pub decoder: Layers,
}

impl Layers {
    /// Those that are kept of `all`.
    ///
    /// # Errors
    ///
    /// If there are none, or not so many.
    pub fn of(&self, all: usize) -> Result<Vec<usize>> {
        let kept = match self {
            Self::All => (0..all).collect(),
            Self::Spread(count @ (0 | 1)) => vec![0; *count],
            Self::Spread(count) if *count > all => {
                return Err(TrainError::Model(format!("it was to keep {count} layers of a stack that has {all}")));
            }
            Self::Spread(count) => (0..*count).map(|i| (2 * i * (all - 1) + count - 1) / (2 * (count - 1))).collect(),
            Self::These(layers) => layers.clone(),
        };
        match kept.iter().find(|&&layer| layer >= all) {
            Some(layer) => Err(TrainError::Model(format!(
                "it was to keep layer {layer} of a stack that has {all}, counted from 0"
            ))),
            None if kept.is_empty() => Err(TrainError::Model("it was to keep no layer of a stack".into())),
            None => Ok(kept),
        }
    }
}

/// The files of a checkpoint that go with the model that is made of it; its configuration is another one.
fn files(checkpoint: &Checkpoint) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in Checkpoint::FILES.into_iter().filter(|name| *name != "config.json") {
        files.extend(checkpoint.file(name)?.map(|contents| (name.to_owned(), contents)));
    }
    Ok(files)
}

fn object(json: &Value) -> Map<String, Value> {
    json.as_object().cloned().unwrap_or_default()
}

impl<B: Backend> T5<B> {
    /// The model of a checkpoint.
    ///
    /// # Errors
    ///
    /// If the checkpoint is broken, or it is not of a T5 that can decode.
    pub fn open(checkpoint: &Checkpoint, device: &B::Device) -> Result<Self> {
        Self::shrunk(checkpoint, &Shrink::default(), device)
    }

    /// Some layers of the model of a checkpoint, with its embedding and head.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and if it has no such layers.
    pub fn shrunk(checkpoint: &Checkpoint, shrink: &Shrink, device: &B::Device) -> Result<Self> {
        let tensors = T5Tensors::of(checkpoint)?;
        if tensors.lacks_head() {
            let path = checkpoint.directory().display();
            return Err(TrainError::Model(format!("{path} has no lm_head.weight, and its head is not its embedding")));
        }
        let mut config = tensors.config().clone();
        let encoder = shrink.encoder.of(config.encoder_layers)?;
        let decoder = shrink.decoder.of(config.decoder_layers)?;
        (config.encoder_layers, config.decoder_layers) = (encoder.len(), decoder.len());
        let mut json = object(checkpoint.config_json());
        json.remove("num_hidden_layers");
        json.insert("num_layers".into(), encoder.len().into());
        json.insert("num_decoder_layers".into(), decoder.len().into());
        let files = files(checkpoint)?;
        let has_head = tensors.has_head();
        Self::make(config, json, files, has_head, device, &mut |name, shape| {
            Ok(tensors.read(&original(name, &encoder, &decoder), shape)?)
        })
    }

    /// A model of random numbers, spread as transformers spreads them. The checkpoint's weights, if it has any, are not read; a
    /// configuration alone is one by [`Checkpoint::from_files`].
    ///
    /// # Errors
    ///
    /// If the configuration is not one of a T5.
    pub fn random(checkpoint: &Checkpoint, seed: u64, device: &B::Device) -> Result<Self> {
        let config = T5Config::of(checkpoint)?;
        let json = object(checkpoint.config_json());
        let is_tied = json.get("tie_word_embeddings").and_then(Value::as_bool);
        let has_head = match config.head {
            Head::Embedding => false,
            Head::Own => true,
            Head::Stored => is_tied == Some(false),
        };
        let files = files(checkpoint)?;
        let factor = json.get("initializer_factor").and_then(Value::as_f64).unwrap_or(1.0);
        let (width, inner) = (config.d_model as f64, (config.num_heads * config.d_kv) as f64);
        let (d_kv, d_ff) = (config.d_kv as f64, config.d_ff as f64);
        let mut random = Random::new(seed);
        Self::make(config, json, files, has_head, device, &mut |name, shape| {
            let count = shape.iter().product();
            let mut parts = name.rsplit('.').skip(1);
            let deviation = match (parts.next().unwrap_or_default(), parts.next()) {
                (norm, _) if norm.ends_with("layer_norm") => return Ok(vec![factor as f32; count]),
                ("q", _) => (width * d_kv).powf(-0.5),
                ("o", _) => inner.powf(-0.5),
                ("wo", _) => d_ff.powf(-0.5),
                ("shared" | "lm_head", _) => 1.0,
                _ => width.powf(-0.5),
            };
            Ok((0..count).map(|_| (random.normal() * deviation * factor) as f32).collect())
        })
    }

    fn make(
        config: T5Config,
        json: Map<String, Value>,
        files: Vec<(String, Vec<u8>)>,
        has_head: bool,
        device: &B::Device,
        values: &mut Values<'_>,
    ) -> Result<Self> {
        let shape = [config.vocab_size, config.d_model];
        let config = Arc::new(config);
        let mut maker = Maker { values, names: Default::default(), device };
        let embedding = maker.make(T5Tensors::EMBEDDING.into(), shape)?;
        let encoder = Encoder::make(&mut maker, &config)?;
        let decoder = Decoder::make(&mut maker, &config)?;
        let head = if has_head { Some(maker.make(T5Tensors::HEAD.into(), shape)?) } else { None };
        let about = Arc::new(About { config, json, names: maker.names, files });
        Ok(Self { embedding, encoder, decoder, adapter: None, head, about, frozen: Frozen::default() })
    }
}

/// The name that a tensor has in the model whose layers were taken. The bias of positions is the first layer's everywhere.
fn original(name: &str, encoder: &[usize], decoder: &[usize]) -> String {
    let renamed = [("encoder", encoder), ("decoder", decoder)].into_iter().find_map(|(stack, kept)| {
        let (layer, rest) = name.strip_prefix(stack)?.strip_prefix(".block.")?.split_once('.')?;
        let layer = kept[layer.parse::<usize>().ok()?];
        (!rest.contains("relative_attention_bias")).then(|| format!("{stack}.block.{layer}.{rest}"))
    });
    renamed.unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_spread_with_the_first_and_the_last() {
        let of = |layers: Layers, all| layers.of(all).map_err(|error| error.to_string());
        assert_eq!(of(Layers::All, 3), Ok(vec![0, 1, 2]));
        assert_eq!(of(Layers::Spread(1), 8), Ok(vec![0]));
        assert_eq!(of(Layers::Spread(2), 8), Ok(vec![0, 7]));
        assert_eq!(of(Layers::Spread(3), 8), Ok(vec![0, 4, 7]));
        assert_eq!(of(Layers::Spread(4), 12), Ok(vec![0, 4, 7, 11]));
        assert_eq!(of(Layers::Spread(8), 8), Ok((0..8).collect()));
        assert_eq!(of(Layers::These(vec![5, 1]), 8), Ok(vec![5, 1]));
        assert!(of(Layers::Spread(9), 8).unwrap_err().contains("9 layers of a stack that has 8"));
        assert!(of(Layers::These(vec![8]), 8).unwrap_err().contains("layer 8 of a stack that has 8"));
        assert!(of(Layers::Spread(0), 8).unwrap_err().contains("no layer"));
        assert!(of(Layers::These(vec![]), 8).unwrap_err().contains("no layer"));
    }

    #[test]
    fn a_kept_layer_is_read_by_its_old_name() {
        let of = |name| original(name, &[0, 4], &[7]);
        assert_eq!(of("encoder.block.1.layer.0.layer_norm.weight"), "encoder.block.4.layer.0.layer_norm.weight");
        assert_eq!(
            of("decoder.block.0.layer.1.EncDecAttention.q.weight"),
            "decoder.block.7.layer.1.EncDecAttention.q.weight"
        );
        let bias = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        assert_eq!((&of(bias)[..], &of("shared.weight")[..]), (bias, "shared.weight"));
    }
}
