//! A draft decoder on the encoder of a T5: how it is stored, and what it is made of.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::{DecoderStack, EMBEDDINGS, T5, T5Config, T5Weights, check_layers, names, warnings};
use crate::{Checkpoint, LoadError, LoadOptions, SharedEncoder, checkpoint::Tensors, error::Result, nn::Loader};

impl<B: Backend> SharedEncoder<T5<B>> {
    /// Reads the draft decoder that was made for `big`, in f32, to compute in its threads. `config.json` has a field
    /// `bild_shared_encoder`, and there are the tensors of the decoder alone: the guide describes both.
    ///
    /// # Errors
    ///
    /// If it was made for another model than `big`, which is told by the [digest](Checkpoint::digest), or is not a draft decoder; and
    /// as [`T5::load`].
    pub fn load(big: T5<B>, checkpoint: &Checkpoint) -> Result<Self> {
        let options = LoadOptions::default().with_threads(big.weights.threads.clone());
        Self::load_with(big, checkpoint, &options)
    }

    /// As [`load`](Self::load), in another precision or with other threads. What it has of the big model stays as that was loaded.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(big: T5<B>, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let config = T5Config::of_draft(checkpoint, big.config(), big.weights.digest)?;
        options.check_shortlist(config.vocab_size)?;
        options.precision.check::<B>(&big.weights.device)?;
        let tensors = Tensors::of(checkpoint, names::draft_family(config.gated))?;
        let warnings = warnings(checkpoint, &tensors);
        let span = tracing::info_span!("load", layers = config.decoder_layers);
        let _entered = span.enter();
        check_layers(&tensors, &config)?;
        let is_used = |name: &&str| name.starts_with("decoder.") && !EMBEDDINGS.contains(name);
        let loader = Loader::new(&tensors, tensors.read_names().filter(is_used), &big.weights.device, options)?;
        let decoder = DecoderStack::load(&loader, &config)?;
        let draft = T5Weights {
            threads: options.threads.clone(),
            shortlist: options.shortlist.clone(),
            warnings,
            ..big.weights.with_decoder(config, decoder)
        };
        Ok(Self::of(big, T5 { weights: Arc::new(draft) }))
    }

    /// A draft decoder made of some decoder layers of `big`, counted from 0, in the order given, with the big model's final norm:
    /// what training begins with. The weights are shared, but for a copy of what reads the source on other backends than flex.
    ///
    /// # Errors
    ///
    /// [`LoadError::DraftLayers`] if no layer is named, or one that the model does not have.
    pub fn of_layers(big: T5<B>, layers: &[usize]) -> Result<Self> {
        let all = big.weights.config.decoder_layers;
        if layers.is_empty() || layers.iter().any(|&layer| layer >= all) {
            return Err(LoadError::DraftLayers { layers: layers.to_vec(), all });
        }
        let config = T5Config { decoder_layers: layers.len(), ..big.weights.config.clone() };
        let draft = big.weights.with_decoder(config, big.weights.decoder.of_layers(layers));
        Ok(Self::of(big, T5 { weights: Arc::new(draft) }))
    }
}

impl<B: Backend> T5Weights<B> {
    /// The same model with another decoder.
    fn with_decoder(&self, config: T5Config, decoder: DecoderStack<B>) -> Self {
        Self {
            config,
            decoder,
            vocabulary: self.vocabulary.clone(),
            warnings: Vec::new(),
            device: self.device.clone(),
            threads: self.threads.clone(),
            digest: self.digest,
            embedding: self.embedding.clone(),
            encoder: self.encoder.clone(),
            head: self.head.clone(),
            shortlist: self.shortlist.clone(),
        }
    }
}
