//! Arithmetic on the CPU where decoding spends its time, with vector instructions chosen at run time.
//!
//! Every row of a result is summed in an order that does not depend on how many rows there are, so a row's bits are the
//! same in a pass of one row and in a pass of many. That makes a lossless policy write exactly what greedy decoding writes.
//!
//! The functions below a `with_simd` are compiled once for each kind of vectors and must be inlined whole to use them: all
//! are `#[inline(always)]`, and vectors are touched in plain loops, never in closures.

mod attention;
mod product;

pub(crate) use attention::{Heads, attend};
pub(crate) use product::Panels;

/// From this many multiplications on, work is shared between threads; below, waking them costs more.
const SHARED_FROM: usize = 1 << 19;
