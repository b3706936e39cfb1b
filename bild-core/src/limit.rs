use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{CancelToken, Error, Finish, Result};

/// How far a session may go.
///
/// A model lays its cache out for [`tokens`](Self::tokens), and calls [`check`](Self::check) now and then while it does
/// something long, as between the layers of an encoder, so that a generation that nobody waits for any more ends.
///
/// ```
/// use bild::decode::SessionLimit;
///
/// let limit = SessionLimit::new(65);
/// assert_eq!(limit.tokens, 65);
/// assert!(limit.check().is_ok(), "it has neither a deadline nor a token to cancel it by");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionLimit {
    /// The most tokens that the session will hold, the decoder's start token included.
    pub tokens: usize,
    interrupt: Interrupt,
    /// The time that went into reading the source, in nanoseconds.
    reading: Arc<AtomicU64>,
}

impl SessionLimit {
    /// So many tokens, and all the time in the world.
    pub fn new(tokens: usize) -> Self {
        Self {
            tokens,
            interrupt: Interrupt { begun: Instant::now(), deadline: None, cancel: None },
            reading: Arc::default(),
        }
    }

    pub(crate) fn of(max_new_tokens: usize, interrupt: Interrupt) -> Self {
        Self { tokens: max_new_tokens + 1, interrupt, reading: Arc::default() }
    }

    /// Reads the source, in the span `encode`, and counts the time: it is [`Statistics::encode_time`](crate::Statistics) and not
    /// that of the pass that waits for it.
    pub fn reading<R>(&self, read: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let read = tracing::trace_span!("encode").in_scope(read);
        self.add_reading_time(begun.elapsed());
        read
    }

    /// Counts time as [`reading`](Self::reading) does, where several sources were read together: the share of this one.
    pub fn add_reading_time(&self, share: Duration) {
        self.reading.fetch_add(share.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The time counted by [`reading`](Self::reading) since this was asked last, by the session or a clone of its limit.
    #[inline]
    pub fn take_reading_time(&self) -> Duration {
        // Nearly every pass has nothing to count, and to look costs less than to swap.
        match self.reading.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(self.reading.swap(0, Ordering::Relaxed)),
        }
    }

    /// Why the generation has to end, if it has.
    #[inline]
    pub(crate) fn interrupted(&self) -> Option<Finish> {
        self.interrupt.interrupted()
    }

    /// Whether the generation may go on.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if it was cancelled or its deadline passed.
    pub fn check(&self) -> Result<()> {
        self.interrupted().map_or(Ok(()), |finish| Err(Error::Interrupted(finish)))
    }
}

/// What ends a generation from outside.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    pub(crate) begun: Instant,
    pub(crate) deadline: Option<Duration>,
    pub(crate) cancel: Option<CancelToken>,
}

impl Interrupt {
    #[inline]
    pub(crate) fn interrupted(&self) -> Option<Finish> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            Some(Finish::Cancelled)
        } else {
            self.deadline.is_some_and(|deadline| self.begun.elapsed() >= deadline).then_some(Finish::Deadline)
        }
    }
}
