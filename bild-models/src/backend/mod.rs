//! What a backend does its own way.

use burn::tensor::backend::Backend;

use crate::Threads;

/// Whether tensors of `B` are flex's, which have kernels of their own.
#[cfg_attr(not(feature = "flex"), allow(clippy::extra_unused_type_parameters))]
pub(crate) fn is_flex<B: Backend>() -> bool {
    #[cfg(feature = "flex")]
    return crate::flex::is_flex::<B>();
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
