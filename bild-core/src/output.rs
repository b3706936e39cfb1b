use serde::{Deserialize, Serialize};

use crate::{Event, Role, Statistics, Token};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finish {
    /// An end-of-sequence token was committed; it is the last of the output.
    EndOfSequence,
    /// A token of [`Settings::stop_tokens`](crate::Settings::stop_tokens) was committed; it is the last of the output.
    StopToken,
    /// As many tokens as [`Settings::max_new_tokens`](crate::Settings::max_new_tokens) allows were committed.
    MaxNewTokens,
    /// The caller ended it ([`EventStream::stop_after`](crate::EventStream::stop_after)), as at a stop string.
    Stopped,
    /// A [`CancelToken`](crate::CancelToken) was cancelled; drafts not yet verified are left out.
    Cancelled,
    /// The [`Settings::deadline`](crate::Settings::deadline) passed; drafts not yet verified are left out.
    Deadline,
}

/// What a generation wrote, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Output {
    /// The committed tokens: without the decoder's start token, with the end-of-sequence token if one was written.
    pub tokens: Vec<Token>,
    /// For each token, the natural logarithm of its probability under the model that wrote it
    /// ([`Row::log_prob`](crate::Row::log_prob)).
    #[serde(with = "crate::nan::all")]
    pub log_probs: Vec<f32>,
    /// For each token, the model that wrote it. An accepted draft was written by the draft model.
    pub writers: Vec<Role>,
    /// Why it ended.
    pub finish: Finish,
    /// How many tokens of the source the models were given.
    pub source_tokens: usize,
    /// Whether the source had more, which were cut off ([`Overflow::Truncate`](crate::Overflow::Truncate)).
    pub truncated: bool,
    /// What the two models did.
    pub statistics: Statistics,
    /// Everything that happened, if [`Settings::trace`](crate::Settings::trace) asked for it.
    pub events: Vec<Event>,
}
