use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::{
    Checkpoint, Head, LoadOptions, Precision, T5Config,
    error::{LoadError, Result},
    memory,
};
#[cfg(feature = "flex")]
use crate::{Threads, kernel::PANEL};

/// The names that the embedding goes by.
const EMBEDDINGS: [&str; 3] = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

const HEAD: &str = "lm_head.weight";

/// Reads tensors of a checkpoint onto a device.
pub(super) struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    device: &'a B::Device,
    options: &'a LoadOptions,
}

impl<'a, B: Backend> Loader<'a, B> {
    pub(super) fn new(checkpoint: &'a Checkpoint, device: &'a B::Device, options: &'a LoadOptions) -> Self {
        Self { checkpoint, device, options }
    }

    /// The tensor that is the embedding, and the one that is the head unless the embedding is.
    pub(super) fn embedding_and_head(&self, head: Head) -> (&'static str, Option<&'static str>) {
        let stored = self.checkpoint.contains(HEAD);
        match EMBEDDINGS.into_iter().find(|name| self.checkpoint.contains(name)) {
            Some(embedding) => (embedding, Some(HEAD).filter(|_| stored && head != Head::Embedding)),
            // The two are one, stored by the other's name.
            None if stored && head != Head::Own => (HEAD, None),
            None => (EMBEDDINGS[0], None),
        }
    }

    pub(super) fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<B, D>> {
        let values = self.checkpoint.read(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The rows of matrices of one shape, one matrix after the other, `PANEL` of them at a time and the last ones.
    #[cfg(feature = "flex")]
    pub(super) fn panels(&self, names: &[String], shape: [usize; 2], mut push: impl FnMut(&[f32])) -> Result<()> {
        let panel = PANEL * shape[1];
        let mut begun = Vec::new();
        for name in names {
            self.checkpoint.read_parts(name, &shape, panel, |rows| {
                if begun.is_empty() && rows.len() == panel {
                    return push(rows);
                }
                // A matrix ended within a panel.
                begun.extend_from_slice(rows);
                if begun.len() >= panel {
                    push(&begun[..panel]);
                    begun.drain(..panel);
                }
            })?;
        }
        if !begun.is_empty() {
            push(&begun);
        }
        Ok(())
    }

    pub(super) fn precision(&self) -> Precision {
        self.options.precision
    }

    /// As [`tensor`](Self::tensor), left on the host.
    pub(super) fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.checkpoint.read(name, &shape)
    }

    #[cfg(feature = "flex")]
    pub(super) fn threads(&self) -> &Threads {
        &self.options.threads
    }

    pub(super) fn device(&self) -> &B::Device {
        self.device
    }

    /// Refuses a model that is larger than the memory left, where the backend keeps it in the memory of this process.
    pub(super) fn check_memory(&self, config: &T5Config) -> Result<()> {
        if !memory::is_host::<B>(self.device) {
            return Ok(());
        }
        let is_flex = super::is_flex::<B>();
        let embedding = (config.vocab_size * config.d_model) as u64;
        let (_, head) = self.embedding_and_head(config.head);
        let unused = |name: &&str| EMBEDDINGS.contains(name) || (*name == HEAD && head.is_none());
        let others = self.checkpoint.names().filter(|name| !unused(name));
        let sizes = others.map(|name| self.checkpoint.elements(name));
        let (sum, largest) =
            sizes.fold((embedding, embedding), |(sum, largest), size| (sum.saturating_add(size), largest.max(size)));
        // The tensor under way may be held twice.
        let numbers = sum.saturating_add(largest);
        let needed = match self.options.precision {
            Precision::Int8 if is_flex => numbers,
            _ => numbers.saturating_mul(size_of::<f32>() as u64),
        };
        memory::check(needed).map_err(|free| LoadError::Memory {
            path: self.checkpoint.directory().into(),
            needed: memory::gigabytes(needed),
            free: memory::gigabytes(free),
        })
    }

    /// Two parts of loading, at once where a model lies in this process's memory: most of the time goes into its pages.
    pub(super) fn both<X: Send, Y: Send>(&self, x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
        #[cfg(feature = "flex")]
        if crate::flex::is_flex::<B>() {
            return self.options.threads.both(x, y);
        }
        (x(), y())
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
