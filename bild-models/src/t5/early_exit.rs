//! An early exit that was trained for a T5: how it is stored.

use burn::tensor::backend::Backend;

use super::{T5, T5Config, names, warnings};
use crate::{
    Checkpoint, EarlyExit, LoadError, LoadOptions,
    checkpoint::Tensors,
    nn::{Exit, Loader, RmsNorm},
};

impl<B: Backend> EarlyExit<T5<B>> {
    /// Drafts with the first decoder layers of `model` and an exit that was trained for them: a norm and an adapter of low rank
    /// between the last of these layers and the head, in f32. `config.json` has a field `bild_early_exit`; the guide describes it.
    ///
    /// # Errors
    ///
    /// If it was made for another model, which is told by the [digest](Checkpoint::digest), or is no early exit; and as [`T5::load`].
    pub fn load(model: T5<B>, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let config = model.config();
        let (layers, rank) = T5Config::of_exit(checkpoint, config, model.weights.digest)?;
        let tensors = Tensors::of(checkpoint, names::EXIT_FAMILY)?;
        warnings(checkpoint, &tensors);
        let options = LoadOptions::default().with_threads(model.weights.threads.clone());
        let loader = Loader::new(&tensors, tensors.read_names(), &model.weights.device, &options)?;
        let width = config.d_model;
        let norm = RmsNorm::load(&loader, names::EXIT_NORM, width, config.layer_norm_epsilon)?;
        let exit = Exit::load(&loader, norm, names::EXIT_ADAPTER, [width, rank])?;
        Ok(Self::new(model, layers)?.with_exit(exit))
    }
}
