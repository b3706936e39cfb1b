use std::sync::Arc;

use crate::{Error, Overflow, Result, Settings, Token};

/// The tokens a generation starts from: for an encoder-decoder, the encoder's input, its end-of-sequence token included.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    tokens: Arc<[Token]>,
}

impl Source {
    /// A source of these tokens, verbatim: nothing is appended.
    pub fn new(tokens: impl Into<Arc<[Token]>>) -> Self {
        Self { tokens: tokens.into() }
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
        Ok(Self::new(kept))
    }
}
