use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::{
    Checkpoint, T5Config,
    error::{LoadError, Result},
};

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

    /// As [`tensor`](Self::tensor), left on the host.
    pub(super) fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.checkpoint.read(name, &shape)
    }

    pub(super) fn device(&self) -> &B::Device {
        self.device
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
