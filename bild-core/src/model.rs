use crate::{Or, Pass, Result, Rows, SessionLimit, Source, Vocabulary, caught};

/// What a [`DraftModel`] and a [`VerifierModel`] have in common.
///
/// The model is immutable and shared; what one generation needs lives in the session that [`begin`](Self::begin) makes.
pub trait Model: Send + Sync {
    /// What one generation needs.
    type Session: Send;

    /// Begins a session, which will hold at most `limit.tokens` tokens. What takes long, as an encoder, waits for the first pass:
    /// a policy may never ask for one.
    ///
    /// # Errors
    ///
    /// If the source cannot be read, or the model fails; [`Error::Interrupted`](crate::Error::Interrupted) if `limit` says
    /// so.
    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session>;

    /// About how many bytes one generation takes, of so many tokens in the source and at most so many in the session (the
    /// decoder's start token included): its caches, and what reading the source needs meanwhile. 0 if that is next to nothing.
    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        let _ = (source, tokens);
        0
    }

    /// The passes of how many sessions it computes in less time together than one after the other; 1 if that makes no
    /// difference to it.
    fn batch_size(&self) -> usize {
        1
    }

    /// How many passes it computes at a time, each by a share of its threads, where several threads ask it for some.
    fn passes_at_once(&self) -> usize {
        1
    }
}

/// A model that proposes tokens, one at a time or a few in one pass.
///
/// A draft model need not be a neural network. This one proposes what followed the same token in the source:
///
/// ```
/// use bild::decode::{DraftModel, DraftSession, Model, Pass, Result, Row, Rows, SessionLimit, Source, Token, Want};
///
/// struct Lookup;
///
/// struct LookupSession {
///     source: Source,
///     tokens: Vec<Token>,
/// }
///
/// impl Model for Lookup {
///     type Session = LookupSession;
///
///     fn begin(&self, source: &Source, _limit: &SessionLimit) -> Result<LookupSession> {
///         Ok(LookupSession { source: source.clone(), tokens: Vec::new() })
///     }
/// }
///
/// impl DraftModel for Lookup {}
///
/// impl DraftSession for LookupSession {
///     fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
///         self.tokens.truncate(pass.keep);
///         self.tokens.extend_from_slice(pass.new);
///         let last = self.tokens.last();
///         let found = self.source.tokens().windows(2).find(|pair| Some(&pair[0]) == last);
///         Ok(found.map(|pair| Row::certain(pair[1])).into())
///     }
/// }
///
/// let mut session = Lookup.begin(&Source::new([5, 6, 7]), &SessionLimit::new(10))?;
/// assert_eq!(session.propose(&Pass::draft(0, &[0, 6], Want::default()))?[0].argmax, 7);
/// assert!(session.propose(&Pass::draft(2, &[9], Want::default()))?.is_empty());
/// assert_eq!(session.propose(&Pass::draft(2, &[5], Want::default()))?[0].argmax, 6, "the 9 is forgotten");
/// # Ok::<(), bild::Error>(())
/// ```
pub trait DraftModel: Model<Session: DraftSession> {
    /// The tokens it speaks, for the pair to be checked; `None` if it copies tokens without knowing them.
    fn speaks(&self) -> Option<&Vocabulary> {
        None
    }

    /// Whether it speaks the tokens of a verifier.
    ///
    /// # Errors
    ///
    /// [`Error::PairMismatch`](crate::Error::PairMismatch) if it does not.
    fn check(&self, verifier: &Vocabulary) -> Result<()> {
        self.speaks().map_or(Ok(()), |draft| draft.check_same(verifier))
    }

    /// The most drafts that a pass can return: more than one where the model goes on from its own most likely tokens for less than
    /// another pass costs, as on a device whose numbers take time to be read.
    fn most_drafts(&self) -> usize {
        1
    }

    /// Has passes of several sessions made, each as [`propose`](DraftSession::propose) would, and returns what each gave, in their
    /// order. Unless a model has a better way, that is one after the other; one that fails or panics leaves the others as they are.
    fn propose_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        passes.iter_mut().map(|(session, pass)| caught(|| session.propose(pass))).collect()
    }

    /// Lets `second` draft where this model has nothing to propose: another draft model, or a pair that drafts by itself.
    ///
    /// ```
    /// use bild::{Checkpoint, Flex, T5, decode::DraftModel, models::NgramLookup};
    ///
    /// # fn pair() -> Result<(), Box<dyn std::error::Error>> {
    /// let load = |path| T5::<Flex>::load(&Checkpoint::open(path)?, &Default::default());
    /// let pair = (NgramLookup::default().or(load("little")?), load("big")?);
    /// # Ok(())
    /// # }
    /// ```
    fn or<S>(self, second: S) -> Or<Self, S>
    where
        Self: Sized,
    {
        Or::new(self, second)
    }
}

/// One generation's state of a [`DraftModel`].
pub trait DraftSession: Send {
    /// Forgets all but the first [`Pass::keep`] tokens it was given, in O(1), takes in the new ones, and proposes what comes
    /// next: one row, more where it can and [`Pass::most`] asks for them, or none. The first pass begins with the decoder's
    /// start token; a later one has one new token, two after a full draft was accepted, or more where the verifier has written
    /// several in a row.
    ///
    /// # Errors
    ///
    /// If a token is not one of the vocabulary, or the source cannot be read, or the model fails.
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows>;
}

/// A model that scores many tokens in one pass.
///
/// One that is given the same tokens in one pass or in many must return the same rows, up to rounding; if exactly, then a
/// lossless policy writes exactly what the model alone writes.
///
/// This one always counts upwards:
///
/// ```
/// use bild::decode::{Model, Pass, Result, Row, Rows, SessionLimit, Source, Token, VerifierModel, VerifierSession, Vocabulary, Want};
///
/// struct Counter(Vocabulary);
///
/// struct CounterSession;
///
/// impl Model for Counter {
///     type Session = CounterSession;
///
///     fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<CounterSession> {
///         Ok(CounterSession)
///     }
/// }
///
/// impl VerifierModel for Counter {
///     fn vocabulary(&self) -> &Vocabulary {
///         &self.0
///     }
/// }
///
/// impl VerifierSession for CounterSession {
///     fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
///         let Pass { new, want, .. } = *pass;
///         let logits = |token: Token| std::array::from_fn::<f32, 10, _>(|i| if i as Token == token + 1 { 9.0 } else { 0.0 });
///         let following = |i: usize| new.get(i + 1).copied();
///         new.iter().enumerate().map(|(i, &token)| Row::from_logits(&logits(token), want, following(i))).collect()
///     }
/// }
///
/// let counter = Counter(Vocabulary::new(10, 0, [9]));
/// let rows = counter.begin(&Source::new([1]), &SessionLimit::new(10))?.score(&Pass::verify(0, &[0, 1, 2], Want::default()))?;
/// assert_eq!(rows.iter().map(|row| row.argmax).collect::<Vec<_>>(), [1, 2, 3]);
/// # Ok::<(), bild::Error>(())
/// ```
pub trait VerifierModel: Model<Session: VerifierSession> {
    /// The tokens it speaks, with the one that a decoder starts from and those that end a sequence.
    fn vocabulary(&self) -> &Vocabulary;

    /// Has passes of several sessions made, each as [`score`](VerifierSession::score) would, and returns what each gave, in their
    /// order. Unless a model has a better way, that is one after the other; one that fails or panics leaves the others as they are.
    ///
    /// What a session is given must not depend on the others: then a generation among many writes what it writes alone.
    fn score_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        passes.iter_mut().map(|(session, pass)| caught(|| session.score(pass))).collect()
    }
}

/// One generation's state of a [`VerifierModel`].
pub trait VerifierSession: Send {
    /// Forgets all but the first [`Pass::keep`] tokens it was given, in O(1), takes in the k + 1 new ones, and returns k + 1
    /// rows: one after each of them, of which the last is what comes next. The draft that follows row i is `pass.new[i + 1]`.
    /// The first pass begins with the decoder's start token.
    ///
    /// # Errors
    ///
    /// If a token is not one of the vocabulary, or the source cannot be read, or the model fails.
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows>;
}

/// The draft model that never proposes: `(NoDraft, model)` decodes with `model` alone, through the same loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoDraft;

impl Model for NoDraft {
    type Session = NoDraft;

    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<NoDraft> {
        Ok(NoDraft)
    }
}

impl DraftModel for NoDraft {}

impl DraftSession for NoDraft {
    fn propose(&mut self, _pass: &Pass<'_>) -> Result<Rows> {
        Ok(Rows::default())
    }
}
