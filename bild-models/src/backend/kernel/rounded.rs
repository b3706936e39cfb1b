//! A few rows times a weight matrix of integers.
//!
//! Weights have a scale for each output (and with 4 bits a factor for each 32 inputs), inputs one for each group of 128, so that
//! a large input among them costs the others of its group alone their precision. Products are added up exactly within a group,
//! and groups in order: the bits of a row depend neither on the other rows nor on the CPU.

use std::fmt;

use aligned_vec::{AVec, avec};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    PANEL,
    lanes::{Block, GROUP, Kind, Tile, WORD},
    parts as threads_for,
    product::{copy_block, in_panels},
};
use crate::backend::{Threads, precision::round};

/// How weights are rounded to whole numbers and lie in a block.
pub(super) trait Rounded: Block {
    /// Of weights that are 0.
    const EMPTY: Self;

    /// Rounds the weights of an output into a lane of blocks, and returns the scale of that output.
    fn put(blocks: &mut [Self], lane: usize, row: &[f32]) -> f32;

    /// The weights of an output, to be multiplied with its scale.
    fn lane(&self, lane: usize) -> impl Iterator<Item = i16>;

    /// Copies one lane of a block to one of this.
    fn copy(&mut self, to: usize, from: &Self, lane: usize);
}

/// A weight matrix of integers, cut into panels of `PANEL` outputs: `[ceil(outputs / PANEL), ceil(inputs / inputs of a block)]`
/// blocks.
#[derive(Clone)]
pub(super) struct RoundedPanels<B> {
    blocks: Vec<B>,
    /// One for each output, 0 where the last panel is filled up.
    scales: Vec<[f32; PANEL]>,
    width: usize,
    outputs: usize,
    threads: Threads,
}

impl<B> fmt::Debug for RoundedPanels<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundedPanels")
            .field("width", &self.width)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl<B: Rounded> RoundedPanels<B> {
    /// A matrix of `[outputs, width]` whose rows are yet to come, multiplied with by these threads.
    pub(super) fn new(outputs: usize, width: usize, threads: Threads) -> Self {
        Self { blocks: Vec::new(), scales: Vec::new(), width, outputs, threads }
    }

    /// Rounds and adds the next `PANEL` rows, or the last ones.
    pub(super) fn push(&mut self, rows: &[f32]) {
        if self.blocks.is_empty() {
            // Not before: that the file holds such a matrix is known now.
            let panels = self.outputs.div_ceil(PANEL);
            self.blocks.reserve_exact(panels * self.count());
            self.scales.reserve_exact(panels);
        }
        let begin = self.blocks.len();
        self.blocks.resize(begin + self.count(), B::EMPTY);
        let mut scales = [0.0; PANEL];
        for (lane, row) in rows.chunks_exact(self.width).enumerate() {
            scales[lane] = B::put(&mut self.blocks[begin..], lane, row);
        }
        self.scales.push(scales);
    }

    /// Blocks of a panel.
    fn count(&self) -> usize {
        self.width.div_ceil(B::WORDS * WORD)
    }

    /// A row as it was added, rounded; `[width]`.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let blocks = &self.blocks[panel * self.count()..][..self.count()];
        let scale = self.scales[panel][lane];
        blocks
            .iter()
            .flat_map(move |block| block.lane(lane))
            .take(self.width)
            .map(move |weight| f32::from(weight) * scale)
    }

    /// The matrix of some of its rows, as they were rounded.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        let count = self.count();
        let panels = rows.len().div_ceil(PANEL);
        let (mut blocks, mut scales) = (vec![B::EMPTY; panels * count], vec![[0.0; PANEL]; panels]);
        for ((to, to_scales), rows) in blocks.chunks_exact_mut(count).zip(&mut scales).zip(rows.chunks(PANEL)) {
            for (to_lane, &row) in rows.iter().enumerate() {
                let (panel, lane) = (row as usize / PANEL, row as usize % PANEL);
                to_scales[to_lane] = self.scales[panel][lane];
                for (to, from) in to.iter_mut().zip(&self.blocks[panel * count..]) {
                    to.copy(to_lane, from, lane);
                }
            }
        }
        Self { blocks, scales, width: self.width, outputs: rows.len(), threads: self.threads.clone() }
    }

    /// `x` (`[rows, width]`) times the transpose of the matrix: `[rows, outputs]`.
    pub(super) fn product(&self, x: &[f32]) -> Vec<f32> {
        self.product_by(Kind::best::<B>(self.width, x.len() / self.width), x, 1)
    }

    /// The same of inputs with 16 bits: what rounding to 8 leaves of each row is a row by itself, and the products are added.
    pub(super) fn fine_product(&self, x: &[f32]) -> Vec<f32> {
        let both = [x, &left_by_rounding(x, self.width)].concat();
        self.product_by(Kind::best::<B>(self.width, both.len() / self.width), &both, 2)
    }

    /// Of so many `parts` of `x` with as many rows each, whose products are added.
    fn product_by(&self, kind: Kind, x: &[f32], parts: usize) -> Vec<f32> {
        let all = x.len() / self.width;
        let rows = all / parts;
        // A byte takes a quarter of the time that a float takes.
        let threads = threads_for(&self.threads, all, self.blocks.len() * size_of::<B>() / 4);
        let count = self.count();
        let inputs = Inputs::round::<B>(x, self.width, kind, threads > 1);
        in_panels(rows, self.outputs, threads, |first, results| {
            let panels = self.blocks[first * count..].chunks_exact(count).zip(&self.scales[first..]);
            let count = results[0].len().div_ceil(PANEL);
            let kind = kind.ready();
            let mut block = vec![];
            for (i, (panel, scales)) in panels.take(count).enumerate() {
                let multiply = |results: &mut [&mut [f32]], at| {
                    for (tile, results) in inputs.tiles().zip(results.chunks_mut(inputs.share)) {
                        kind.multiply(&tile, panel, scales, results, at);
                    }
                };
                let at = i * PANEL;
                if parts == 1 && results[0].len() - at >= PANEL {
                    multiply(results, at);
                    continue;
                }
                block.resize(all * PANEL, 0.0);
                multiply(&mut block.chunks_exact_mut(PANEL).collect::<Vec<_>>(), 0);
                let (sums, others) = block.split_at_mut(rows * PANEL);
                for part in others.chunks_exact(rows * PANEL) {
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                }
                copy_block(sums, at, results);
            }
        })
    }
}

/// What is left of rows of `width` once they have been rounded to 8 bits in groups.
fn left_by_rounding(x: &[f32], width: usize) -> Vec<f32> {
    let mut left = x.to_vec();
    for group in left.chunks_mut(width).flat_map(|row| row.chunks_mut(GROUP)) {
        let mut rounded = [0; GROUP];
        let scale = round(group, &mut rounded);
        group.iter_mut().zip(rounded).for_each(|(x, rounded)| *x -= f32::from(rounded) * scale);
    }
    left
}

/// Rows of inputs rounded to 8 bits, tile after tile.
struct Inputs {
    /// Rows of a tile; the last one may have fewer.
    share: usize,
    /// For each row: words, scales, offsets.
    counts: [usize; 3],
    words: AVec<i32>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl Inputs {
    fn round<B: Block>(x: &[f32], width: usize, kind: Kind, shared: bool) -> Self {
        let rows = x.len() / width;
        let words = width.div_ceil(B::WORDS * WORD) * B::WORDS;
        let counts = [words, width.div_ceil(GROUP), (words * WORD).div_ceil(B::OFFSET_INPUTS)];
        let most = kind.most_rows::<B>();
        let even = rows.div_ceil(rows.div_ceil(most));
        let share = kind.by_row().map_or(even, |by| even.next_multiple_of(by));
        let mut words = avec![0; rows.next_multiple_of(kind.by_row().unwrap_or(1)) * counts[0]];
        let (mut scales, mut offsets) = (vec![0.0; rows * counts[1]], vec![0; rows * counts[2]]);
        let sizes = counts.map(|count| share * count);
        let words_of_row = kind.by_row().map(|_| counts[0]);
        let round = |(((x, words), scales), offsets)| {
            let sums = [B::OFFSET_INPUTS as i32, B::OFFSET];
            Arch::new().dispatch(Round { x, width, words, words_of_row, scales, offsets, sums });
        };
        if shared && rows > share {
            let tiles = x.par_chunks(share * width).zip(words.par_chunks_mut(sizes[0]));
            tiles.zip(scales.par_chunks_mut(sizes[1])).zip(offsets.par_chunks_mut(sizes[2])).for_each(round);
        } else {
            let tiles = x.chunks(share * width).zip(words.chunks_mut(sizes[0]));
            tiles.zip(scales.chunks_mut(sizes[1])).zip(offsets.chunks_mut(sizes[2])).for_each(round);
        }
        Self { share, counts, words, scales, offsets }
    }

    fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        let [words, scales, offsets] = self.counts.map(|count| self.share * count);
        let scales = self.scales.chunks(scales).zip(self.offsets.chunks(offsets));
        self.words.chunks(words).zip(scales).map(|(words, (scales, offsets))| Tile {
            rows: scales.len() / self.counts[1],
            words,
            scales,
            offsets,
        })
    }
}

/// Rounds the rows of a tile.
struct Round<'a> {
    x: &'a [f32],
    width: usize,
    words: &'a mut [i32],
    /// How many, where they lie row after row.
    words_of_row: Option<usize>,
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
    /// Of how many inputs an offset is the sum, and times what.
    sums: [i32; 2],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.x.len() / self.width;
        let [inputs, factor] = self.sums;
        let (row_step, word_step) = self.words_of_row.map_or((1, rows), |words| (words, 1));
        for (row, x) in self.x.chunks_exact(self.width).enumerate() {
            let mut offsets = self.offsets[row..].iter_mut().step_by(rows);
            for (group, x) in x.chunks(GROUP).enumerate() {
                let mut rounded = [0; GROUP];
                self.scales[group * rows + row] = round(x, &mut rounded);
                for (some, offset) in rounded[..x.len()].chunks(inputs as usize).zip(offsets.by_ref()) {
                    *offset = factor * some.iter().map(|&x| i32::from(x)).sum::<i32>();
                }
                let begin = group * (GROUP / WORD) * word_step + row * row_step;
                let words = self.words[begin..].iter_mut().step_by(word_step);
                let count = x.len().div_ceil(WORD);
                for (word, bytes) in words.zip(&rounded.as_chunks::<WORD>().0[..count]) {
                    *word = i32::from_le_bytes(bytes.map(|byte| byte as u8));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{
        kernel::{
            check_selection, in_threads,
            lanes::{Int4Block, Int8Block},
            values, worth_trying,
        },
        precision::{round_to_int4, round_to_int8},
    };

    fn panels<B: Rounded>(weight: &[f32], width: usize) -> RoundedPanels<B> {
        panels_for(weight, width, Threads::new(1).unwrap())
    }

    fn panels_for<B: Rounded>(weight: &[f32], width: usize, threads: Threads) -> RoundedPanels<B> {
        let mut panels = RoundedPanels::new(weight.len() / width, width, threads);
        weight.chunks(PANEL * width).for_each(|rows| panels.push(rows));
        panels
    }

    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (3, 5), (16, 8), (17, 9), (48, 23), (100, 37), (192, 101), (130, 64), (1024, 515)];

    #[test]
    fn rows_are_found_again_as_they_were_rounded() {
        rows_are_found_again::<Int8Block>(round_to_int8);
        rows_are_found_again::<Int4Block>(round_to_int4);
    }

    fn rows_are_found_again<B: Rounded>(round: fn(&mut [f32], usize)) {
        for (width, outputs) in SHAPES.into_iter().filter(worth_trying) {
            let mut weight = values(outputs * width, 7);
            let panels = panels::<B>(&weight, width);
            round(&mut weight, width);
            for (i, row) in weight.chunks_exact(width).enumerate() {
                assert!(panels.row(i).eq(row.iter().copied()), "row {i} of {outputs}");
            }
            let x = values(2 * width, 1);
            check_selection(outputs, &panels.product(&x), |some| panels.select(some).product(&x));
        }
    }

    /// Rows that are alike would hide a mistake in their order: each has a size of its own.
    fn rows_of_many_sizes(rows: usize, width: usize) -> Vec<f32> {
        let x = values(rows * width, 1);
        let size = |i: usize| 0.1 * (1 + i / width) as f32 * if (i % width).is_multiple_of(61) { 30.0 } else { 1.0 };
        x.iter().enumerate().map(|(i, x)| x * size(i)).collect()
    }

    #[test]
    fn near_the_product_of_what_was_not_rounded() {
        near_the_product::<Int8Block>(127.0);
        near_the_product::<Int4Block>(9.0);
    }

    fn near_the_product<B: Rounded>(steps: f64) {
        for rows in [1, 2, 5, 7, 12, 13, 25, 40] {
            for (width, outputs) in SHAPES.into_iter().filter(worth_trying) {
                let (x, weight) = (rows_of_many_sizes(rows, width), values(outputs * width, 2));
                let found = panels::<B>(&weight, width).product(&x);
                for (r, row) in found.chunks_exact(outputs).enumerate() {
                    let x = &x[r * width..][..width];
                    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                    for (o, &found) in row.iter().enumerate() {
                        let w = &weight[o * width..][..width];
                        let expected: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                        // Half a step of an input and of a weight, of random sign.
                        let tolerance = f64::from(largest) / steps * (width as f64).sqrt() * 2.0;
                        assert!((f64::from(found) - expected).abs() < tolerance, "{rows} {width} {outputs}");
                    }
                }
            }
        }
    }

    #[test]
    fn inputs_of_16_bits_are_nearly_as_they_were() {
        for (width, outputs) in SHAPES.into_iter().filter(worth_trying) {
            let (x, panels) = (rows_of_many_sizes(3, width), panels::<Int8Block>(&values(outputs * width, 2), width));
            let found = panels.fine_product(&x);
            assert_eq!(found.len(), 3 * outputs);
            for (x, found) in x.chunks_exact(width).zip(found.chunks_exact(outputs)) {
                for (o, &found) in found.iter().enumerate() {
                    let products = || x.iter().zip(panels.row(o)).map(|(&x, w)| f64::from(x) * f64::from(w));
                    let tolerance = products().map(f64::abs).sum::<f64>() / 5_000.0;
                    assert!((f64::from(found) - products().sum::<f64>()).abs() <= tolerance, "{width} {outputs}");
                }
            }
        }
    }

    #[test]
    fn every_kind_of_cpu_gives_the_same_bits() {
        kinds_agree::<Int8Block>();
        kinds_agree::<Int4Block>();
    }

    fn kinds_agree<B: Rounded>() {
        for rows in (1..=14).chain([16, 17, 32, 33, 50]) {
            for (width, outputs) in SHAPES.into_iter().filter(worth_trying) {
                let x = rows_of_many_sizes(rows, width);
                let panels = panels::<B>(&values(outputs * width, 2), width);
                let parts = 2 - rows % 2;
                let portable: Vec<u32> =
                    panels.product_by(Kind::Portable, &x, parts).iter().map(|value| value.to_bits()).collect();
                for kind in Kind::all::<B>(width) {
                    let same =
                        panels.product_by(kind, &x, parts).iter().map(|value| value.to_bits()).eq(portable.clone());
                    assert!(same, "{kind:?}: {rows} rows of {width} to {outputs}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        rows_are_independent::<Int8Block>();
        rows_are_independent::<Int4Block>();
    }

    fn rows_are_independent<B: Rounded>() {
        // The largest is shared between threads.
        for (width, outputs) in [(3, 5), (17, 9), (192, 101), (1024, 3201)] {
            let (x, weight) = (rows_of_many_sizes(30, width), values(outputs * width, 4));
            for product in [RoundedPanels::<B>::product, RoundedPanels::<B>::fine_product] {
                let (x, weight, own) = (x.clone(), weight.clone(), panels::<B>(&weight, width));
                let alone: Vec<f32> = x.chunks_exact(width).flat_map(|row| product(&own, row)).collect();
                in_threads(move |threads| {
                    let panels = panels_for::<B>(&weight, width, threads);
                    for rows in 1..=30 {
                        let together = product(&panels, &x[..rows * width]);
                        let same = together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{rows} rows of {width} to {outputs}");
                    }
                });
            }
        }
    }

    #[test]
    fn extremes_neither_wrap_nor_vanish() {
        extremes_hold::<Int8Block>();
        extremes_hold::<Int4Block>();
    }

    fn extremes_hold<B: Rounded>() {
        let width = 256;
        // The largest sums there are, and half of each sign: what is taken back of what was added to the weights is largest, or 0.
        for (sign, split) in [(1.0, 1), (-1.0, 1), (1.0, 2), (-1.0, 2), (1.0, 16), (-1.0, 16)] {
            let sign = |i: usize| if split == 1 || i % (4 * split) < 2 * split { sign } else { -sign };
            let row: Vec<f32> = (0..width).map(sign).collect();
            let panels = panels::<B>(&row.repeat(40), width);
            let expected: f32 = panels.row(0).map(f32::abs).sum();
            assert!((expected - width as f32).abs() < 1e-3);
            for kind in Kind::all::<B>(width) {
                let found = panels.product_by(kind, &row.repeat(13), 1);
                assert!(found.iter().all(|value| (value - width as f32).abs() < 1e-3), "{kind:?}: {found:?}");
            }
        }
        let panels = panels::<B>(&vec![0.5; 3 * width], width);
        for tiny in [0.0, f32::from_bits(1), 1e-38] {
            assert!(panels.product(&vec![tiny; width]).iter().all(|value| value.abs() < 1e-35));
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2 * width];
            x[200] = bad;
            let found = panels.product(&x);
            assert!(found[..3].iter().all(|value| !value.is_finite()), "{bad} is lost: {found:?}");
            assert!(found[3..].iter().all(|value| value.is_finite()), "{bad} reaches another row: {found:?}");
        }
    }
}
