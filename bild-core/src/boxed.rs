use std::{fmt, sync::Arc};

use crate::{Pair, PairSession, Result, SessionLimit, Source, Vocabulary};

/// A pair of whatever type, so that a program has one type for all that it may be given; made by [`Pair::boxed`]. Cheap to
/// clone.
#[derive(Clone)]
pub struct BoxedPair(Arc<dyn Erased>);

/// [`Pair`] with sessions of any type.
trait Erased: Send + Sync {
    fn vocabulary(&self) -> &Vocabulary;
    fn check(&self) -> Result<()>;
    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Box<dyn PairSession>>;
    fn most_drafts(&self) -> usize;
    fn bytes_for(&self, source: usize, tokens: usize) -> u64;
}

impl<P: Pair<Session: 'static>> Erased for P {
    fn vocabulary(&self) -> &Vocabulary {
        Pair::vocabulary(self)
    }

    fn check(&self) -> Result<()> {
        Pair::check(self)
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Box<dyn PairSession>> {
        Ok(Box::new(Pair::begin(self, source, limit)?))
    }

    fn most_drafts(&self) -> usize {
        Pair::most_drafts(self)
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        Pair::bytes_for(self, source, tokens)
    }
}

impl BoxedPair {
    pub(crate) fn new(pair: impl Pair<Session: 'static> + 'static) -> Self {
        Self(Arc::new(pair))
    }
}

impl Pair for BoxedPair {
    type Session = Box<dyn PairSession>;

    fn vocabulary(&self) -> &Vocabulary {
        Erased::vocabulary(&*self.0)
    }

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        self.0.begin(source, limit)
    }

    fn most_drafts(&self) -> usize {
        self.0.most_drafts()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.0.bytes_for(source, tokens)
    }
}

impl fmt::Debug for BoxedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedPair").field("vocabulary", Pair::vocabulary(self)).finish_non_exhaustive()
    }
}
