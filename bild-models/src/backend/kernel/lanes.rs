//! Products of 8-bit integers, by the instructions that each kind of CPU has for them. All sums are exact, so that all
//! kinds give the same bits.
//!
//! The only module with `unsafe`: the instructions are there on some CPUs alone, and no library offers them all.
#![allow(unsafe_code)]

use super::{PANEL, WORTH_PREFETCHING};

/// Inputs whose products an instruction adds up at a time: a word of four bytes.
pub(super) const WORD: usize = 4;

/// One step through a panel: the weights of `PANEL` outputs for four inputs, 128 added to each so that it is unsigned.
pub(super) type Step = [u8; PANEL * WORD];

/// Some rows of inputs, rounded to 8 bits in groups, that are multiplied together.
pub(super) struct Tile<'a> {
    pub(super) rows: usize,
    /// Steps in a group; the last one may be shorter.
    pub(super) group: usize,
    /// `[steps, rows]`: four inputs in each, the first in the lowest byte.
    pub(super) words: &'a [i32],
    /// `[groups, rows]`: the scale of the inputs of a group.
    pub(super) scales: &'a [f32],
    /// `[groups, rows]`: −128 times the sum of the inputs of a group, which takes back what was added to the weights.
    pub(super) offsets: &'a [i32],
}

/// Which instructions to multiply with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Kind {
    /// Those that this CPU has, the best first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = {
            let vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            [vnni.then_some(Self::Vnni), avx2.then_some(Self::Avx2)]
        };
        #[cfg(target_arch = "aarch64")]
        let special = [std::arch::is_aarch64_feature_detected!("neon").then_some(Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let special = [None];
        special.into_iter().flatten().chain([Self::Portable])
    }

    /// The most rows of a tile: as many as the sums of which fit the registers.
    pub(super) fn most_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => 12,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => 8,
            _ => 4,
        }
    }

    /// A tile times a panel whose outputs have these scales, into `block` (`[rows, PANEL]`).
    pub(super) fn multiply(self, tile: &Tile<'_>, panel: &[Step], scales: &[f32; PANEL], block: &mut [f32]) {
        assert!((1..=self.most_rows()).contains(&tile.rows) && block.len() == tile.rows * PANEL);
        assert_eq!(tile.words.len(), panel.len() * tile.rows);
        let groups = panel.len().div_ceil(tile.group) * tile.rows;
        assert!(tile.scales.len() == groups && tile.offsets.len() == groups);
        // SAFETY: a kind is made by `all` alone, where the CPU has what it needs.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Vnni => x86::vnni(tile, panel, scales, block),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::avx2(tile, panel, scales, block),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => neon::neon(tile, panel, scales, block),
                Self::Portable => by_rows::<Portable, 1>(tile, panel, scales, block),
            }
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
trait Lanes {
    /// Outputs in a vector.
    const COUNT: usize;
    type Sums: Copy;
    type Weights: Copy;
    type Totals: Copy;

    /// Sums of nothing; `offset` where weights are multiplied with the 128 that were added to them.
    unsafe fn start(offset: i32) -> Self::Sums;
    /// The weights of `COUNT` outputs, from `COUNT · WORD` bytes that may be read.
    unsafe fn load(bytes: *const u8) -> Self::Weights;
    /// Adds to each sum the products of four weights with the four inputs of a word.
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, word: i32) -> Self::Sums;
    unsafe fn zero() -> Self::Totals;
    /// `totals + sums · scale`, rounded once.
    unsafe fn scaled(totals: Self::Totals, sums: Self::Sums, scale: f32) -> Self::Totals;
    /// Writes `totals · scales`, of `COUNT` each.
    unsafe fn store(totals: Self::Totals, scales: *const f32, to: *mut f32);
}

/// Picks the code for the number of rows: up to `FEW` of them go through two vectors at a time, which leaves their sums
/// in registers, more through one.
#[inline(always)]
unsafe fn by_rows<L: Lanes, const FEW: usize>(
    tile: &Tile<'_>,
    panel: &[Step],
    scales: &[f32; PANEL],
    block: &mut [f32],
) {
    macro_rules! pick {
        ($($rows:literal)*) => {
            match tile.rows {
                $($rows => {
                    if $rows <= FEW {
                        unsafe { all::<L, 2, $rows>(tile, panel, scales, block) }
                    } else {
                        unsafe { all::<L, 1, $rows>(tile, panel, scales, block) }
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
unsafe fn all<L: Lanes, const V: usize, const R: usize>(
    tile: &Tile<'_>,
    panel: &[Step],
    scales: &[f32; PANEL],
    block: &mut [f32],
) {
    let words = tile.words.as_chunks::<R>().0;
    let (input_scales, offsets) = (tile.scales.as_chunks::<R>().0, tile.offsets.as_chunks::<R>().0);
    for first in (0..PANEL).step_by(V * L::COUNT) {
        // SAFETY: `load` reads COUNT outputs of a step from output `first + v · COUNT` on, and `store` as many scales and
        // entries of a row of the block; PANEL is a multiple of V · COUNT, and `multiply` has checked that there are R rows.
        unsafe {
            let mut totals = [[L::zero(); V]; R];
            let groups = panel.chunks(tile.group).zip(words.chunks(tile.group));
            for ((steps, words), (scales, offsets)) in groups.zip(input_scales.iter().zip(offsets)) {
                let mut sums = [[L::start(0); V]; R];
                for r in 0..R {
                    sums[r] = [L::start(offsets[r]); V];
                }
                for (step, words) in steps.iter().zip(words) {
                    if R >= WORTH_PREFETCHING {
                        for v in 0..V {
                            prefetch(step, size_of_val(panel) + (first + v * L::COUNT) * WORD);
                        }
                    }
                    let mut weights = [L::load(step.as_ptr().add(first * WORD)); V];
                    for v in 1..V {
                        weights[v] = L::load(step.as_ptr().add((first + v * L::COUNT) * WORD));
                    }
                    for r in 0..R {
                        for v in 0..V {
                            sums[r][v] = L::add(sums[r][v], weights[v], words[r]);
                        }
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        totals[r][v] = L::scaled(totals[r][v], sums[r][v], scales[r]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..V {
                    let at = first + v * L::COUNT;
                    L::store(totals[r][v], scales.as_ptr().add(at), block.as_mut_ptr().add(r * PANEL + at));
                }
            }
        }
    }
}

/// Plain Rust: right on every CPU, and what the others are tested against.
struct Portable;

impl Lanes for Portable {
    const COUNT: usize = 8;
    type Sums = [i32; 8];
    type Weights = [[i8; WORD]; 8];
    type Totals = [f32; 8];

    #[inline(always)]
    unsafe fn start(_offset: i32) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn load(bytes: *const u8) -> [[i8; WORD]; 8] {
        // SAFETY: the caller lets these bytes be read, and an array of bytes lies anywhere.
        let bytes = unsafe { bytes.cast::<[[u8; WORD]; 8]>().read() };
        bytes.map(|word| word.map(|byte| (byte ^ 0x80) as i8))
    }

    #[inline(always)]
    unsafe fn add(mut sums: [i32; 8], weights: [[i8; WORD]; 8], word: i32) -> [i32; 8] {
        let inputs = word.to_le_bytes().map(|byte| i32::from(byte as i8));
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (weight, input) in weights.into_iter().zip(inputs) {
                *sum += i32::from(weight) * input;
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn scaled(mut totals: [f32; 8], sums: [i32; 8], scale: f32) -> [f32; 8] {
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = (sum as f32).mul_add(scale, *total);
        }
        totals
    }

    #[inline(always)]
    unsafe fn store(totals: [f32; 8], scales: *const f32, to: *mut f32) {
        // SAFETY: the caller lets eight scales be read and eight results be written.
        for (i, total) in totals.into_iter().enumerate() {
            unsafe { to.add(i).write(total * scales.add(i).read()) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, PANEL, Step, Tile, by_rows};

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn vnni(tile: &Tile<'_>, panel: &[Step], scales: &[f32; PANEL], block: &mut [f32]) {
        unsafe { by_rows::<Vnni, 6>(tile, panel, scales, block) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(tile: &Tile<'_>, panel: &[Step], scales: &[f32; PANEL], block: &mut [f32]) {
        unsafe { by_rows::<Avx2, 2>(tile, panel, scales, block) }
    }

    /// Four products of unsigned with signed bytes and their sum are one instruction, for 16 outputs.
    struct Vnni;

    impl Lanes for Vnni {
        const COUNT: usize = 16;
        type Sums = __m512i;
        type Weights = __m512i;
        type Totals = __m512;

        #[inline(always)]
        unsafe fn start(offset: i32) -> __m512i {
            unsafe { _mm512_set1_epi32(offset) }
        }

        #[inline(always)]
        unsafe fn load(bytes: *const u8) -> __m512i {
            unsafe { _mm512_loadu_si512(bytes.cast()) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m512i, weights: __m512i, word: i32) -> __m512i {
            unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(word)) }
        }

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn scaled(totals: __m512, sums: __m512i, scale: f32) -> __m512 {
            unsafe { _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(scale), totals) }
        }

        #[inline(always)]
        unsafe fn store(totals: __m512, scales: *const f32, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, _mm512_mul_ps(totals, _mm512_loadu_ps(scales))) }
        }
    }

    /// Pairs of products are added in 16 bits, which hold them as no byte is −128.
    struct Avx2;

    impl Lanes for Avx2 {
        const COUNT: usize = 8;
        type Sums = __m256i;
        type Weights = __m256i;
        type Totals = __m256;

        #[inline(always)]
        unsafe fn start(_offset: i32) -> __m256i {
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn load(bytes: *const u8) -> __m256i {
            unsafe { _mm256_xor_si256(_mm256_loadu_si256(bytes.cast()), _mm256_set1_epi8(-128)) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m256i, weights: __m256i, word: i32) -> __m256i {
            unsafe {
                // The instruction wants one side unsigned: the sign of the weight moves to the input.
                let inputs = _mm256_sign_epi8(_mm256_set1_epi32(word), weights);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), inputs);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn scaled(totals: __m256, sums: __m256i, scale: f32) -> __m256 {
            unsafe { _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(scale), totals) }
        }

        #[inline(always)]
        unsafe fn store(totals: __m256, scales: *const f32, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, _mm256_mul_ps(totals, _mm256_loadu_ps(scales))) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Lanes, PANEL, Step, Tile, by_rows};

    #[target_feature(enable = "neon")]
    pub(super) unsafe fn neon(tile: &Tile<'_>, panel: &[Step], scales: &[f32; PANEL], block: &mut [f32]) {
        unsafe { by_rows::<Neon, 4>(tile, panel, scales, block) }
    }

    /// Pairs of products are added in 16 bits, which hold them as no byte is −128.
    struct Neon;

    impl Lanes for Neon {
        const COUNT: usize = 4;
        type Sums = int32x4_t;
        type Weights = int8x16_t;
        type Totals = float32x4_t;

        #[inline(always)]
        unsafe fn start(_offset: i32) -> int32x4_t {
            unsafe { vdupq_n_s32(0) }
        }

        #[inline(always)]
        unsafe fn load(bytes: *const u8) -> int8x16_t {
            unsafe { vreinterpretq_s8_u8(veorq_u8(vld1q_u8(bytes), vdupq_n_u8(0x80))) }
        }

        #[inline(always)]
        unsafe fn add(sums: int32x4_t, weights: int8x16_t, word: i32) -> int32x4_t {
            unsafe {
                let inputs = vreinterpretq_s8_s32(vdupq_n_s32(word));
                let low = vmull_s8(vget_low_s8(weights), vget_low_s8(inputs));
                let high = vmull_high_s8(weights, inputs);
                vpadalq_s16(sums, vpaddq_s16(low, high))
            }
        }

        #[inline(always)]
        unsafe fn zero() -> float32x4_t {
            unsafe { vdupq_n_f32(0.0) }
        }

        #[inline(always)]
        unsafe fn scaled(totals: float32x4_t, sums: int32x4_t, scale: f32) -> float32x4_t {
            unsafe { vfmaq_f32(totals, vcvtq_f32_s32(sums), vdupq_n_f32(scale)) }
        }

        #[inline(always)]
        unsafe fn store(totals: float32x4_t, scales: *const f32, to: *mut f32) {
            unsafe { vst1q_f32(to, vmulq_f32(totals, vld1q_f32(scales))) }
        }
    }
}
