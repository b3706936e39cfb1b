use burn::tensor::{Tensor, TensorData, backend::Backend};

#[cfg(feature = "flex")]
use crate::kernel::{PANEL, Panels};
use crate::{
    Checkpoint, T5Config,
    error::{LoadError, Result},
    memory,
};

/// The names that the embedding goes by.
pub(super) const EMBEDDINGS: [&str; 3] =
    ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// Reads tensors of a checkpoint onto a device.
pub(super) struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    device: &'a B::Device,
}

impl<'a, B: Backend> Loader<'a, B> {
    pub(super) fn new(checkpoint: &'a Checkpoint, device: &'a B::Device) -> Self {
        Self { checkpoint, device }
    }

    pub(super) fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<B, D>> {
        let values = self.checkpoint.read(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// As [`tensor`](Self::tensor), laid out for the skinny products of flex.
    #[cfg(feature = "flex")]
    pub(super) fn panels(&self, name: &str, [outputs, width]: [usize; 2]) -> Result<Panels> {
        let mut panels = Panels::new(outputs, width);
        self.checkpoint.read_parts(name, &[outputs, width], PANEL * width, |rows| panels.push(rows))?;
        Ok(panels)
    }

    /// As [`tensor`](Self::tensor), left on the host.
    pub(super) fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.checkpoint.read(name, &shape)
    }

    pub(super) fn device(&self) -> &B::Device {
        self.device
    }

    /// Refuses a model that is larger than the memory left, where the backend keeps it in the memory of this process.
    pub(super) fn check_memory(&self, config: &T5Config) -> Result<()> {
        if !["flex", "ndarray", "libtorch<cpu>"].contains(&B::name(self.device).as_str()) {
            return Ok(());
        }
        let embedding = (config.vocab_size * config.d_model) as u64;
        let unused = |name: &&str| EMBEDDINGS.contains(name) || (*name == "lm_head.weight" && config.tied_head);
        let others = self.checkpoint.names().filter(|name| !unused(name));
        let sizes = others.map(|name| self.checkpoint.elements(name));
        let (sum, largest) =
            sizes.fold((embedding, embedding), |(sum, largest), size| (sum.saturating_add(size), largest.max(size)));
        // The tensor under way may be held twice.
        let needed = sum.saturating_add(largest).saturating_mul(size_of::<f32>() as u64);
        memory::check(needed, self.checkpoint.directory())
    }

    /// Refuses weights of more layers than the configuration has: read as they are, they would make another model.
    pub(super) fn check_layers(&self, config: &T5Config) -> Result<()> {
        for name in self.checkpoint.names() {
            for (stack, layers) in [("encoder", config.encoder_layers), ("decoder", config.decoder_layers)] {
                let block = name.strip_prefix(stack).and_then(|name| name.strip_prefix(".block."));
                let number = block.and_then(|block| block.split('.').next()?.parse::<usize>().ok());
                if number.is_some_and(|number| number >= layers) {
                    return Err(LoadError::Tensor {
                        path: self.checkpoint.path_of(name).into(),
                        name: name.into(),
                        problem: format!("is of a layer that config.json does not have: its {stack} has {layers}"),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Two parts of loading, at once where a model lies in this process's memory: most of the time goes into its pages.
pub(super) fn both<B: Backend, X: Send, Y: Send>(x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
    #[cfg(feature = "flex")]
    if crate::flex::is_flex::<B>() {
        return rayon::join(x, y);
    }
    (x(), y())
}
