use std::time::Duration;

use crate::{Finish, Role, Token};

/// What went wrong, as a sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source without a single token was given.
    #[error("the source is empty: a generation needs at least one source token")]
    EmptySource,
    /// The source is longer than the settings allow.
    #[error(
        "the source has {length} tokens, the limit is {limit} (`max_source_tokens`): shorten it, {}let it be truncated",
        if *length <= crate::settings::MOST_TOKENS { "raise the limit, or " } else { "or " }
    )]
    SourceTooLong {
        /// Tokens in the source.
        length: usize,
        /// The limit that was set.
        limit: usize,
    },
    /// A token lies outside the vocabulary of the model.
    #[error("token {token} {place} is outside the model's vocabulary of {size} tokens")]
    TokenOutOfRange {
        /// The token.
        token: Token,
        /// Where it stood, or who named it, as in "at position 3 of the source" or "that the policy chose".
        place: String,
        /// The size of the vocabulary.
        size: usize,
    },
    /// A setting has a value that makes no sense.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// The name of the setting.
        name: &'static str,
        /// The value that was found.
        found: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A row of logits holds a NaN or +∞, or nothing but −∞.
    #[error("a row of logits holds NaN or no finite maximum: its weights or its input are broken")]
    NotFinite,
    /// As [`Error::NotFinite`], found while decoding.
    #[error(
        "the {role} model gave logits that hold NaN or no finite maximum, at position {at} of the output: its weights are broken"
    )]
    NotFiniteAt {
        /// The model that gave them.
        role: Role,
        /// The number of tokens generated until then.
        at: usize,
    },
    /// A model returned a row that no distribution has.
    #[error("the {role} model returned a row that cannot be, at position {at} of the output: {problem}")]
    Row {
        /// The model that returned it.
        role: Role,
        /// The position that the row predicts.
        at: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A logits processor made of sound logits what nothing can be read from.
    #[error("the logits processor {processor} made logits that hold NaN or +∞, at position {at} of the output")]
    Processor {
        /// The processor, as `Debug` shows it.
        processor: String,
        /// The number of tokens before it.
        at: usize,
    },
    /// A generation would take more memory than it may.
    #[error("the generation would take {needed} of memory: {reason}", needed = megabytes(*needed))]
    Memory {
        /// Bytes that it would take.
        needed: u64,
        /// What it may take, and what to do.
        reason: String,
    },
    /// What a session was doing was cancelled, or its deadline passed. The decode loop ends the generation for that reason
    /// and returns what there is.
    #[error("the generation was interrupted: {}", if *.0 == Finish::Deadline { "its deadline passed" } else { "it was cancelled" })]
    Interrupted(Finish),
    /// Two models that cannot decode together were made a pair.
    #[error("the two models cannot decode together: {what} of the draft model is {draft}, of the verifier {verifier}")]
    PairMismatch {
        /// What differs.
        what: String,
        /// What the draft model has.
        draft: String,
        /// What the verifier has.
        verifier: String,
    },
    /// A policy decided something that cannot be carried out.
    #[error("the policy returned a verdict that accepts {accepted} of {drafts} drafts")]
    Verdict {
        /// How many drafts it accepted.
        accepted: usize,
        /// How many there were.
        drafts: usize,
    },
    /// A verifier did not return one row a token, or a draft model more drafts than it was asked for.
    #[error("the {role} model returned {found} rows, expected {}{expected}", if *role == Role::Draft { "at most " } else { "" })]
    Rows {
        /// The model that returned them.
        role: Role,
        /// Tokens that were given, or drafts that were asked for.
        expected: usize,
        /// Rows that came back.
        found: usize,
    },
    /// A model returned no logits where a logits processor is to change them.
    #[error("the {0} model returned a row without logits, which the logits processors of the settings need")]
    NoLogits(Role),
    /// Logits processors left nothing to write.
    #[error("the logits processors forbid every token at position {at} of the output")]
    Forbidden {
        /// The number of tokens before it.
        at: usize,
    },
    /// A generation panicked in another thread.
    #[error("the generation panicked: {0}")]
    Panicked(String),
    /// A [`Queue`](crate::Queue) took no more requests.
    #[error("the queue is full: {limit} requests wait already (`max_waiting`)")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// A request was not begun in time.
    #[error("the request has waited for {:.1} s without its turn (`max_wait`)", waited.as_secs_f64())]
    QueueTimeout {
        /// How long it waited.
        waited: Duration,
    },
    /// A request came after its [`Queue`](crate::Queue) was closed.
    #[error("the queue is closed and takes no more requests")]
    QueueClosed,
    /// The output was asked for after the generation had failed.
    #[error("the generation has failed before: the iterator of its events returned the error")]
    AlreadyFailed,
    /// A model failed in its own way.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps the error of a model.
    pub fn model(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Model(error.into())
    }

    /// Says which model failed and where, for errors that a row alone cannot place.
    pub(crate) fn during(self, role: Role, at: usize) -> Self {
        match self {
            Self::NotFinite => Self::NotFiniteAt { role, at },
            other => other,
        }
    }
}

/// Bytes for a reader.
pub(crate) fn megabytes(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
