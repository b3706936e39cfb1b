#![doc = include_str!("../docs/overview.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, missing_docs, unreachable_pub)]

pub use bild_core::{CancelToken, Error, Output, Settings};
pub use bild_models::{Checkpoint, LoadError, LoadOptions, Precision, T5, Threads};
#[cfg(feature = "tokenizers")]
pub use bild_models::{TextGenerator, TextOutput, TextRequest};
pub use bild_policies::{Bild, Lossless};
#[cfg(feature = "flex")]
pub use burn_flex::Flex;

/// The decode loop and what takes part in it: models, pairs, policies, passes, rows, events.
pub mod decode {
    pub use bild_core::*;
}

/// Models, and what they are loaded from; what drafts without a model of its own.
pub mod models {
    pub use bild_models::*;
}

/// When to hand over and when to take back, and what changes logits.
pub mod policies {
    pub use bild_policies::*;
}

/// The backends of the features that are on. The type of a model says which one it runs on: `T5<Flex>`, `T5<Cuda>`.
pub mod backends {
    #[cfg(feature = "cuda")]
    pub use bild_models::Cuda;
    #[cfg(feature = "wgpu")]
    pub use bild_models::Wgpu;
    #[cfg(feature = "flex")]
    pub use burn_flex::{Flex, FlexDevice};
    #[cfg(feature = "ndarray")]
    pub use burn_ndarray::{NdArray, NdArrayDevice};
    #[cfg(feature = "tch")]
    pub use burn_tch::{LibTorch, LibTorchDevice};
}

/// Everything that a program with a policy or a draft model of its own names: `use bild::prelude::*`.
pub mod prelude {
    pub use bild_core::{
        BoxedPair, CancelToken, Context, Draft, DraftModel, DraftSession, Drafted, Event, Finish, Generator,
        LogitsProcessor, Model, NoDraft, Output, Pair, PairSession, Pass, Policy, PolicyState, Prefix, Request, Role,
        Row, Rows, SessionLimit, Settings, Source, Start, Token, Verdict, VerifierModel, VerifierSession, Vocabulary,
        Want, Wants,
    };
    pub use bild_models::{
        Checkpoint, EarlyExit, Guess, LoadOptions, NgramLookup, Precision, SharedEncoder, T5, Threads,
    };
    #[cfg(feature = "tokenizers")]
    pub use bild_models::{TextGenerator, TextOutput, TextRequest, Tokenizer};
    pub use bild_policies::{AnyPolicy, Bild, CostAware, GenerationConfig, Lossless, Sampling, processors};
    #[cfg(feature = "flex")]
    pub use burn_flex::Flex;
}

/// The tensor library below, for its `Backend` trait.
pub use burn;

pub mod guide;

/// The README's code compiles and runs too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
