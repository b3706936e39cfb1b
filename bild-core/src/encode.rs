use crate::{Result, Token};

/// What makes tokens of text, for those who need the tokens of a word: a tokenizer.
pub trait Encode {
    /// The tokens of a text alone, without those that a tokenizer adds around a whole one, as end-of-sequence.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    fn encode_plain(&self, text: &str) -> Result<Vec<Token>>;
}
