//! Arithmetic on the CPU where decoding spends its time, with vector instructions chosen at run time.
//!
//! Every row of a result is summed in an order that does not depend on how many rows there are, so a row's bits are the
//! same in a pass of one row and in a pass of many. That makes a lossless policy write exactly what greedy decoding writes.
//!
//! The functions below a `with_simd` are compiled once for each kind of vectors and must be inlined whole to use them: all
//! are `#[inline(always)]`, and vectors are touched in plain loops, never in closures.

mod attention;
mod elementwise;
mod int4;
mod int8;
mod lanes;
mod matrix;
mod product;
mod rounded;

use pulp::Simd;

use crate::backend::Threads;

pub(crate) use attention::{Bias, KeysValues, Look, attend};
pub use elementwise::exp;
pub(crate) use elementwise::{gated_gelu, rms_norm};
pub use matrix::Matrix;
pub use product::PANEL;

/// From so many rows on, a product asks memory for the weights that come next, so that multiplying and reading go on at once. With
/// fewer rows some CPUs ask early enough by themselves and are slower if they are told to, as AMD's Zen 3 and 4; Intel's Sapphire Rapids
/// take up to twice as long if they are not.
fn worth_prefetching() -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::{arch::x86_64::__cpuid, sync::OnceLock};
        // Asking the CPU takes a virtual machine tens of microseconds.
        static IS_INTEL: OnceLock<bool> = OnceLock::new();
        let is_intel = || {
            let name = __cpuid(0);
            [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
        };
        if *IS_INTEL.get_or_init(is_intel) {
            return 1;
        }
    }
    5
}

/// In how many parts a product of `rows` rows with so many weights is computed, each by a thread of its own: one unless the
/// thread that asks has others at hand. Sharing pays from about 30 µs on; reading a weight takes about as long as multiplying it
/// eight times.
fn parts(threads: &Threads, rows: usize, weights: usize) -> usize {
    if (rows + 8) * weights >= WORTH_SHARING { threads.shared() } else { 1 }
}

/// Multiplications.
const WORTH_SHARING: usize = 1 << 21;

/// Rows of equal width, each `stride` after the last: what several products have in common when they are computed as one.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) count: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    pub(crate) fn row(self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.width]
    }

    /// Some of them, from row `first` on.
    pub(crate) fn part(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.stride..], count, ..self }
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    let mut sums = simd.splat_f32s(0.0);
    for (x, y) in x.iter().zip(y) {
        sums = simd.mul_add_e_f32s(*x, *y, sums);
    }
    let mut sum = simd.reduce_sum_f32s(sums);
    for (x, y) in x_rest.iter().zip(y_rest) {
        sum += x * y;
    }
    sum
}

/// Numbers from −1 to 1, others for another seed.
#[cfg(test)]
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
}

/// Checks that the product with some outputs, every third, is to the bit what the product with all has there.
#[cfg(test)]
fn check_selection(outputs: usize, all: &[f32], select: impl FnOnce(&[u32]) -> Vec<f32>) {
    let some: Vec<u32> = (0..outputs as u32).step_by(3).collect();
    let found = select(&some);
    let picked = all.chunks(outputs).flat_map(|all| some.iter().map(|&i| all[i as usize]));
    assert!(found.iter().map(|x| x.to_bits()).eq(picked.map(f32::to_bits)), "some of {outputs}");
}

/// Whether a matrix of this width and so many outputs is tried: Miri would take hours for a large one.
#[cfg(test)]
fn worth_trying((width, outputs): &(usize, usize)) -> bool {
    !cfg!(miri) || width * outputs < 4000
}

/// Runs a test with threads that large products are shared between.
#[cfg(test)]
fn in_threads(test: impl FnOnce(Threads) + Send + 'static) {
    let threads = Threads::new(3).expect("three threads can be had");
    let own = threads.clone();
    threads.run(usize::MAX, move || test(own));
}
