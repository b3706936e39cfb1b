use crate::{Precision, Threads};

/// How a model is loaded.
///
/// ```
/// use bild_models::{LoadOptions, Precision, Threads};
///
/// let options = LoadOptions::default().precision(Precision::Int8).threads(Threads::new(2)?);
/// # Ok::<(), bild_models::LoadError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub(crate) precision: Precision,
    pub(crate) threads: Threads,
    pub(crate) self_test: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { precision: Precision::default(), threads: Threads::default(), self_test: true }
    }
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

    /// Whether a model on another backend than `Flex` is tried when it is loaded, which is so unless it is turned off: a pass of
    /// three tokens must be what three passes of one are. It costs some milliseconds, beside the compiling of kernels that the
    /// first generation would wait for.
    pub fn self_test(mut self, is_on: bool) -> Self {
        self.self_test = is_on;
        self
    }
}
