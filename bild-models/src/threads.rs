use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{LoadError, Result};

/// The threads that models on `Flex` compute with. Clones share them; so should the models of a pair, which never compute at the same
/// time for one generation.
///
/// The default is one pool for the whole process, with a thread for each physical core. Any number of generations may use the
/// same threads: each pass goes to one of them, and idle ones help it. So as many generations as there are threads run side
/// by side, each alone on its core, and a lone one has them all. Other backends have threads of their own and do not look at these.
#[derive(Clone)]
pub struct Threads(Option<Arc<ThreadPool>>);

impl Threads {
    /// So many threads; with one, models compute in the thread that asks them.
    ///
    /// # Errors
    ///
    /// If `count` is 0, or the system refuses to start so many.
    pub fn new(count: usize) -> Result<Self> {
        let error = |reason: String| LoadError::Threads { count, reason };
        match count {
            0 => Err(error("there must be at least one".into())),
            1 => Ok(Self(None)),
            _ => {
                let builder = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("bild-{i}"));
                let pool = builder.build().map_err(|reason| error(reason.to_string()))?;
                Ok(Self(Some(Arc::new(pool))))
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Computes in one of the threads with the others at hand, if there is so much to do (multiplications, or bytes to
    /// read) that it is worth going there; else here.
    #[cfg(feature = "flex")]
    pub(crate) fn run<R: Send>(&self, work: usize, compute: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            // Going there and back takes some 20 µs.
            Some(pool) if work >= 1 << 23 => pool.install(compute),
            _ => compute(),
        }
    }

    /// Computes two things, at once if there are two threads.
    #[cfg(feature = "flex")]
    pub(crate) fn both<X: Send, Y: Send>(&self, x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
        match &self.0 {
            Some(pool) => pool.join(x, y),
            None => (x(), y()),
        }
    }
}

impl Default for Threads {
    fn default() -> Self {
        static SHARED: LazyLock<Threads> = LazyLock::new(|| {
            let available = std::thread::available_parallelism().map_or(1, usize::from);
            let cores = sysinfo::System::physical_core_count().unwrap_or(available);
            Threads::new(cores.clamp(1, available)).unwrap_or(Threads(None))
        });
        SHARED.clone()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("count", &self.count()).finish()
    }
}
