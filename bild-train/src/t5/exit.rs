//! An early exit: a T5 that ends after a few of a big model's decoder layers, of which what comes after them is trained and nothing else.

use std::{path::Path, sync::Arc};

use bild::{
    Checkpoint, LoadError,
    models::{
        Activation, Digest, T5Config,
        internals::{EXIT_ADAPTER, EXIT_NORM},
    },
};
use burn::{
    Tensor,
    module::{Module, Param},
    tensor::backend::Backend,
};
use serde_json::json;

use super::{Frozen, Layers, Shrink, T5, save::write_config, stack::Maker};
use crate::{
    compute::Compute,
    error::{Result, TrainError},
    files,
    random::{Dropouts, Random},
};

/// Two matrices of low rank between a norm and the head.
#[derive(Module, Debug)]
pub(super) struct Adapter<B: Backend> {
    /// `[rank, d_model]`
    down: Param<Tensor<B, 2>>,
    /// `[d_model, rank]`
    up: Param<Tensor<B, 2>>,
}

impl<B: Compute> Adapter<B> {
    /// n to n + up · gelu(down · n), gelu by tanh.
    pub(super) fn forward(&self, normed: Tensor<B, 2>, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        let inner = B::project(normed.clone(), self.down.val());
        let inner = B::activate(inner, None, Activation::GeluTanh, dropouts.next_place());
        B::residual(normed, B::project(inner, self.up.val()), dropouts.next_place())
    }
}

impl<B: Backend> T5<B> {
    /// The model of a checkpoint up to an exit after the first `layers` of its decoder layers. The norm before the head and an adapter
    /// of low rank after the norm are trained, and nothing else; before that, it computes what the model's own norm makes there.
    ///
    /// # Errors
    ///
    /// As [`shrunk`](Self::shrunk), and if the model has not more layers than that, or `rank` is neither 1 to the width of the model.
    pub fn early_exit(checkpoint: &Checkpoint, layers: usize, rank: usize, device: &B::Device) -> Result<Self> {
        let config = T5Config::of(checkpoint)?;
        let (all, width) = (config.decoder_layers, config.d_model);
        if !(1..all).contains(&layers) {
            return Err(LoadError::EarlyExit { layers, all }.into());
        }
        if !(1..=width).contains(&rank) {
            return Err(TrainError::Model(format!(
                "the adapter of an early exit was to have rank {rank}: expected 1 to {width}, the width of the model"
            )));
        }
        let shrink = Shrink { encoder: Layers::All, decoder: Layers::These((0..layers).collect()) };
        let mut model = Self::shrunk(checkpoint, &shrink, device)?;
        let [down, up] = EXIT_ADAPTER;
        let mut random = Random::new(0);
        let values = &mut |name: &str, shape: &[usize]| {
            let count = shape.iter().product();
            // Nothing is added as long as one of the two is zero.
            let deviation = if name == down { (width as f64).powf(-0.5) } else { 0.0 };
            Ok((0..count).map(|_| (random.normal() * deviation) as f32).collect())
        };
        let mut maker = Maker { values, names: model.about.names.clone(), device };
        let adapter =
            Adapter { down: maker.make(down.into(), [rank, width])?, up: maker.make(up.into(), [width, rank])? };
        Arc::make_mut(&mut model.about).names = maker.names;
        model.adapter = Some(adapter);
        Ok(model.with_frozen(Frozen { embedding: true, encoder: true, decoder: true, norm: false, head: true }))
    }

    /// Writes the norm and the adapter of an [`early_exit`](Self::early_exit), as a directory that
    /// [`EarlyExit::load`](bild::models::EarlyExit::load) reads for the big model of this [digest](Checkpoint::digest). It is there
    /// whole or not at all; one that is there already is replaced.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn save_early_exit(&self, directory: impl AsRef<Path>, big: Digest) -> Result<()> {
        let Some(adapter) = &self.adapter else {
            return Err(TrainError::Model("a model that is no early exit was to be saved as one".into()));
        };
        let [_, rank] = adapter.up.dims();
        let exit = json!({ "big": big.to_string(), "layers": self.config().decoder_layers, "rank": rank });
        let json = [("model_type", json!("t5")), ("bild_early_exit", exit)];
        let mut tensors = self.tensors();
        tensors.retain(|name, _| name == EXIT_NORM || EXIT_ADAPTER.contains(&&name[..]));
        files::publish(directory.as_ref(), |partial| {
            write_config(partial, json.map(|(field, value)| (field.to_owned(), value)).into_iter().collect())?;
            files::write_tensors(&partial.join("model.safetensors"), &tensors)
        })
    }
}
