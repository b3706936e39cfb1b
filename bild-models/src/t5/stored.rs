use super::{EMBEDDINGS, HEAD, Head, T5Config, check_embeddings, check_layers, embedding_and_head, names};
use crate::{Checkpoint, checkpoint::Tensors, error::Result};

/// The tensors of a T5 as a checkpoint stores them, by the names that transformers has for them: for a program that does something
/// else with the weights than decoding, such as training.
#[derive(Debug)]
pub struct T5Tensors<'a> {
    tensors: Tensors<'a>,
    config: T5Config,
    embedding: &'static str,
    head: Option<&'static str>,
}

impl<'a> T5Tensors<'a> {
    /// The name that a head of its own has.
    pub const HEAD: &'static str = HEAD;
    /// The name that the embedding has.
    pub const EMBEDDING: &'static str = EMBEDDINGS[0];

    /// Reads the headers of the files of a checkpoint, and the embedding where it is stored by several names.
    ///
    /// # Errors
    ///
    /// If it is not of a T5, its files are missing, broken or of more layers than its configuration says, or the embedding is
    /// stored by several names with different values.
    pub fn of(checkpoint: &'a Checkpoint) -> Result<Self> {
        let config = T5Config::of(checkpoint)?;
        let tensors = Tensors::of(checkpoint, names::family(config.gated))?;
        check_layers(&tensors, &config)?;
        let (embedding, head) = embedding_and_head(&tensors, config.head);
        check_embeddings(&tensors, embedding)?;
        Ok(Self { tensors, config, embedding, head })
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Whether the model has a head that is not its embedding: without one and with [`Head::Own`] nothing can be decoded.
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Whether the head is neither stored nor the embedding.
    pub fn lacks_head(&self) -> bool {
        self.head.is_none() && self.config.head == Head::Own
    }

    /// The values of a tensor of this shape, row-major, as f32; all of them are finite. [`EMBEDDING`](Self::EMBEDDING) is read by
    /// whichever of its names it is stored.
    ///
    /// # Errors
    ///
    /// If it is missing, has another shape, another type than f32, f16 or bf16, or cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stored = match name {
            Self::EMBEDDING => self.embedding,
            Self::HEAD => self.head.unwrap_or(HEAD),
            name => name,
        };
        self.tensors.read(stored, shape)
    }
}
