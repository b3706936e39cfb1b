use std::{fmt, sync::Arc};

use super::{Precision, Threads};
use crate::{LoadError, Shortlist};

/// How a model is loaded.
///
/// ```
/// use bild::{LoadOptions, Precision, Threads};
///
/// let options = LoadOptions::default().with_precision(Precision::Int8).with_threads(Threads::new(2)?);
/// # Ok::<(), bild::LoadError>(())
/// ```
#[derive(Clone)]
pub struct LoadOptions {
    pub(crate) precision: Precision,
    pub(crate) threads: Threads,
    pub(crate) shortlist: Option<Arc<Shortlist>>,
    pub(crate) self_test: bool,
    pub(crate) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

/// How far the loading of a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Weights that are read.
    pub done: u64,
    /// All weights that will be read, up to those that are left out.
    pub total: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let (precision, threads) = (Precision::default(), Threads::default());
        Self { precision, threads, shortlist: None, self_test: true, progress: None }
    }
}

impl LoadOptions {
    /// How weights are held; [`Precision::F32`] unless said otherwise.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The threads to compute with; see [`Threads`] for those it has otherwise.
    pub fn with_threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// The tokens that the model scores when it drafts; all of them unless a list is given. Where it verifies it scores all the same.
    pub fn with_shortlist(mut self, list: impl Into<Arc<Shortlist>>) -> Self {
        self.shortlist = Some(list.into());
        self
    }

    /// Whether a model on another backend than `Flex` is tried when it is loaded, which is so unless it is turned off: a pass of
    /// three tokens must be what three passes of one are. It costs some milliseconds, beside the compiling of kernels that the
    /// first generation would wait for.
    pub fn with_self_test(mut self, is_on: bool) -> Self {
        self.self_test = is_on;
        self
    }

    /// Refuses a list that is not for a vocabulary of so many tokens.
    pub(crate) fn check_shortlist(&self, vocabulary: usize) -> Result<(), LoadError> {
        self.shortlist.as_ref().map_or(Ok(()), |list| list.check(vocabulary))
    }

    /// Calls `progress` after each tensor that was read, from any thread.
    pub fn with_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { precision, threads, shortlist, self_test, progress } = self;
        f.debug_struct("LoadOptions")
            .field("precision", precision)
            .field("threads", threads)
            .field("shortlist", &shortlist.is_some())
            .field("self_test", self_test)
            .field("progress", &progress.is_some())
            .finish()
    }
}
