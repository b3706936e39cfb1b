//! What drafting and verifying mean, without any model and without any policy.
//!
//! A little model drafts tokens one by one, a big model verifies many of them in one pass, and a policy decides when the
//! little one hands over (fallback) and which of its tokens are taken back (rollback): Kim et al., "Speculative Decoding
//! with Big Little Decoder", NeurIPS 2023, arXiv 2302.07863. This crate holds
//!
//! - what a model must do to take part: [`DraftModel`], [`VerifierModel`], [`Pair`] and their sessions;
//! - what a policy is asked and may decide: [`Policy`], [`PolicyState`];
//! - the decode loop: [`Generation`], a state that says which [`Pass`] it waits for, and what drives it with a pair of
//!   models: [`EventStream`], an iterator of [`Event`]s, begun by a [`Generator`], [`Batch`], for many generations at once,
//!   and [`Queue`], for those that come to a service;
//! - what comes out: [`Output`], [`Statistics`], [`Event`], [`Error`].
//!
//! Nothing here depends on a tensor library: whatever can tell a distribution over the next token can draft or verify.
//! Decoding follows the most likely token (greedy) unless a policy chooses otherwise; there is no beam search.
//!
//! # Should I be using this crate?
//!
//! To translate with a pair of T5 checkpoints, use the `bild` crate. Depend on this one to write a model or a policy of
//! your own.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

mod batch;
mod boxed;
mod budget;
mod cancel;
mod driver;
mod encode;
mod error;
mod event;
mod generation;
mod generator;
mod limit;
mod many;
mod model;
mod nan;
mod or;
mod output;
mod pair;
mod pass;
mod pointers;
mod policy;
mod processor;
mod queue;
mod reader;
mod record;
mod request;
mod response;
mod row;
mod rows;
mod seconds;
mod settings;
mod softmax;
mod source;
mod statistics;
mod stream;
mod vocabulary;
mod words;

pub use batch::Batch;
pub use boxed::{BoxedPair, BoxedSession};
pub use cancel::{CancelGuard, CancelToken};
pub use encode::Encode;
pub use error::{Error, Result};
pub use event::{Event, Role};
pub use generation::Generation;
pub use generator::{Generator, caught};
pub use limit::SessionLimit;
#[doc(hidden)]
pub use many::Order;
pub use many::in_order;
pub use model::{DraftModel, DraftSession, Model, NoDraft, VerifierModel, VerifierSession};
pub use or::{Or, OrSession};
pub use output::{Finish, Output};
pub use pair::{Pair, PairSession};
pub use pass::Pass;
pub use policy::{Context, Draft, Drafted, Policy, PolicyState, Start, Then, Verdict, Wants};
pub use processor::{LogitsProcessor, Prefix};
pub use queue::{Queue, QueueOptions};
pub use request::Request;
pub use response::Response;
pub use row::{Row, Want};
pub use rows::{Rows, RowsIter};
pub use settings::{MOST_TOKENS, Overflow, Settings};
pub use source::Source;
pub use statistics::Statistics;
pub use stream::EventStream;
pub use vocabulary::{Pieces, Vocabulary};
pub use words::plain_words;

/// What the other crates of bild reach into. Not part of the interface: it may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::softmax::exp;
}

/// The number of a piece of text in a vocabulary.
pub type Token = u32;
