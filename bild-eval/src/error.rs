/// Why something was not evaluated, as a sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a data set or a log that cannot be used.
    #[error("{0}")]
    Input(String),
    /// A generation failed.
    #[error(transparent)]
    Decode(#[from] bild::Error),
    /// Something could not be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<String> for Error {
    fn from(sentence: String) -> Self {
        Self::Input(sentence)
    }
}

impl From<&str> for Error {
    fn from(sentence: &str) -> Self {
        Self::Input(sentence.into())
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
