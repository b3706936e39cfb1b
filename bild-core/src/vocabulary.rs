use std::{fmt, sync::Arc};

use crate::{Error, Result, Token};

/// The tokens a model speaks: what two models must share to decode together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vocabulary {
    /// How many tokens the model's head scores.
    pub size: usize,
    /// The token a decoder starts from; it is never part of an output.
    pub start: Token,
    /// The tokens that end a sequence.
    pub end: Vec<Token>,
    /// The text behind every token, where the model came with its tokenizer.
    pub pieces: Option<Pieces>,
}

impl Vocabulary {
    /// A vocabulary of `size` tokens, whose pieces are not known.
    pub fn new(size: usize, start: Token, end: impl Into<Vec<Token>>) -> Self {
        Self { size, start, end: end.into(), pieces: None }
    }

    /// Sets the text behind every token, for two models to be compared.
    pub fn with_pieces(mut self, pieces: Pieces) -> Self {
        self.pieces = Some(pieces);
        self
    }

    /// Refuses a token that is not one of them; `place` says where it stood or who named it.
    ///
    /// # Errors
    ///
    /// [`Error::TokenOutOfRange`].
    pub fn check(&self, token: Token, place: impl FnOnce() -> String) -> Result<()> {
        if (token as usize) < self.size {
            return Ok(());
        }
        Err(Error::TokenOutOfRange { token, place: place(), size: self.size })
    }

    /// Refuses the vocabulary of a verifier that is not the same as this of a draft model.
    pub(crate) fn check_same(&self, verifier: &Self) -> Result<()> {
        let mismatch = |what: &str, draft: String, verifier: String| {
            Err(Error::PairMismatch { what: what.to_owned(), draft, verifier })
        };
        if self.size != verifier.size {
            return mismatch("the vocabulary size", self.size.to_string(), verifier.size.to_string());
        }
        if self.start != verifier.start {
            return mismatch("the decoder's start token", self.start.to_string(), verifier.start.to_string());
        }
        let sorted = |tokens: &[Token]| {
            let mut tokens = tokens.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        if sorted(&self.end) != sorted(&verifier.end) {
            let text = |tokens: &[Token]| format!("{tokens:?}");
            return mismatch("the end-of-sequence tokens", text(&self.end), text(&verifier.end));
        }
        if let (Some(ours), Some(theirs)) = (&self.pieces, &verifier.pieces)
            && ours != theirs
            && let Some((token, pieces)) = ours.first_difference(theirs, verifier.size)
        {
            let [draft, verifier] = pieces.map(|piece| {
                piece.map_or("none, as the tokenizer ends before it".into(), |piece| format!("{piece:?}"))
            });
            return mismatch(
                &format!("the tokenizer's piece for token {token}, the first that differs,"),
                draft,
                verifier,
            );
        }
        Ok(())
    }
}

/// The text behind every token of a tokenizer. Two of them are equal if their fingerprints are. Cheap to clone.
#[derive(Clone)]
pub struct Pieces {
    fingerprint: u64,
    piece: Arc<dyn Fn(Token) -> Option<String> + Send + Sync>,
}

impl Pieces {
    /// Pieces by a function, with a number that tokenizers share if they give the same pieces to the same tokens.
    pub fn new(fingerprint: u64, piece: impl Fn(Token) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { fingerprint, piece: Arc::new(piece) }
    }

    /// The piece of a token, if there is one.
    pub fn piece(&self, token: Token) -> Option<String> {
        (self.piece)(token)
    }

    /// The first of `count` tokens whose pieces differ, with both of them.
    pub(crate) fn first_difference(&self, other: &Self, count: usize) -> Option<(Token, [Option<String>; 2])> {
        let pieces = |token| (token, [self.piece(token), other.piece(token)]);
        (0..count as Token).map(pieces).find(|(_, [a, b])| a != b)
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Pieces {}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({:016x})", self.fingerprint)
    }
}
