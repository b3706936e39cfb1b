use std::{any::Any, fmt, sync::Arc};

use crate::{Pair, PairSession, Pass, Result, Rows, SessionLimit, Source, Vocabulary};

/// A pair of whatever type, so that a program has one type for all that it may be given; made by [`Pair::boxed`]. Cheap to
/// clone.
pub type BoxedPair = Arc<dyn Pair<Session = BoxedSession>>;

/// One generation's state of a [`BoxedPair`].
pub struct BoxedSession(Box<dyn AnySession>);

/// A session that the pair which made it knows again.
trait AnySession: PairSession + Any {}

impl<S: PairSession + 'static> AnySession for S {}

impl PairSession for BoxedSession {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.0.pass(pass)
    }
}

/// A pair whose sessions have no type of their own.
pub(crate) struct Boxed<P>(pub(crate) P);

impl<P: Pair<Session: 'static>> Pair for Boxed<P> {
    type Session = BoxedSession;

    fn vocabulary(&self) -> &Vocabulary {
        self.0.vocabulary()
    }

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok(BoxedSession(Box::new(self.0.begin(source, limit)?)))
    }

    fn most_drafts(&self) -> usize {
        self.0.most_drafts()
    }

    fn pass_all(&self, passes: &mut [(&mut BoxedSession, Pass<'_>)]) -> Vec<Result<Rows>> {
        let own = passes.iter_mut().map(|(session, pass)| {
            let session: &mut dyn Any = &mut *session.0;
            (session.downcast_mut().expect("it was begun by a pair of this type"), *pass)
        });
        self.0.pass_all(&mut own.collect::<Vec<_>>())
    }

    fn batch_size(&self) -> usize {
        self.0.batch_size()
    }

    fn passes_at_once(&self) -> usize {
        self.0.passes_at_once()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.0.bytes_for(source, tokens)
    }
}

impl fmt::Debug for BoxedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedSession").finish_non_exhaustive()
    }
}

impl fmt::Debug for dyn Pair<Session = BoxedSession> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedPair").field("vocabulary", self.vocabulary()).finish_non_exhaustive()
    }
}
