//! A pair that can be told to begin nothing more.

use bild::{
    CancelToken, Error,
    decode::{BoxedPair, BoxedSession, Pair, Pass, Result, Rows, SessionLimit, Source, Vocabulary},
};

/// A pair that fails at the next source once its token is cancelled. What measures it ends with that error, wherever it is; a
/// generation that is cancelled would be an output like any other, and be measured.
pub(super) struct Stoppable {
    pub(super) pair: BoxedPair,
    pub(super) stop: CancelToken,
}

impl Pair for Stoppable {
    type Session = BoxedSession;

    fn vocabulary(&self) -> &Vocabulary {
        self.pair.vocabulary()
    }

    fn check(&self) -> Result<()> {
        self.pair.check()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<BoxedSession> {
        if self.stop.is_cancelled() {
            return Err(Error::model("it was stopped"));
        }
        self.pair.begin(source, limit)
    }

    fn most_drafts(&self) -> usize {
        self.pair.most_drafts()
    }

    fn pass_all(&self, passes: &mut [(&mut BoxedSession, Pass<'_>)]) -> Vec<Result<Rows>> {
        self.pair.pass_all(passes)
    }

    fn batch_size(&self) -> usize {
        self.pair.batch_size()
    }

    fn passes_at_once(&self) -> usize {
        self.pair.passes_at_once()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.pair.bytes_for(source, tokens)
    }
}
