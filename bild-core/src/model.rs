use crate::{Result, Row, SessionLimit, Source, Token, Vocabulary, Want};

/// A model that proposes tokens one at a time.
///
/// The model is immutable and shared; what one generation needs lives in the session that [`begin`](Self::begin) makes.
///
/// A draft model need not be a neural network. This one proposes what followed the same token in the source:
///
/// ```
/// use bild_core::{DraftModel, DraftSession, Result, Row, SessionLimit, Source, Token, Want};
///
/// struct Lookup;
///
/// struct LookupSession {
///     source: Source,
///     tokens: Vec<Token>,
/// }
///
/// impl DraftModel for Lookup {
///     type Session = LookupSession;
///
///     fn begin(&self, source: &Source, _limit: &SessionLimit) -> Result<LookupSession> {
///         Ok(LookupSession { source: source.clone(), tokens: Vec::new() })
///     }
/// }
///
/// impl DraftSession for LookupSession {
///     fn propose(&mut self, new: &[Token], _want: Want) -> Result<Option<Row>> {
///         self.tokens.extend_from_slice(new);
///         let last = self.tokens.last();
///         let found = self.source.tokens().windows(2).find(|pair| Some(&pair[0]) == last);
///         Ok(found.map(|pair| Row::certain(pair[1])))
///     }
///
///     fn truncate(&mut self, length: usize) {
///         self.tokens.truncate(length);
///     }
/// }
///
/// let mut session = Lookup.begin(&Source::new([5, 6, 7]), &SessionLimit::new(10))?;
/// assert_eq!(session.propose(&[0, 6], Want::default())?.unwrap().argmax, 7);
/// assert!(session.propose(&[9], Want::default())?.is_none());
/// session.truncate(2); // forgets the 9
/// # Ok::<(), bild_core::Error>(())
/// ```
pub trait DraftModel: Send + Sync {
    /// What one generation needs.
    type Session: DraftSession;

    /// The tokens it speaks, for the pair to be checked; `None` if it copies tokens without knowing them.
    fn vocabulary(&self) -> Option<&Vocabulary> {
        None
    }

    /// Reads the source. The session will hold at most `limit.tokens` tokens.
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
}

/// One generation's state of a [`DraftModel`].
pub trait DraftSession: Send {
    /// Takes in the tokens it has not seen and proposes the next one, or nothing. The first call begins with the
    /// decoder's start token; a later one has one token, two after a full draft was accepted, or more where the verifier
    /// has written several in a row.
    ///
    /// # Errors
    ///
    /// If a token is not one of the vocabulary, or the model fails.
    fn propose(&mut self, new: &[Token], want: Want) -> Result<Option<Row>>;

    /// Does what can wait until the first proposal, as reading the source: a policy may never ask for one. Called once, before
    /// the first [`propose`](Self::propose), and counted as encoding.
    ///
    /// # Errors
    ///
    /// If the source cannot be read, or the model fails.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Forgets all but the first `length` tokens it was given, in O(1); does nothing if there are no more.
    fn truncate(&mut self, length: usize);
}

/// A model that scores many tokens in one pass.
///
/// The model is immutable and shared; what one generation needs lives in the session that [`begin`](Self::begin) makes.
/// One that is given the same tokens in one pass or in many must return the same rows, up to rounding; if exactly, then a
/// lossless policy writes exactly what the model alone writes.
///
/// This one always counts upwards:
///
/// ```
/// use bild_core::{Result, Row, SessionLimit, Source, Token, VerifierModel, VerifierSession, Vocabulary, Want};
///
/// struct Counter(Vocabulary);
///
/// struct CounterSession;
///
/// impl VerifierModel for Counter {
///     type Session = CounterSession;
///
///     fn vocabulary(&self) -> &Vocabulary {
///         &self.0
///     }
///
///     fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<CounterSession> {
///         Ok(CounterSession)
///     }
/// }
///
/// impl VerifierSession for CounterSession {
///     fn score(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>> {
///         let logits = |token: Token| std::array::from_fn::<f32, 10, _>(|i| if i as Token == token + 1 { 9.0 } else { 0.0 });
///         let following = |i: usize| new.get(i + 1).copied();
///         new.iter().enumerate().map(|(i, &token)| Row::from_logits(&logits(token), want, following(i))).collect()
///     }
///
///     fn truncate(&mut self, _length: usize) {}
/// }
///
/// let counter = Counter(Vocabulary { size: 10, start: 0, end: vec![9], pieces: None });
/// let rows = counter.begin(&Source::new([1]), &SessionLimit::new(10))?.score(&[0, 1, 2], Want::default())?;
/// assert_eq!(rows.iter().map(|row| row.argmax).collect::<Vec<_>>(), [1, 2, 3]);
/// # Ok::<(), bild_core::Error>(())
/// ```
pub trait VerifierModel: Send + Sync {
    /// What one generation needs.
    type Session: VerifierSession;

    /// The tokens it speaks, with the one that a decoder starts from and those that end a sequence.
    fn vocabulary(&self) -> &Vocabulary;

    /// Reads the source. The session will hold at most `limit.tokens` tokens.
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
}

/// One generation's state of a [`VerifierModel`].
pub trait VerifierSession: Send {
    /// Takes in `new`, the k + 1 tokens it has not seen, and returns k + 1 rows: one after each of them, of which the
    /// last is what comes next. The draft that follows row i is `new[i + 1]`. The first call begins with the decoder's
    /// start token.
    ///
    /// # Errors
    ///
    /// If a token is not one of the vocabulary, or the model fails.
    fn score(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>>;

    /// Forgets all but the first `length` tokens it was given, in O(1); does nothing if there are no more.
    fn truncate(&mut self, length: usize);
}

/// The draft model that never proposes: `(NoDraft, model)` decodes with `model` alone, through the same loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoDraft;

impl DraftModel for NoDraft {
    type Session = NoDraft;

    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<NoDraft> {
        Ok(NoDraft)
    }
}

impl DraftSession for NoDraft {
    fn propose(&mut self, _new: &[Token], _want: Want) -> Result<Option<Row>> {
        Ok(None)
    }

    fn truncate(&mut self, _length: usize) {}
}
