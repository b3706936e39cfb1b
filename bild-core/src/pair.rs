use std::sync::Arc;

use crate::{
    BoxedPair, DraftModel, DraftSession, Pass, Result, Role, Rows, SessionLimit, Source, VerifierModel,
    VerifierSession, Vocabulary, boxed::Boxed, caught,
};

/// Two models that decode together, seen as one.
///
/// Any `(draft, verifier)` is a pair, `(NoDraft, verifier)` too. A model that drafts with a part of itself is one by
/// itself, because one session then holds the state that both roles share.
pub trait Pair: Send + Sync {
    /// What one generation needs.
    type Session: PairSession;

    /// The vocabulary of the verifier.
    fn vocabulary(&self) -> &Vocabulary;

    /// Whether the two models speak the same tokens; looked at once, when a [`Generator`](crate::Generator) is made.
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`](crate::Error::PairMismatch) if they do not.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Reads the source. The session will hold at most `limit.tokens` tokens.
    ///
    /// # Errors
    ///
    /// If the source cannot be read, or a model fails; [`Error::Interrupted`](crate::Error::Interrupted) if `limit` says so.
    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session>;

    /// The most drafts that a pass of the draft model can return.
    fn most_drafts(&self) -> usize {
        1
    }

    /// Has passes of several sessions made, all of one role, each as [`PairSession::pass`] would, and returns what each gave, in
    /// their order. Unless a pair has a better way, that is one after the other.
    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        passes.iter_mut().map(|(session, pass)| caught(|| session.pass(pass))).collect()
    }

    /// As [`Model::batch_size`](crate::Model::batch_size), of the verifier.
    fn batch_size(&self) -> usize {
        1
    }

    /// As [`Model::passes_at_once`](crate::Model::passes_at_once), of the verifier.
    fn passes_at_once(&self) -> usize {
        1
    }

    /// The same pair without its type, for a program that chooses at run time.
    fn boxed(self) -> BoxedPair
    where
        Self: Sized + 'static,
        Self::Session: 'static,
    {
        Arc::new(Boxed(self))
    }

    /// As [`Model::bytes_for`](crate::Model::bytes_for), of both models.
    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        let _ = (source, tokens);
        0
    }
}

/// One generation's state of a [`Pair`]. The two roles take in tokens, and forget them, independently of each other.
pub trait PairSession: Send {
    /// Carries out a pass: as [`DraftSession::propose`] or [`VerifierSession::score`], by its [`role`](Pass::role).
    ///
    /// # Errors
    ///
    /// As theirs.
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows>;
}

impl<D: DraftModel, V: VerifierModel> Pair for (D, V) {
    type Session = (D::Session, V::Session);

    fn vocabulary(&self) -> &Vocabulary {
        self.1.vocabulary()
    }

    fn check(&self) -> Result<()> {
        self.0.check(self.1.vocabulary())
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok((self.0.begin(source, limit)?, self.1.begin(source, limit)?))
    }

    fn most_drafts(&self) -> usize {
        self.0.most_drafts()
    }

    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        let drafts = passes.first().is_some_and(|(_, pass)| pass.role == Role::Draft);
        if drafts {
            self.0
                .propose_all(&mut passes.iter_mut().map(|(session, pass)| (&mut session.0, *pass)).collect::<Vec<_>>())
        } else {
            self.1.score_all(&mut passes.iter_mut().map(|(session, pass)| (&mut session.1, *pass)).collect::<Vec<_>>())
        }
    }

    fn batch_size(&self) -> usize {
        self.1.batch_size()
    }

    fn passes_at_once(&self) -> usize {
        self.1.passes_at_once()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.0.bytes_for(source, tokens).saturating_add(self.1.bytes_for(source, tokens))
    }
}

impl<D: DraftSession, V: VerifierSession> PairSession for (D, V) {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        match pass.role {
            Role::Draft => self.0.propose(pass),
            Role::Verifier => self.1.score(pass),
        }
    }
}
