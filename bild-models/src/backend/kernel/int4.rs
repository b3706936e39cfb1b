use super::{
    PANEL,
    lanes::{Int4Block, WORD},
    rounded::Rounded,
};
use crate::backend::precision::{FACTOR_INPUTS, round_to_4_bits};

impl Rounded for Int4Block {
    const EMPTY: Self = Self { pairs: [[[0x88; WORD]; PANEL]; 4], scales: [0; PANEL] };

    fn put(blocks: &mut [Self], lane: usize, row: &[f32]) -> f32 {
        let mut rounded = vec![[0; FACTOR_INPUTS]; blocks.len()];
        let mut factors = vec![0; blocks.len()];
        let scale = round_to_4_bits(row, &mut rounded, &mut factors);
        for ((block, weights), factor) in blocks.iter_mut().zip(&rounded).zip(factors) {
            block.scales[lane] = factor;
            for (pair, weights) in block.pairs.iter_mut().zip(weights.as_chunks::<{ 2 * WORD }>().0) {
                for (i, byte) in pair[lane].iter_mut().enumerate() {
                    *byte = (weights[i] + 8) as u8 | ((weights[WORD + i] + 8) as u8) << 4;
                }
            }
        }
        scale
    }

    fn lane(&self, lane: usize) -> impl Iterator<Item = i16> {
        let factor = i16::from(self.scales[lane]);
        let halves = self.pairs.iter().flat_map(move |pair| {
            let word = pair[lane];
            word.into_iter().map(|byte| byte & 15).chain(word.into_iter().map(|byte| byte >> 4))
        });
        halves.map(move |half| (i16::from(half) - 8) * factor)
    }

    fn copy(&mut self, to: usize, from: &Self, lane: usize) {
        self.scales[to] = from.scales[lane];
        for (pair, from) in self.pairs.iter_mut().zip(&from.pairs) {
            pair[to] = from[lane];
        }
    }
}
