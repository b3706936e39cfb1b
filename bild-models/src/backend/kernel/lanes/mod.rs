//! Products of integers of 8 and of 4 bits, by the instructions that each kind of CPU has for them. All sums are exact, so
//! that all kinds give the same bits.
//!
//! The only module with `unsafe`: the instructions are there on some CPUs alone, and no library offers them all.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod blocks;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
use std::cell::Cell;
use std::marker::PhantomData;

use super::{PANEL, worth_prefetching};

pub(super) use blocks::{Block, Int4Block, Int8Block};

/// Inputs whose products an instruction adds up at a time: a word of four bytes.
pub(super) const WORD: usize = 4;

/// Inputs that share a scale.
pub(super) const GROUP: usize = 128;

/// Some rows of inputs, rounded to 8 bits in groups, that are multiplied together.
pub(super) struct Tile<'a> {
    pub(super) rows: usize,
    /// `[words, rows]`: four inputs in each, the first in the lowest byte. Where `Kind::by_row`, `[rows, words]`.
    pub(super) words: &'a [i32],
    /// `[groups, rows]`: the scale of the inputs of a group.
    pub(super) scales: &'a [f32],
    /// `[ceil(inputs / Block::OFFSET_INPUTS), rows]`: the sum of so many inputs times `Block::OFFSET`.
    pub(super) offsets: &'a [i32],
}

/// Which instructions to multiply with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Kind {
    /// Those that this CPU has for a matrix of so many inputs, the best for many rows first.
    #[cfg(test)]
    pub(super) fn all<B: Block>(inputs: usize) -> impl Iterator<Item = Self> {
        Self::some::<B>(inputs, usize::MAX)
    }

    /// The best for so many rows.
    pub(super) fn best<B: Block>(inputs: usize, rows: usize) -> Self {
        Self::some::<B>(inputs, rows).next().expect("the portable kind is always there")
    }

    /// Those that pay for so many rows.
    fn some<B: Block>(inputs: usize, rows: usize) -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let amx = rows >= amx::WORTH_IT && B::int8(&[]).is_some() && inputs.is_multiple_of(amx::WORDS * WORD);
            let amx = amx && amx::allowed();
            let vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            [amx.then_some(Self::Amx), vnni.then_some(Self::Vnni), avx2.then_some(Self::Avx2)]
        };
        #[cfg(target_arch = "aarch64")]
        let special = [std::arch::is_aarch64_feature_detected!("neon").then_some(Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let special = [None];
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (inputs, rows);
        special.into_iter().flatten().chain([Self::Portable])
    }

    /// The most rows of a tile: as many as the sums of which fit the registers.
    pub(super) fn most_rows<B: Block>(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => 2 * amx::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => 12,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => B::AVX2_ROWS,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 8,
            Self::Portable => 4,
        }
    }

    /// Where words must lie row after row: of how many rows at a time, the last ones filled up with rows of zeros.
    pub(super) fn by_row(self) -> Option<usize> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Some(amx::ROWS),
            _ => None,
        }
    }

    /// Makes the CPU ready to multiply so in the thread that asks.
    pub(super) fn ready(self) -> Ready {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx && READY.replace(READY.get() + 1) == 0 {
            // SAFETY: this kind is made where the unit is allowed alone.
            unsafe { amx::configure() };
        }
        Ready(self, PhantomData)
    }
}

#[cfg(target_arch = "x86_64")]
thread_local! {
    /// How many hold this thread's tiles.
    static READY: Cell<usize> = const { Cell::new(0) };
}

/// A kind whose instructions can be used in this thread, as long as this lives.
pub(super) struct Ready(Kind, PhantomData<*const ()>);

impl Ready {
    /// A tile times a panel whose outputs have these scales, into `PANEL` entries of each row of results, from `at` on.
    pub(super) fn multiply<B: Block>(
        &self,
        tile: &Tile<'_>,
        panel: &[B],
        scales: &[f32; PANEL],
        results: &mut [&mut [f32]],
        at: usize,
    ) {
        let Self(kind, _) = *self;
        assert!((1..=kind.most_rows::<B>()).contains(&tile.rows) && results.len() == tile.rows);
        let rows = tile.rows.next_multiple_of(kind.by_row().unwrap_or(1));
        assert_eq!(tile.words.len(), panel.len() * B::WORDS * rows);
        let inputs = panel.len() * B::WORDS * WORD;
        assert_eq!(tile.scales.len(), inputs.div_ceil(GROUP) * tile.rows);
        assert_eq!(tile.offsets.len(), inputs.div_ceil(B::OFFSET_INPUTS) * tile.rows);
        // SAFETY: a kind is made by `some` alone, where the CPU has what it needs.
        unsafe {
            match kind {
                #[cfg(target_arch = "x86_64")]
                Kind::Amx => {
                    let panel = B::int8(panel).expect("no other blocks are multiplied so");
                    assert!(panel.len().is_multiple_of(amx::WORDS), "{} words do not fill tiles", panel.len());
                    amx::amx(tile, panel, scales, results, at);
                }
                #[cfg(target_arch = "x86_64")]
                Kind::Vnni => x86::vnni(tile, panel, scales, results, at),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => x86::avx2(tile, panel, scales, results, at),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => neon::neon(tile, panel, scales, results, at),
                Kind::Portable => by_rows::<portable::Portable, B, 1>(tile, panel, scales, results, at),
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Kind::Amx && READY.replace(READY.get() - 1) == 1 {
            // SAFETY: as for `ready`.
            unsafe { amx::release() };
        }
    }
}

/// Asks for the cache line `bytes` after the beginning of a slice, which need not be part of it.
#[inline(always)]
pub(super) fn prefetch<T>(slice: &[T], bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asking for an address does nothing if there is no memory behind it, and every x86-64 can ask.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(slice.as_ptr().cast::<i8>().wrapping_add(bytes));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, bytes);
}

/// A vector of 32-bit sums, one for each of some outputs.
///
/// # Safety
///
/// The methods may be called only where the CPU has the instructions they are made of.
pub(super) trait Lanes {
    /// Outputs in a vector.
    const COUNT: usize;
    type Sums: Copy;
    type Weights: Copy;
    /// Weights of 4 bits, each in a byte.
    type Nibbles: Copy;
    /// What the products of 32 inputs with weights of 4 bits add up to.
    type Parts: Copy;
    type Totals: Copy;

    /// Sums of nothing; `offset` where weights are multiplied with the 128 that were added to them.
    unsafe fn start(offset: i32) -> Self::Sums;
    /// The weights of `COUNT` outputs, from `COUNT · WORD` bytes that may be read.
    unsafe fn load(bytes: *const u8) -> Self::Weights;
    /// Adds to each sum the products of four weights with the four inputs of a word.
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, word: i32) -> Self::Sums;

    /// Parts of nothing; `offset`, which is even, where weights are multiplied with the 8 that were added to them.
    unsafe fn start_parts(offset: i32) -> Self::Parts;
    /// The weights of `COUNT` outputs for two words, from `COUNT · WORD` bytes that may be read: those for the first in the
    /// lower halves of the bytes.
    unsafe fn load_nibbles(bytes: *const u8) -> [Self::Nibbles; 2];
    /// Adds the products of four weights with the four inputs of a word, of which there may be eight.
    unsafe fn add_parts(parts: Self::Parts, weights: Self::Nibbles, word: i32) -> Self::Parts;
    /// `sums + parts · scales`, of which `COUNT` may be read.
    unsafe fn add_scaled(sums: Self::Sums, parts: Self::Parts, scales: *const i8) -> Self::Sums;

    unsafe fn zero() -> Self::Totals;
    /// `totals + sums · scale`, rounded once.
    unsafe fn scaled(totals: Self::Totals, sums: Self::Sums, scale: f32) -> Self::Totals;
    /// Writes `totals · scales`, of `COUNT` each.
    unsafe fn store(totals: Self::Totals, scales: *const f32, to: *mut f32);
}

/// Picks the code for the number of rows: up to `FEW` of them go through two vectors at a time, which leaves their sums
/// in registers, more through one.
#[inline(always)]
unsafe fn by_rows<L: Lanes, B: Block, const FEW: usize>(
    tile: &Tile<'_>,
    panel: &[B],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    macro_rules! pick {
        ($($rows:literal)*) => {
            match tile.rows {
                $($rows => {
                    if $rows <= FEW {
                        unsafe { all::<L, B, 2, $rows>(tile, panel, scales, results, at) }
                    } else {
                        unsafe { all::<L, B, 1, $rows>(tile, panel, scales, results, at) }
                    }
                })*
                _ => unreachable!("a tile has at most 12 rows"),
            }
        };
    }
    pick!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// R rows through V vectors at a time.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // several arrays go by the same index
unsafe fn all<L: Lanes, B: Block, const V: usize, const R: usize>(
    tile: &Tile<'_>,
    panel: &[B],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    let (words, offsets) = (tile.words.as_chunks::<R>().0, tile.offsets.as_chunks::<R>().0);
    let input_scales = tile.scales.as_chunks::<R>().0;
    let next = (R >= worth_prefetching()).then_some(size_of_val(panel));
    for first in (0..PANEL).step_by(V * L::COUNT) {
        // SAFETY: vectors are read from output `first + v · COUNT` of a block on, and `store` reads as many scales and writes
        // as many of the PANEL entries that `to` is checked to have; PANEL is a multiple of V · COUNT.
        unsafe {
            let mut totals = [[L::zero(); V]; R];
            let blocks = panel.chunks(GROUP / (B::WORDS * WORD));
            let groups = blocks.zip(words.chunks(GROUP / WORD)).zip(offsets.chunks(GROUP / B::OFFSET_INPUTS));
            for (((blocks, words), offsets), scales) in groups.zip(input_scales) {
                let sums = B::sums::<L, V, R>(blocks, words, offsets, first, next);
                for r in 0..R {
                    for v in 0..V {
                        totals[r][v] = L::scaled(totals[r][v], sums[r][v], scales[r]);
                    }
                }
            }
            for r in 0..R {
                let to = &mut results[r][at..at + PANEL];
                for v in 0..V {
                    let output = first + v * L::COUNT;
                    L::store(totals[r][v], scales.as_ptr().add(output), to.as_mut_ptr().add(output));
                }
            }
        }
    }
}
