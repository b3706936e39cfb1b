//! A few rows times a weight matrix of 8-bit integers.
//!
//! Weights have one scale for each output, inputs one for each group, so that a large input among them costs the others
//! of its group alone their precision. Products are added up exactly within a group, and groups in order: the bits of a row
//! depend neither on the other rows nor on the CPU.

use std::fmt;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    PANEL,
    lanes::{Kind, Step, Tile, WORD},
    parts,
    product::{copy_block, in_panels},
};
use crate::backend::{Threads, precision::round};

/// Inputs that share a scale.
const GROUP: usize = 128;

/// A weight matrix of bytes, cut into panels of `PANEL` outputs: `[ceil(outputs / PANEL), ceil(inputs / WORD)]` steps.
#[derive(Clone)]
pub struct Int8Panels {
    steps: Vec<Step>,
    /// One for each output, 0 where the last panel is filled up.
    scales: Vec<[f32; PANEL]>,
    width: usize,
    outputs: usize,
    threads: Threads,
}

impl fmt::Debug for Int8Panels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Int8Panels").field("outputs", &(self.scales.len() * PANEL)).finish_non_exhaustive()
    }
}

impl Int8Panels {
    /// A matrix of `[outputs, width]` whose rows are yet to come, multiplied with by these threads.
    pub fn new(outputs: usize, width: usize, threads: Threads) -> Self {
        Self { steps: Vec::new(), scales: Vec::new(), width, outputs, threads }
    }

    /// Rounds and adds the next `PANEL` rows, or the last ones.
    pub fn push(&mut self, rows: &[f32]) {
        if self.steps.is_empty() {
            // Not before: that the file holds such a matrix is known now.
            let panels = self.outputs.div_ceil(PANEL);
            self.steps.reserve_exact(panels * self.steps_of_panel());
            self.scales.reserve_exact(panels);
        }
        let begin = self.steps.len();
        self.steps.resize(begin + self.steps_of_panel(), [128; PANEL * WORD]);
        let mut scales = [0.0; PANEL];
        let mut rounded = vec![0; self.width.next_multiple_of(WORD)];
        for (lane, row) in rows.chunks_exact(self.width).enumerate() {
            scales[lane] = round(row, &mut rounded);
            for (step, word) in self.steps[begin..].iter_mut().zip(rounded.as_chunks::<WORD>().0) {
                step.as_chunks_mut::<WORD>().0[lane] = word.map(|weight| weight as u8 ^ 128);
            }
        }
        self.scales.push(scales);
    }

    fn steps_of_panel(&self) -> usize {
        self.width.div_ceil(WORD)
    }

    /// A row as it was added, rounded; `[width]`.
    pub fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let steps = &self.steps[panel * self.steps_of_panel()..][..self.steps_of_panel()];
        let scale = self.scales[panel][lane];
        let weights = steps.iter().flat_map(move |step| step[lane * WORD..][..WORD].iter());
        weights.take(self.width).map(move |&weight| f32::from((weight ^ 128) as i8) * scale)
    }

    /// The matrix of some of its rows, as they were rounded.
    pub fn select(&self, rows: &[u32]) -> Self {
        let count = self.steps_of_panel();
        let panels = rows.len().div_ceil(PANEL);
        let (mut steps, mut scales) = (vec![[128; PANEL * WORD]; panels * count], vec![[0.0; PANEL]; panels]);
        for ((to, to_scales), rows) in steps.chunks_exact_mut(count).zip(&mut scales).zip(rows.chunks(PANEL)) {
            for (to_lane, &row) in rows.iter().enumerate() {
                let (panel, lane) = (row as usize / PANEL, row as usize % PANEL);
                to_scales[to_lane] = self.scales[panel][lane];
                for (to, from) in to.iter_mut().zip(&self.steps[panel * count..]) {
                    to[to_lane * WORD..][..WORD].copy_from_slice(&from[lane * WORD..][..WORD]);
                }
            }
        }
        Self { steps, scales, width: self.width, outputs: rows.len(), threads: self.threads.clone() }
    }

    /// `x` (`[rows, width]`) times the transpose of the matrix: `[rows, outputs]`.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        self.product_by(Kind::all().next().expect("the portable kind is always there"), x)
    }

    fn product_by(&self, kind: Kind, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.width;
        // A byte takes a quarter of the time that a float takes.
        let parts = parts(&self.threads, rows, self.steps.len() * size_of::<Step>() / 4);
        let inputs = Inputs::round(x, self.width, kind.most_rows(), parts > 1);
        let steps = self.steps_of_panel();
        in_panels(rows, self.outputs, parts, |first, results| {
            let panels = self.steps[first * steps..].chunks_exact(steps).zip(&self.scales[first..]);
            let mut block = vec![0.0; rows * PANEL];
            for (i, (panel, scales)) in panels.take(results[0].len().div_ceil(PANEL)).enumerate() {
                for (tile, block) in inputs.tiles().zip(block.chunks_mut(inputs.share * PANEL)) {
                    kind.multiply(&tile, panel, scales, block);
                }
                copy_block(&block, i, results);
            }
        })
    }
}

/// Rows of inputs rounded to 8 bits, tile after tile.
struct Inputs {
    /// Rows of a tile; the last one may have fewer.
    share: usize,
    /// For each row.
    steps: usize,
    groups: usize,
    words: Vec<i32>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl Inputs {
    fn round(x: &[f32], width: usize, most_rows: usize, shared: bool) -> Self {
        let rows = x.len() / width;
        let (steps, groups) = (width.div_ceil(WORD), width.div_ceil(GROUP));
        let share = rows.div_ceil(rows.div_ceil(most_rows));
        let mut words = vec![0; rows * steps];
        let (mut scales, mut offsets) = (vec![0.0; rows * groups], vec![0; rows * groups]);
        let sizes = [width, steps, groups].map(|size| share * size);
        let round = |(((x, words), scales), offsets)| {
            Arch::new().dispatch(Round { x, width, words, scales, offsets });
        };
        if shared && rows > share {
            let tiles = x.par_chunks(sizes[0]).zip(words.par_chunks_mut(sizes[1]));
            let scales = scales.par_chunks_mut(sizes[2]);
            tiles.zip(scales).zip(offsets.par_chunks_mut(sizes[2])).for_each(round);
        } else {
            let tiles = x.chunks(sizes[0]).zip(words.chunks_mut(sizes[1]));
            let scales = scales.chunks_mut(sizes[2]);
            tiles.zip(scales).zip(offsets.chunks_mut(sizes[2])).for_each(round);
        }
        Self { share, steps, groups, words, scales, offsets }
    }

    fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        let words = self.words.chunks(self.share * self.steps);
        let scales = self.scales.chunks(self.share * self.groups);
        let offsets = self.offsets.chunks(self.share * self.groups);
        words.zip(scales.zip(offsets)).map(|(words, (scales, offsets))| Tile {
            rows: words.len() / self.steps,
            group: GROUP / WORD,
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
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.x.len() / self.width;
        for (row, x) in self.x.chunks_exact(self.width).enumerate() {
            for (group, x) in x.chunks(GROUP).enumerate() {
                let mut rounded = [0; GROUP];
                self.scales[group * rows + row] = round(x, &mut rounded);
                self.offsets[group * rows + row] = -128 * rounded.iter().map(|&x| i32::from(x)).sum::<i32>();
                let words = self.words[group * (GROUP / WORD) * rows + row..].iter_mut().step_by(rows);
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
    use crate::backend::kernel::in_threads;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    fn panels(weight: &[f32], width: usize) -> Int8Panels {
        panels_for(weight, width, Threads::new(1).unwrap())
    }

    fn panels_for(weight: &[f32], width: usize, threads: Threads) -> Int8Panels {
        let mut panels = Int8Panels::new(weight.len() / width, width, threads);
        weight.chunks(PANEL * width).for_each(|rows| panels.push(rows));
        panels
    }

    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (3, 5), (16, 8), (17, 9), (48, 23), (100, 37), (192, 101), (130, 64), (1024, 515)];

    #[test]
    fn rows_are_found_again_to_within_half_a_step() {
        for (width, outputs) in SHAPES {
            let mut weight = values(outputs * width, 7);
            let panels = panels(&weight, width);
            crate::backend::precision::round_to_int8(&mut weight, width);
            for (i, row) in weight.chunks_exact(width).enumerate() {
                assert!(panels.row(i).eq(row.iter().copied()), "row {i} of {outputs}");
            }
            let (x, some) = (values(2 * width, 1), (0..outputs as u32).step_by(3).collect::<Vec<_>>());
            let (all, found) = (panels.product(&x), panels.select(&some).product(&x));
            let picked = all.chunks(outputs).flat_map(|all| some.iter().map(|&i| all[i as usize]));
            assert!(found.iter().map(|x| x.to_bits()).eq(picked.map(f32::to_bits)), "some of {outputs}");
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
        for rows in [1, 2, 5, 7, 12, 13, 25, 40] {
            for (width, outputs) in SHAPES {
                let (x, weight) = (rows_of_many_sizes(rows, width), values(outputs * width, 2));
                let found = panels(&weight, width).product(&x);
                for (r, row) in found.chunks_exact(outputs).enumerate() {
                    let x = &x[r * width..][..width];
                    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                    for (o, &found) in row.iter().enumerate() {
                        let w = &weight[o * width..][..width];
                        let expected: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                        // Half a step of an input and of a weight, of random sign.
                        let tolerance = f64::from(largest) / 127.0 * (width as f64).sqrt() * 2.0;
                        assert!((f64::from(found) - expected).abs() < tolerance, "{rows} {width} {outputs}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_kind_of_cpu_gives_the_same_bits() {
        let kinds: Vec<Kind> = Kind::all().collect();
        for rows in 1..=14 {
            for (width, outputs) in SHAPES {
                let x = rows_of_many_sizes(rows, width);
                let panels = panels(&values(outputs * width, 2), width);
                let portable: Vec<u32> =
                    panels.product_by(Kind::Portable, &x).iter().map(|value| value.to_bits()).collect();
                for &kind in &kinds {
                    let same = panels.product_by(kind, &x).iter().map(|value| value.to_bits()).eq(portable.clone());
                    assert!(same, "{kind:?}: {rows} rows of {width} to {outputs}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        // The largest is shared between threads.
        for (width, outputs) in [(3, 5), (17, 9), (192, 101), (1024, 3201)] {
            let (x, weight) = (rows_of_many_sizes(30, width), values(outputs * width, 4));
            let own = panels(&weight, width);
            let alone: Vec<f32> = x.chunks_exact(width).flat_map(|row| own.product(row)).collect();
            in_threads(move |threads| {
                let panels = panels_for(&weight, width, threads);
                for rows in 1..=30 {
                    let together = panels.product(&x[..rows * width]);
                    let same = together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{rows} rows of {width} to {outputs}");
                }
            });
        }
    }

    #[test]
    fn extremes_neither_wrap_nor_vanish() {
        let width = 256;
        // The largest sums there are.
        for sign in [1.0, -1.0] {
            let panels = panels(&vec![sign; 40 * width], width);
            for &kind in &Kind::all().collect::<Vec<_>>() {
                let found = panels.product_by(kind, &vec![-1.0; 13 * width]);
                assert!(found.iter().all(|value| (value + sign * width as f32).abs() < 1e-3), "{kind:?}: {found:?}");
            }
        }
        let panels = panels(&vec![0.5; 3 * width], width);
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
