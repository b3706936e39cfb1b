use super::{Lanes, PANEL, WORD, prefetch};

/// The weights of `PANEL` outputs for some inputs, as they lie in memory.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // the shapes of tiles there
pub(in crate::backend::kernel) trait Block: Copy + Send + Sync + 'static {
    /// Words of inputs.
    const WORDS: usize;
    /// How many inputs the kernel wants the sum of, and times what, to take back what was added to the weights.
    const OFFSET_INPUTS: usize;
    const OFFSET: i32;
    /// The most rows of a tile on AVX2.
    const AVX2_ROWS: usize;
    /// Whether on AVX-512 more than six rows go through two vectors at a time too: their sums alone fit the registers.
    const VNNI_PAIRS: bool;

    /// The same blocks, if they are such of 8 bits.
    fn int8(blocks: &[Self]) -> Option<&[Int8Block]>;

    /// The products of R rows of inputs, a group of them, with V vectors of outputs from `first` on. While they are computed the CPU
    /// is told that the same of the panel `next` bytes later is needed soon, if one is named.
    ///
    /// # Safety
    ///
    /// The CPU must have the instructions of L, and `first + V · COUNT` be at most `PANEL`.
    unsafe fn sums<L: Lanes, const V: usize, const R: usize>(
        blocks: &[Self],
        words: &[[i32; R]],
        offsets: &[[i32; R]],
        first: usize,
        next: Option<usize>,
    ) -> [[L::Sums; V]; R];
}

/// Weights of 8 bits for four inputs, 128 added to each so that it is unsigned. It begins with a cache line: what lies in two takes twice the
/// time to load, and six times as a row of a tile of AMX.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(in crate::backend::kernel) struct Int8Block(pub(in crate::backend::kernel) [[u8; WORD]; PANEL]);

impl Block for Int8Block {
    const WORDS: usize = 1;
    const OFFSET_INPUTS: usize = super::GROUP;
    const OFFSET: i32 = -128;
    const AVX2_ROWS: usize = 4;
    const VNNI_PAIRS: bool = true;

    fn int8(blocks: &[Self]) -> Option<&[Int8Block]> {
        Some(blocks)
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // several arrays go by the same index
    unsafe fn sums<L: Lanes, const V: usize, const R: usize>(
        blocks: &[Self],
        words: &[[i32; R]],
        offsets: &[[i32; R]],
        first: usize,
        next: Option<usize>,
    ) -> [[L::Sums; V]; R] {
        // SAFETY: a vector of COUNT outputs is read from `first + v · COUNT` on, which the caller keeps within a block.
        unsafe {
            let mut sums = [[L::start(0); V]; R];
            for r in 0..R {
                sums[r] = [L::start(offsets[0][r]); V];
            }
            for (block, words) in blocks.iter().zip(words) {
                let bytes = block.0.as_flattened();
                if let Some(next) = next {
                    for v in 0..V {
                        prefetch(bytes, next + (first + v * L::COUNT) * WORD);
                    }
                }
                let mut weights = [L::load(bytes.as_ptr().add(first * WORD)); V];
                for v in 1..V {
                    weights[v] = L::load(bytes.as_ptr().add((first + v * L::COUNT) * WORD));
                }
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = L::add(sums[r][v], weights[v], words[r]);
                    }
                }
            }
            sums
        }
    }
}

/// Weights of 4 bits for 32 inputs, 8 added to each so that it is unsigned.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(in crate::backend::kernel) struct Int4Block {
    /// Two words in each: the weights for the first in the lower halves of the bytes.
    pub(in crate::backend::kernel) pairs: [[[u8; WORD]; PANEL]; 4],
    /// What each output's weights are to be multiplied with beside the scale of the output.
    pub(in crate::backend::kernel) scales: [i8; PANEL],
}

impl Block for Int4Block {
    const WORDS: usize = 8;
    const OFFSET_INPUTS: usize = Self::WORDS * WORD;
    const OFFSET: i32 = -8;
    const AVX2_ROWS: usize = 8;
    const VNNI_PAIRS: bool = false;

    fn int8(_: &[Self]) -> Option<&[Int8Block]> {
        None
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // several arrays go by the same index
    unsafe fn sums<L: Lanes, const V: usize, const R: usize>(
        blocks: &[Self],
        words: &[[i32; R]],
        offsets: &[[i32; R]],
        first: usize,
        next: Option<usize>,
    ) -> [[L::Sums; V]; R] {
        // SAFETY: vectors of COUNT outputs are read from `first + v · COUNT` on, which the caller keeps within a block.
        unsafe {
            let mut sums = [[L::start(0); V]; R];
            for ((block, words), offsets) in blocks.iter().zip(words.chunks(Self::WORDS)).zip(offsets) {
                let mut parts = [[L::start_parts(0); V]; R];
                for r in 0..R {
                    parts[r] = [L::start_parts(offsets[r]); V];
                }
                for (pair, words) in block.pairs.iter().zip(words.as_chunks::<2>().0) {
                    let bytes = pair.as_flattened();
                    for v in 0..V {
                        let at = (first + v * L::COUNT) * WORD;
                        if let Some(next) = next {
                            prefetch(bytes, next + at);
                        }
                        let weights = L::load_nibbles(bytes.as_ptr().add(at));
                        for half in 0..2 {
                            for r in 0..R {
                                parts[r][v] = L::add_parts(parts[r][v], weights[half], words[half][r]);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        let scales = block.scales.as_ptr().add(first + v * L::COUNT);
                        sums[r][v] = L::add_scaled(sums[r][v], parts[r][v], scales);
                    }
                }
            }
            sums
        }
    }
}
