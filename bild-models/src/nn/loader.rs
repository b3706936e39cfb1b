use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::{
    Checkpoint, LoadOptions, Precision,
    backend::is_flex,
    error::{LoadError, Result},
    memory,
};
#[cfg(feature = "flex")]
use crate::{Threads, kernel::PANEL};

/// Reads tensors of a checkpoint onto a device.
pub(crate) struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    device: &'a B::Device,
    options: &'a LoadOptions,
}

impl<'a, B: Backend> Loader<'a, B> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, device: &'a B::Device, options: &'a LoadOptions) -> Self {
        Self { checkpoint, device, options }
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<B, D>> {
        let values = self.checkpoint.read(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The rows of matrices of one shape, one matrix after the other, `PANEL` of them at a time and the last ones.
    #[cfg(feature = "flex")]
    pub(crate) fn panels(&self, names: &[String], shape: [usize; 2], mut push: impl FnMut(&[f32])) -> Result<()> {
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

    pub(crate) fn precision(&self) -> Precision {
        self.options.precision
    }

    /// As [`tensor`](Self::tensor), left on the host.
    pub(crate) fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.checkpoint.read(name, &shape)
    }

    #[cfg(feature = "flex")]
    pub(crate) fn threads(&self) -> &Threads {
        &self.options.threads
    }

    pub(crate) fn device(&self) -> &B::Device {
        self.device
    }

    /// Refuses a model of tensors of these names that is larger than the memory left, where the backend keeps it in the memory
    /// of this process.
    pub(crate) fn check_memory<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<()> {
        if !memory::is_host::<B>(self.device) {
            return Ok(());
        }
        let sizes = names.map(|name| self.checkpoint.elements(name));
        let (sum, largest) =
            sizes.fold((0u64, 0), |(sum, largest), size| (sum.saturating_add(size), largest.max(size)));
        // The tensor under way may be held twice.
        let numbers = sum.saturating_add(largest);
        let needed = match self.options.precision {
            Precision::Int8 if is_flex::<B>() => numbers,
            _ => numbers.saturating_mul(size_of::<f32>() as u64),
        };
        memory::check(needed).map_err(|free| LoadError::Memory {
            path: self.checkpoint.directory().into(),
            needed: memory::gigabytes(needed),
            free: memory::gigabytes(free),
        })
    }

    /// Two parts of loading, at once where a model lies in this process's memory: most of the time goes into its pages.
    pub(crate) fn both<X: Send, Y: Send>(&self, x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
        #[cfg(feature = "flex")]
        if crate::flex::is_flex::<B>() {
            return self.options.threads.both(x, y);
        }
        (x(), y())
    }
}
