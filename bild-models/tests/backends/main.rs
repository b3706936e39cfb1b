//! The suite of models and decoding, generic over the backend: on flex and ndarray always, on wgpu, tch and CUDA where those
//! features are on.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod cache;
mod decoding;
mod drafts;
mod fixtures;
mod half;
