use std::fmt;

use crate::{Result, Source, Token, Vocabulary};

/// Changes logits before anything is read from them: what may be written next, and what is made more or less likely.
///
/// Processors are listed in [`Settings::processors`](crate::Settings::processors) and see every row of logits of both models (a look-up has none), each
/// with its own prefix: a draft's row with the drafts before it. So a lossless policy writes what greedy decoding of the
/// verifier writes with the same processors. They need whole rows of logits, which on a GPU means a transfer of the
/// vocabulary's size.
///
/// This one never writes the same token twice in a row:
///
/// ```
/// use bild::decode::{LogitsProcessor, Prefix};
///
/// #[derive(Debug)]
/// struct NoStutter;
///
/// impl LogitsProcessor for NoStutter {
///     fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
///         if let Some(&last) = prefix.tokens.last() {
///             logits[last as usize] = f32::NEG_INFINITY;
///         }
///     }
/// }
///
/// let settings = bild::Settings::default().with_processor(NoStutter);
/// assert_eq!(settings.processors.len(), 1);
/// ```
pub trait LogitsProcessor: fmt::Debug + Send + Sync {
    /// Changes `logits` (`[vocab]`) of the token that follows `prefix`. −∞ forbids a token; one must be left.
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]);

    /// Refuses a vocabulary that lacks a token it names; looked at when a generation begins.
    ///
    /// # Errors
    ///
    /// [`Error::TokenOutOfRange`](crate::Error::TokenOutOfRange), by [`Vocabulary::check`].
    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        let _ = vocabulary;
        Ok(())
    }
}

/// What stands before a token.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Prefix<'a> {
    /// What the generation started from.
    pub source: &'a Source,
    /// The token the decoder started from.
    pub start: Token,
    /// The tokens generated before it: committed ones, then drafts. The decoder's start token is not one of them.
    pub tokens: &'a [Token],
    /// The tokens that end a sequence.
    pub end: &'a [Token],
    /// The most tokens that are generated.
    pub limit: usize,
}

impl<'a> Prefix<'a> {
    /// A prefix as the loop makes it, for a processor's tests: it started from token 0 and has no limit.
    pub fn new(source: &'a Source, tokens: &'a [Token], end: &'a [Token]) -> Self {
        Self { source, start: 0, tokens, end, limit: usize::MAX }
    }
}
