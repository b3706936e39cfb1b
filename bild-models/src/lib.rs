//! Models that draft and verify: the T5 family on [Burn](https://burn.dev), generic over its backends.
//!
//! - [`Checkpoint`] opens a directory as Hugging Face's transformers writes it: configuration, weights, tokenizer.
//! - [`T5`] is the model on a Burn backend: T5 1.0, T5 1.1 and FLAN-T5, mT5. One value is shared by any number of
//!   generations; each owns its [`T5Session`], which rolls back in O(1).
//! - [`NgramLookup`] drafts without a second model, by copying; [`EarlyExit`] with the first layers of the big one.
//! - [`TextGenerator`] goes from text to text with a pair and a tokenizer.
//!
//! Decoding is greedy unless a policy says otherwise; there is no beam search.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod backend;
mod checkpoint;
mod cleanup;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod decode;
mod error;
#[cfg(feature = "flex")]
mod flex;
mod foreign;
mod generation;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "flex")]
mod kernel;
mod memory;
mod names;
mod nn;
mod options;
mod panics;
mod partial_text;
mod pickle;
mod precision;
mod pytorch;
mod safetensors;
mod sentencepiece;
mod stops;
mod t5;
mod text;
mod text_request;
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // only flex computes in them
mod threads;
mod tokenizer;
mod tokenizer_config;
mod weights;

/// What the benchmarks reach into. Not part of the interface: it may change at any time.
#[cfg(feature = "flex")]
#[doc(hidden)]
pub mod internals {
    pub use crate::kernel::{Int8Panels, PANEL, Panels};

    /// Computes something as a pass of a model is computed.
    pub fn compute_in<R: Send + 'static>(threads: &crate::Threads, pass: impl FnOnce() -> R + Send + 'static) -> R {
        threads.run(usize::MAX, pass)
    }
}

pub use checkpoint::Checkpoint;
pub use config::{Head, T5Config};
pub use decode::{EarlyExit, EarlyExitSession, LookIn, NgramLookup, NgramLookupSession};
pub use error::LoadError;
#[cfg(feature = "cuda")]
pub use gpu::Cuda;
#[cfg(feature = "wgpu")]
pub use gpu::Wgpu;
#[cfg(feature = "hub")]
pub use hub::Hub;
pub use nn::Activation;
pub use options::LoadOptions;
pub use precision::Precision;
pub use t5::{T5, T5Session};
pub use text::{TextGenerator, TextOutput, TextStream};
pub use text_request::TextRequest;
pub use threads::Threads;
pub use tokenizer::Tokenizer;
