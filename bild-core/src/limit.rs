use std::time::{Duration, Instant};

use crate::{CancelToken, Error, Finish, Result, Settings};

/// How far a session may go.
///
/// A model lays its cache out for [`tokens`](Self::tokens), and calls [`check`](Self::check) now and then while it does
/// something long, as between the layers of an encoder, so that a generation that nobody waits for any more ends.
///
/// ```
/// use bild_core::SessionLimit;
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
}

impl SessionLimit {
    /// So many tokens, and all the time in the world.
    pub fn new(tokens: usize) -> Self {
        Self { tokens, interrupt: Interrupt { begun: Instant::now(), deadline: None, cancel: None } }
    }

    pub(crate) fn of(settings: &Settings, interrupt: Interrupt) -> Self {
        Self { tokens: settings.max_new_tokens + 1, interrupt }
    }

    /// Whether the generation may go on.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if it was cancelled or its deadline passed.
    pub fn check(&self) -> Result<()> {
        self.interrupt.interrupted().map_or(Ok(()), |finish| Err(Error::Interrupted(finish)))
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
    pub(crate) fn interrupted(&self) -> Option<Finish> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            Some(Finish::Cancelled)
        } else {
            self.deadline.is_some_and(|deadline| self.begun.elapsed() >= deadline).then_some(Finish::Deadline)
        }
    }
}
