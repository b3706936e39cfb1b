use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many bytes generations at once may take.
pub(crate) struct Budget {
    bytes: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// A part of it, until it is dropped.
pub(crate) struct Lease<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// A part of it; nothing if it is not free, unless the thread has nothing else to do than to `wait` until it is. No more than
    /// all of it is ever asked for.
    pub(crate) fn take(&self, bytes: u64, wait: bool) -> Option<Lease<'_>> {
        let bytes = bytes.min(self.bytes);
        let mut used = self.lock();
        while *used > self.bytes - bytes {
            if !wait {
                return None;
            }
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Some(Lease { budget: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        *self.budget.lock() -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn what_is_not_free_is_waited_for() {
        let budget = Budget::new(10);
        let six = budget.take(6, false).unwrap();
        assert!(budget.take(5, false).is_none());
        let four = budget.take(4, false).unwrap();
        drop(six);
        thread::scope(|scope| {
            // More than there is, is all of it.
            let all = scope.spawn(|| budget.take(99, true).map(|lease| lease.bytes));
            thread::sleep(Duration::from_millis(20));
            assert!(!all.is_finished());
            drop(four);
            assert_eq!(all.join().unwrap(), Some(10));
        });
        assert_eq!(*budget.lock(), 0);
    }
}
