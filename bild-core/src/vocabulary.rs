use crate::Token;

/// The tokens a model speaks: what two models must share to decode together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// How many tokens the model's head scores.
    pub size: usize,
    /// The token a decoder starts from; it is never part of an output.
    pub start: Token,
    /// The tokens that end a sequence.
    pub end: Vec<Token>,
    /// A fingerprint of the text behind every token, where the model came with its tokenizer.
    pub pieces: Option<u64>,
}
