use std::arch::aarch64::*;

use super::{Block, Lanes, PANEL, Tile, by_rows};

#[target_feature(enable = "neon")]
pub(super) unsafe fn neon<B: Block>(
    tile: &Tile<'_>,
    panel: &[B],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    unsafe { by_rows::<Neon, B, 4>(tile, panel, scales, results, at) }
}

/// Pairs of products are added in 16 bits, which hold them as no byte is −128.
struct Neon;

impl Lanes for Neon {
    const COUNT: usize = 4;
    type Sums = int32x4_t;
    type Weights = int8x16_t;
    type Nibbles = int8x16_t;
    /// Of eight products each, for two outputs and for the next two.
    type Parts = [int16x8_t; 2];
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
    unsafe fn start_parts(_offset: i32) -> [int16x8_t; 2] {
        unsafe { [vdupq_n_s16(0); 2] }
    }

    #[inline(always)]
    unsafe fn load_nibbles(bytes: *const u8) -> [int8x16_t; 2] {
        unsafe {
            let (both, added) = (vld1q_u8(bytes), vdupq_n_s8(8));
            let (low, high) = (vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both));
            [vsubq_s8(vreinterpretq_s8_u8(low), added), vsubq_s8(vreinterpretq_s8_u8(high), added)]
        }
    }

    #[inline(always)]
    unsafe fn add_parts(parts: [int16x8_t; 2], weights: int8x16_t, word: i32) -> [int16x8_t; 2] {
        unsafe {
            let inputs = vreinterpretq_s8_s32(vdupq_n_s32(word));
            let low = vmlal_s8(parts[0], vget_low_s8(weights), vget_low_s8(inputs));
            [low, vmlal_high_s8(parts[1], weights, inputs)]
        }
    }

    #[inline(always)]
    unsafe fn add_scaled(sums: int32x4_t, parts: [int16x8_t; 2], scales: *const i8) -> int32x4_t {
        unsafe {
            let parts = vpaddlq_s16(vpaddq_s16(parts[0], parts[1]));
            // Four bytes, which need not lie at a multiple of four.
            let scales = vcreate_s8(u64::from(scales.cast::<u32>().read_unaligned()));
            vmlaq_s32(sums, parts, vmovl_s16(vget_low_s16(vmovl_s8(scales))))
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
