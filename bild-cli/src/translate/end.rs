//! What ends a run, where lines are read in one thread and written in another.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::Error;

#[derive(Default)]
pub(super) struct End {
    /// Whether nothing more is to be read or written.
    closed: AtomicBool,
    failed: Mutex<Option<Error>>,
}

impl End {
    /// The line that was read, unless it could not be or is no longer wanted. What came before one that cannot be read is still written.
    pub(super) fn unless(&self, line: Result<String, Error>) -> Option<String> {
        match line {
            Ok(line) => (!self.is_closed()).then_some(line),
            Err(error) => {
                self.keep(error);
                None
            }
        }
    }

    /// A line was written, or could not be.
    pub(super) fn after(&self, written: Result<(), Error>, has_reader: bool) {
        let failed = written.is_err();
        written.unwrap_or_else(|error| self.keep(error));
        if failed || !has_reader {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The first error counts.
    fn keep(&self, error: Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(super) fn result(self) -> Result<(), Error> {
        self.failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
