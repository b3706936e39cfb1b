use std::{fmt, sync::Arc};

use crate::{Pair, PairSession, Result, SessionLimit, Source, Vocabulary};

/// A pair of whatever type, so that a program has one type for all that it may be given; made by [`Pair::boxed`]. Cheap to
/// clone.
pub type BoxedPair = Arc<dyn Pair<Session = Box<dyn PairSession>>>;

/// A pair whose sessions have no type of their own.
pub(crate) struct Boxed<P>(pub(crate) P);

impl<P: Pair<Session: 'static>> Pair for Boxed<P> {
    type Session = Box<dyn PairSession>;

    fn vocabulary(&self) -> &Vocabulary {
        self.0.vocabulary()
    }

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok(Box::new(self.0.begin(source, limit)?))
    }

    fn most_drafts(&self) -> usize {
        self.0.most_drafts()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.0.bytes_for(source, tokens)
    }
}

impl fmt::Debug for dyn Pair<Session = Box<dyn PairSession>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedPair").field("vocabulary", self.vocabulary()).finish_non_exhaustive()
    }
}
