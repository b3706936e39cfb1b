#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub use bild_core::*;
#[cfg(feature = "hub")]
pub use bild_models::Hub;
pub use bild_models::{
    Activation, Checkpoint, EarlyExit, EarlyExitSession, Head, LoadError, LoadOptions, LookIn, NgramLookup,
    NgramLookupSession, Precision, T5, T5Config, T5Session, TextGenerator, TextOutput, TextRequest, TextStream,
    Threads, Tokenizer,
};
pub use bild_policies::*;

/// The tensor library below, for its `Backend` trait and its devices.
pub use burn;

#[cfg(feature = "cuda")]
pub use bild_models::Cuda;
#[cfg(feature = "wgpu")]
pub use bild_models::Wgpu;
#[cfg(feature = "flex")]
pub use burn_flex::Flex;
#[cfg(feature = "ndarray")]
pub use burn_ndarray::NdArray;
#[cfg(feature = "tch")]
pub use burn_tch::LibTorch;

/// The code in the guide compiles and runs.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/policies.md")]
    mod policies {}
    #[doc = include_str!("../docs/choosing.md")]
    mod choosing {}
    #[doc = include_str!("../docs/checkpoints.md")]
    mod checkpoints {}
    #[doc = include_str!("../docs/backends.md")]
    mod backends {}
}
