//! Models that draft and verify: the T5 family on [Burn](https://burn.dev), generic over its backends.
//!
//! - [`Checkpoint`] opens a directory as Hugging Face's transformers writes it: configuration, weights, tokenizer.
//! - [`T5`] is the model on a Burn backend: T5 1.0, T5 1.1 and FLAN-T5, mT5. One value is shared by any number of
//!   generations; each owns its [`T5Session`], which rolls back in O(1).
//! - [`NgramLookup`] drafts without a second model, by copying; [`EarlyExit`] with the first layers of the big one;
//!   [`SharedEncoder`] with a decoder of a layer or two that reads the states of its encoder.
//! - [`TextGenerator`] goes from text to text with a pair and a tokenizer.
//!
//! Decoding is greedy unless a policy says otherwise; there is no beam search.
//!
//! # The rooms
//!
//! Arrows go one way: a family (`t5`) is built on `decode` (sessions, early exit, a draft decoder, look-up over any decoder), that on `nn` (what
//! families are built of), that on `backend` (what a backend does its own way). Beside them stand `checkpoint` (where weights
//! come from), `text` (tokenizers, text in and text out) and `files`.
#![deny(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

mod backend;
mod checkpoint;
mod decode;
mod error;
mod files;
mod nn;
mod shortlist;
mod t5;
mod text;

/// What the benchmarks and training reach into. Not part of the interface: it may change at any time.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "flex")]
    pub use crate::backend::kernel::{Matrix, PANEL, exp};
    pub use crate::t5::names::{EXIT_ADAPTER, EXIT_NORM};

    /// Computes something as a pass of a model is computed.
    #[cfg(feature = "flex")]
    pub fn compute_in<R: Send + 'static>(threads: &crate::Threads, pass: impl FnOnce() -> R + Send + 'static) -> R {
        threads.run(usize::MAX, pass)
    }
}

#[cfg(feature = "cuda")]
pub use backend::Cuda;
#[cfg(feature = "wgpu")]
pub use backend::Wgpu;
pub use backend::{LoadOptions, Precision, Progress, Threads};
#[cfg(feature = "hub")]
pub use checkpoint::Hub;
pub use checkpoint::{Checkpoint, Digest};
pub use decode::{
    EarlyExit, EarlyExitSession, Guess, GuessSession, LookIn, NgramLookup, NgramLookupSession, SharedEncoder,
    SharedEncoderSession,
};
pub use error::LoadError;
pub use nn::Activation;
pub use shortlist::Shortlist;
pub use t5::{Head, T5, T5Config, T5Session, T5Tensors};
#[cfg(feature = "tokenizers")]
pub use text::{TextGenerator, TextOutput, TextQueue, TextRequest, TextStream, Tokenizer};
