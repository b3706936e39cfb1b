use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Generation, Pair};

/// How often a thread that waits for memory and has nothing else to do looks whether it is still wanted.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

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

    /// What a generation needs, as [`take`](Self::take). One whose time is up, or that nobody wants any more, needs no memory to be told so.
    pub(crate) fn lease(&self, pair: &impl Pair, generation: &mut Generation, wait: Duration) -> Option<Lease<'_>> {
        let bytes = match generation.pass() {
            Some(_) => pair.bytes_for(generation.source().tokens().len(), generation.limit().tokens),
            None => 0,
        };
        self.take(bytes, wait)
    }

    /// A part of it; nothing if it is not free before the thread has waited for so long. No more than all of it is ever asked for.
    pub(crate) fn take(&self, bytes: u64, wait: Duration) -> Option<Lease<'_>> {
        let bytes = bytes.min(self.bytes);
        let too_much = |used: &mut u64| *used > self.bytes - bytes;
        let waited = self.freed.wait_timeout_while(self.lock(), wait, too_much);
        let (mut used, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return None;
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
    use std::thread;

    use super::*;

    #[test]
    fn what_is_not_free_is_waited_for() {
        let budget = Budget::new(10);
        let six = budget.take(6, Duration::ZERO).unwrap();
        assert!(budget.take(5, Duration::ZERO).is_none());
        let four = budget.take(4, Duration::ZERO).unwrap();
        drop(six);
        thread::scope(|scope| {
            // More than there is, is all of it.
            let all = scope.spawn(|| budget.take(99, Duration::from_secs(20)).map(|lease| lease.bytes));
            thread::sleep(Duration::from_millis(20));
            assert!(!all.is_finished());
            drop(four);
            assert_eq!(all.join().unwrap(), Some(10));
        });
        assert_eq!(*budget.lock(), 0);
    }
}
