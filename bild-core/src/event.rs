use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Finish, Token};

/// Which of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The little model, which proposes.
    Draft,
    /// The big model, which judges.
    Verifier,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draft => "draft",
            Self::Verifier => "verifier",
        })
    }
}

/// Something that happened while decoding, in the order in which it happened.
///
/// Positions (`at`) count generated tokens from 0: the decoder's start token is not one of them, end-of-sequence is.
/// Only [`Event::Committed`] is final. In JSON an event is an object with a `kind`, as
/// `{"kind":"rollback","at":7,"dropped":3}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The draft model's token was kept, for the verifier to judge.
    Drafted {
        /// Its position.
        at: usize,
        /// The token.
        token: Token,
        /// The natural logarithm of the draft model's probability of it.
        #[serde(with = "crate::nan")]
        log_prob: f32,
    },
    /// The draft model handed over instead of keeping its token.
    Fallback {
        /// The number of tokens there were by then.
        at: usize,
        /// The token it did not keep (not in the JSON).
        #[serde(skip)]
        token: Token,
        /// The natural logarithm of the draft model's probability of that token (not in the JSON).
        #[serde(skip)]
        log_prob: f32,
    },
    /// The verifier made a pass.
    Verified {
        /// The position of the first draft it judged, or of the token it wrote if there was none.
        at: usize,
        /// How many drafts it judged.
        drafts: usize,
        /// How many of them stood.
        accepted: usize,
    },
    /// Drafts were taken back.
    Rollback {
        /// The position of the first of them.
        at: usize,
        /// How many; the refused one counts.
        dropped: usize,
    },
    /// A token became part of the output for good.
    Committed {
        /// Its position.
        at: usize,
        /// The token.
        token: Token,
        /// The model that wrote it.
        by: Role,
        /// The natural logarithm of the probability that model gave it ([`Row::log_prob`](crate::Row::log_prob)).
        #[serde(with = "crate::nan")]
        log_prob: f32,
    },
    /// The generation ended; drafts that were not committed by now are not part of the output.
    Finished {
        /// Why.
        finish: Finish,
    },
}
