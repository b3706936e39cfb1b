//! Training of T5 models on [Burn](https://burn.dev), for the little model that drafts: from nothing, from a checkpoint, or out of some
//! layers of a big one.
//!
//! - [`T5`] is the model with gradients, batched and teacher-forced: the same weights, names and numbers as the T5 that decodes. It
//!   writes a directory that transformers and `bild` load.
//! - [`Loss`] is what is made small: cross-entropy, or the distance from a [`Teacher`]'s distributions.
//! - [`Rule`] is how: [`AdamW`] or [`Adafactor`], with a [`Schedule`].
//! - [`Trainer`] takes steps, and goes on after a kill as if nothing had happened.
//!
//! ```no_run
//! use bild::Checkpoint;
//! use bild_train::{Example, Flex, Layers, Settings, Shrink, T5, Trainer};
//!
//! # fn examples() -> Vec<Example> { Vec::new() }
//! let device = Default::default();
//! let shrink = Shrink { encoder: Layers::Spread(2), decoder: Layers::Spread(1) };
//! let model = T5::<Flex>::shrunk(&Checkpoint::open("flan-t5-small")?, &shrink, &device)?;
//! let mut trainer = Trainer::new(model, examples(), Settings::default(), &device)?;
//! for _ in 0..1000 {
//!     let step = trainer.step()?;
//!     println!("{} {:.3}", step.step, step.loss);
//! }
//! trainer.save("checkpoints")?;
//! trainer.model().save("little")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The rooms
//!
//! `trainer` is built on `t5`, `optimizer` and `data`; those on `compute`, which is what a backend does its own way: kernels with
//! gradients of their own on flex, Burn's tensors elsewhere (libtorch, behind the feature `tch`).
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

mod align;
mod compute;
mod data;
mod error;
mod files;
mod loss;
mod noise;
mod optimizer;
mod random;
mod run;
mod t5;
mod texts;
mod tokenizer;
mod trainer;

pub use align::{Aligned, Alignment, Drafter, Measured, MeasuredPolicy, Outputs, Text, measure};
pub use compute::{Attending, Compute, Head};
pub use data::{Batch, Example, Examples, Padded};
pub use error::{Result, TrainError};
pub use files::{Numbers, check_replaceable};
pub use loss::{Loss, Rest, Score, Targets, Teacher};
pub use noise::EnglishNoise;
pub use optimizer::{Adafactor, AdamW, Decay, Gradients, Optimizer, Rule, Schedule};
pub use random::{Dropout, Dropouts};
pub use run::Run;
pub use t5::{Decoder, Encoder, Frozen, Layers, Shrink, T5};
pub use texts::examples;
pub use tokenizer::unigram;
pub use trainer::{Position, Settings, Step, Trainable, Trainer};

/// Burn's pure Rust CPU backend, with gradients.
pub type Flex = burn::backend::Autodiff<burn_flex::Flex>;

/// libtorch, with gradients.
#[cfg(feature = "tch")]
pub type LibTorch = burn::backend::Autodiff<burn_tch::LibTorch>;
