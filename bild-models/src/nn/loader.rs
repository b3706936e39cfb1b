use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::tensor::{Tensor, TensorData, backend::Backend};

#[cfg(feature = "flex")]
use crate::backend::{Threads, kernel::PANEL};
use crate::{
    LoadOptions, Precision, Progress,
    backend::{is_flex, memory},
    checkpoint::Tensors,
    error::{LoadError, Result},
};

/// Rows of a matrix are held in multiples of this.
#[cfg(not(feature = "flex"))]
const PANEL: usize = 1;

/// How many numbers a tensor takes, the rows of a matrix made a multiple of `rows`.
fn numbers(shape: &[usize], rows: u64) -> u64 {
    let size = |(i, &size): (usize, &usize)| match shape.len() {
        2 if i == 0 => (size as u64).next_multiple_of(rows),
        _ => size as u64,
    };
    shape.iter().enumerate().map(size).fold(1, u64::saturating_mul)
}

/// Reads tensors onto a device.
pub(crate) struct Loader<'a, B: Backend> {
    tensors: &'a Tensors<'a>,
    device: &'a B::Device,
    options: &'a LoadOptions,
    precision: Precision,
    /// How many weights are read, and will be.
    done: Arc<AtomicU64>,
    total: u64,
}

impl<'a, B: Backend> Loader<'a, B> {
    /// A loader that will read the tensors of these names. Refuses a model that is larger than the memory left, where the backend
    /// keeps it in the memory of this process.
    pub(crate) fn new<'n>(
        tensors: &'a Tensors<'a>,
        names: impl Iterator<Item = &'n str>,
        device: &'a B::Device,
        options: &'a LoadOptions,
    ) -> Result<Self> {
        let (mut total, mut held, mut largest) = (0u64, 0u64, 0);
        for shape in names.filter_map(|name| tensors.shape(name)) {
            total = total.saturating_add(numbers(shape, 1));
            let padded = numbers(shape, PANEL as u64);
            (held, largest) = (held.saturating_add(padded), largest.max(padded));
        }
        let loader = Self { tensors, device, options, precision: options.precision, done: Arc::default(), total };
        // The tensor under way may be held twice.
        loader.check_memory(held.saturating_add(largest))?;
        Ok(loader)
    }

    fn check_memory(&self, numbers: u64) -> Result<()> {
        if !memory::is_host::<B>(self.device) {
            return Ok(());
        }
        let needed = match self.options.precision {
            // A byte at most.
            Precision::Int8 | Precision::Int4 if is_flex::<B>() => numbers,
            Precision::Bf16 => numbers.saturating_mul(2),
            // A quarter of them may stay in f32.
            Precision::F16 => numbers.saturating_mul(3),
            _ => numbers.saturating_mul(size_of::<f32>() as u64),
        };
        memory::check(needed).map_err(|free| LoadError::Memory {
            path: self.tensors.directory().into(),
            needed: memory::gigabytes(needed),
            free: memory::gigabytes(free),
        })
    }

    /// Counts a tensor that was read.
    fn was_read(&self, numbers: usize) {
        let done = self.done.fetch_add(numbers as u64, Ordering::Relaxed) + numbers as u64;
        if let Some(progress) = &self.options.progress {
            progress(Progress { done, total: self.total });
        }
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.tensors.read(name, shape)?;
        self.was_read(values.len());
        Ok(values)
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<B, D>> {
        let values = self.read(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// The rows of matrices of one shape, one matrix after the other, `PANEL` of them at a time and the last ones.
    #[cfg(feature = "flex")]
    pub(crate) fn panels(&self, names: &[String], shape: [usize; 2], mut push: impl FnMut(&[f32])) -> Result<()> {
        let panel = PANEL * shape[1];
        let mut begun = Vec::new();
        for name in names {
            self.tensors.read_parts(name, &shape, panel, |rows| {
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
            self.was_read(shape.iter().product());
        }
        if !begun.is_empty() {
            push(&begun);
        }
        Ok(())
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The same for matrices that 4 bits do not suit: those where they cost the text much, or where they save no time as a product
    /// has many rows anyway. They are held in 8.
    pub(crate) fn finer(&self) -> Self {
        let precision = if self.precision == Precision::Int4 { Precision::Int8 } else { self.precision };
        Self { precision, done: self.done.clone(), ..*self }
    }

    /// The same for a matrix whose products f16 has no room for.
    pub(crate) fn wider(&self) -> Self {
        let precision = if self.precision == Precision::F16 { Precision::F32 } else { self.precision };
        Self { precision, done: self.done.clone(), ..*self }
    }

    /// Refuses weights that are too large for the floats that they are to be held as.
    pub(crate) fn check_range(&self, name: &str, values: &[f32]) -> Result<()> {
        /// The largest f16.
        const MOST: f32 = 65504.0;
        match values.iter().find(|value| value.abs() > MOST) {
            Some(value) if self.precision == Precision::F16 => Err(LoadError::Tensor {
                path: self.tensors.path_of(name).into(),
                name: name.into(),
                problem: format!("holds {value}, and the largest f16 is {MOST}: take bf16"),
            }),
            _ => Ok(()),
        }
    }

    /// As [`tensor`](Self::tensor), left on the host.
    pub(crate) fn values(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        self.read(name, &shape)
    }

    #[cfg(feature = "flex")]
    pub(crate) fn threads(&self) -> &Threads {
        &self.options.threads
    }

    pub(crate) fn device(&self) -> &B::Device {
        self.device
    }

    /// Two parts of loading, at once where a model lies in this process's memory: most of the time goes into its pages.
    pub(crate) fn both<X: Send, Y: Send>(&self, x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
        #[cfg(feature = "flex")]
        if is_flex::<B>() {
            return self.options.threads.both(x, y);
        }
        (x(), y())
    }
}
