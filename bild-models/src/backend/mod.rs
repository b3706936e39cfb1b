//! What a backend does its own way: flex and its kernels, the threads they share, what CUDA lacks where it cannot run, how
//! much memory is free.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "flex")]
pub(crate) mod flex;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
#[cfg(feature = "flex")]
pub(crate) mod kernel;
pub(crate) mod memory;
mod options;
mod precision;
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // only flex computes in them
mod threads;

use burn::tensor::backend::Backend;

#[cfg(feature = "cuda")]
pub use gpu::Cuda;
#[cfg(feature = "wgpu")]
pub use gpu::Wgpu;
pub use options::{LoadOptions, Progress};
pub use precision::Precision;
pub(crate) use precision::{round_to_int4, round_to_int8};
pub use threads::Threads;

/// Whether tensors of `B` are flex's, which have kernels of their own.
#[cfg_attr(not(feature = "flex"), allow(clippy::extra_unused_type_parameters))]
pub(crate) fn is_flex<B: Backend>() -> bool {
    #[cfg(feature = "flex")]
    return flex::is_flex::<B>();
    #[cfg(not(feature = "flex"))]
    false
}

/// Computes a pass of so many products of two numbers: on flex in these threads, if it is large enough.
pub(crate) fn run<B: Backend, R: Send + 'static>(
    threads: &Threads,
    work: usize,
    pass: impl FnOnce() -> R + Send + 'static,
) -> R {
    if is_flex::<B>() { threads.run(work, pass) } else { pass() }
}
