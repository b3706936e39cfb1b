use std::sync::Arc;

use crate::{Error, Overflow, Result, Settings, Token};

/// The tokens a generation starts from: for an encoder-decoder, the encoder's input, its end-of-sequence token included.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    tokens: Arc<[Token]>,
    guess: Arc<[Token]>,
}

impl Source {
    /// A source of these tokens, verbatim: nothing is appended.
    pub fn new(tokens: impl Into<Arc<[Token]>>) -> Self {
        Self { tokens: tokens.into(), guess: Arc::default() }
    }

    /// Says what will probably be written for it, for a draft model that proposes that (`Guess` in bild-models): the last output for
    /// a text that is being typed, that for a similar text in a translation memory, the text before it is edited. It changes what is
    /// drafted, never what a lossless policy writes.
    pub fn with_guess(mut self, tokens: impl Into<Arc<[Token]>>) -> Self {
        self.guess = tokens.into();
        self
    }

    /// What will probably be written; nothing if nobody has said.
    pub fn guess(&self) -> &[Token] {
        &self.guess
    }

    /// The tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// This source within the limits of `settings`. A truncated source keeps its last token if that is one of `end`, as
    /// tokenizers do that append it.
    pub(crate) fn limited(&self, settings: &Settings, end: &[Token]) -> Result<Self> {
        let (length, limit) = (self.tokens.len(), settings.max_source_tokens);
        let Some(last) = self.tokens.last() else { return Err(Error::EmptySource) };
        if length <= limit {
            return Ok(self.clone());
        }
        if settings.overflow == Overflow::Error {
            return Err(Error::SourceTooLong { length, limit });
        }
        let mut kept = self.tokens[..limit].to_vec();
        if end.contains(last) {
            kept[limit - 1] = *last;
        }
        Ok(Self { tokens: kept.into(), guess: self.guess.clone() })
    }
}
