use super::{
    PANEL,
    lanes::{Int8Block, WORD},
    rounded::Rounded,
};
use crate::backend::precision::round;

impl Rounded for Int8Block {
    const EMPTY: Self = Self([[128; WORD]; PANEL]);

    fn put(blocks: &mut [Self], lane: usize, row: &[f32]) -> f32 {
        let mut rounded = vec![0; row.len().next_multiple_of(WORD)];
        let scale = round(row, &mut rounded);
        for (block, word) in blocks.iter_mut().zip(rounded.as_chunks::<WORD>().0) {
            block.0[lane] = word.map(|weight| weight as u8 ^ 128);
        }
        scale
    }

    fn lane(&self, lane: usize) -> impl Iterator<Item = i16> {
        self.0[lane].into_iter().map(|byte| i16::from((byte ^ 128) as i8))
    }

    fn copy(&mut self, to: usize, from: &Self, lane: usize) {
        self.0[to] = from.0[lane];
    }
}
