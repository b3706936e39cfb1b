use std::arch::x86_64::*;

use super::{Block, Lanes, PANEL, Tile, by_rows};

#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn vnni<B: Block>(
    tile: &Tile<'_>,
    panel: &[B],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    unsafe {
        if B::VNNI_PAIRS {
            by_rows::<Vnni, B, 12>(tile, panel, scales, results, at)
        } else {
            by_rows::<Vnni, B, 6>(tile, panel, scales, results, at)
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2<B: Block>(
    tile: &Tile<'_>,
    panel: &[B],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    unsafe { by_rows::<Avx2, B, 2>(tile, panel, scales, results, at) }
}

/// Four products of unsigned with signed bytes and their sum are one instruction, for 16 outputs.
struct Vnni;

impl Lanes for Vnni {
    const COUNT: usize = 16;
    type Sums = __m512i;
    type Weights = __m512i;
    type Nibbles = __m512i;
    type Parts = __m512i;
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
    unsafe fn start_parts(offset: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(offset) }
    }

    #[inline(always)]
    unsafe fn load_nibbles(bytes: *const u8) -> [__m512i; 2] {
        unsafe {
            let (both, low) = (_mm512_loadu_si512(bytes.cast()), _mm512_set1_epi8(15));
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi32::<4>(both), low)]
        }
    }

    #[inline(always)]
    unsafe fn add_parts(parts: __m512i, weights: __m512i, word: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(parts, weights, _mm512_set1_epi32(word)) }
    }

    #[inline(always)]
    unsafe fn add_scaled(sums: __m512i, parts: __m512i, scales: *const i8) -> __m512i {
        unsafe {
            let scales = _mm512_cvtepi8_epi32(_mm_loadu_si128(scales.cast()));
            _mm512_add_epi32(sums, _mm512_mullo_epi32(parts, scales))
        }
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
    type Nibbles = __m256i;
    /// Sums of pairs of products, in 16 bits: half of 32 products of at most 15 · 127 each, and half of the offset.
    type Parts = __m256i;
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
    unsafe fn start_parts(offset: i32) -> __m256i {
        unsafe { _mm256_set1_epi16((offset / 2) as i16) }
    }

    #[inline(always)]
    unsafe fn load_nibbles(bytes: *const u8) -> [__m256i; 2] {
        unsafe {
            let (both, low) = (_mm256_loadu_si256(bytes.cast()), _mm256_set1_epi8(15));
            [_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16::<4>(both), low)]
        }
    }

    #[inline(always)]
    unsafe fn add_parts(parts: __m256i, weights: __m256i, word: i32) -> __m256i {
        unsafe { _mm256_add_epi16(parts, _mm256_maddubs_epi16(weights, _mm256_set1_epi32(word))) }
    }

    #[inline(always)]
    unsafe fn add_scaled(sums: __m256i, parts: __m256i, scales: *const i8) -> __m256i {
        unsafe {
            let scales = _mm_loadl_epi64(scales.cast());
            let twice = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(scales, scales));
            _mm256_add_epi32(sums, _mm256_madd_epi16(parts, twice))
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
