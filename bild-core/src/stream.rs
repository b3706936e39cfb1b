use std::{fmt, time::Instant};

use tracing::trace_span;

use crate::{Event, Generation, Output, Pair, PairSession, Result, Role};

/// Drives one [`Generation`] with the session of a pair, as an iterator of [`Event`]s.
///
/// Each step is one pass of one model. The iterator ends after [`Event::Finished`] or after an error;
/// [`finish`](Self::finish) runs it to the end and returns the [`Output`], [`stop`](Self::stop) ends it with what there is.
pub struct EventStream<S> {
    generation: Generation,
    /// Nothing if the generation was interrupted before it had one.
    session: Option<S>,
}

impl<S: PairSession> EventStream<S> {
    pub(crate) fn begin<P: Pair<Session = S>>(pair: &P, mut generation: Generation) -> Result<Self> {
        let session = generation.begin(pair)?;
        Ok(Self { generation, session })
    }

    /// Has the pass made that the generation waits for. Returns whether there was one.
    fn step(&mut self) -> Result<bool> {
        let (Some(session), Some(pass)) = (&mut self.session, self.generation.pass()) else { return Ok(false) };
        let (role, at, new) = (pass.role, pass.keep, pass.new.len());
        let span = match role {
            Role::Draft => trace_span!("draft", at, new),
            Role::Verifier => trace_span!("verify", at, new),
        };
        let begun = Instant::now();
        let rows = span.in_scope(|| session.pass(&pass));
        self.generation.add_time(role, begun.elapsed());
        self.generation.take(rows)?;
        Ok(true)
    }

    /// Runs to the end and returns what was written; events that were not taken are passed over.
    ///
    /// # Errors
    ///
    /// If a model or the policy fails; [`Error::AlreadyFailed`](crate::Error::AlreadyFailed) if the iterator has returned that
    /// error before.
    pub fn finish(mut self) -> Result<Output> {
        self.generation.without_events();
        while self.step()? {}
        self.generation.into_output()
    }

    /// Ends the generation now and returns what is committed, with [`Finish::Stopped`](crate::Finish::Stopped); drafts that were
    /// not verified are left out.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyFailed`](crate::Error::AlreadyFailed) if the iterator has returned an error.
    pub fn stop(self) -> Result<Output> {
        self.generation.into_output()
    }

    /// Ends the generation now, with [`Finish::Stopped`](crate::Finish::Stopped); events that were not taken are still to come.
    #[doc(hidden)]
    pub fn end(&mut self) {
        self.generation.end();
    }

    /// Ends the generation after the first `tokens` committed tokens, for a reason of the caller's, and returns them as the
    /// output with [`Finish::Stopped`](crate::Finish::Stopped). A verifier pass may have committed more than the caller has
    /// looked at; those are left out.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyFailed`](crate::Error::AlreadyFailed) if the iterator has returned an error.
    pub fn stop_after(mut self, tokens: usize) -> Result<Output> {
        self.generation.stop_after(tokens);
        self.generation.into_output()
    }
}

impl<S: PairSession> Iterator for EventStream<S> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.generation.next_event() {
                return Some(Ok(event));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return self.generation.next_event().map(Ok),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<S> fmt::Debug for EventStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("generation", &self.generation).finish_non_exhaustive()
    }
}
