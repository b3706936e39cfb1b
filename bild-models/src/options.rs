use crate::{Precision, Threads};

/// How a model is loaded.
///
/// ```
/// use bild_models::{LoadOptions, Precision, Threads};
///
/// let options = LoadOptions::default().precision(Precision::Int8).threads(Threads::new(2)?);
/// # Ok::<(), bild_models::LoadError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    pub(crate) precision: Precision,
    pub(crate) threads: Threads,
}

impl LoadOptions {
    /// How weights are held; [`Precision::F32`] unless said otherwise.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The threads to compute with; see [`Threads`] for those it has otherwise.
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }
}
