use super::{Lanes, WORD};

/// Plain Rust: right on every CPU, and what the others are tested against.
pub(super) struct Portable;

impl Lanes for Portable {
    const COUNT: usize = 8;
    type Sums = [i32; 8];
    type Weights = [[i8; WORD]; 8];
    type Nibbles = [[i8; WORD]; 8];
    type Parts = [i32; 8];
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
    unsafe fn start_parts(_offset: i32) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn load_nibbles(bytes: *const u8) -> [[[i8; WORD]; 8]; 2] {
        // SAFETY: the caller lets these bytes be read, and an array of bytes lies anywhere.
        let bytes = unsafe { bytes.cast::<[[u8; WORD]; 8]>().read() };
        let signed = |half: u8| half as i8 - 8;
        [bytes.map(|word| word.map(|byte| signed(byte & 15))), bytes.map(|word| word.map(|byte| signed(byte >> 4)))]
    }

    #[inline(always)]
    unsafe fn add_parts(parts: [i32; 8], weights: [[i8; WORD]; 8], word: i32) -> [i32; 8] {
        // SAFETY: plain Rust.
        unsafe { Self::add(parts, weights, word) }
    }

    #[inline(always)]
    unsafe fn add_scaled(mut sums: [i32; 8], parts: [i32; 8], scales: *const i8) -> [i32; 8] {
        for (i, (sum, part)) in sums.iter_mut().zip(parts).enumerate() {
            // SAFETY: the caller lets eight scales be read.
            *sum += part * i32::from(unsafe { scales.add(i).read() });
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
