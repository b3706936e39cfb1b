//! A few rows times a weight matrix of 8-bit integers.
//!
//! Weights have one scale for each output, inputs one for each group, so that a large input among them costs the others
//! of its group alone their precision. Products are added up exactly within a group, and groups in order: the bits of a row
//! depend neither on the other rows nor on the CPU.

use pulp::{Arch, Simd, WithSimd};

use super::{
    PANEL, is_shared,
    lanes::{Kind, Step, Tile, WORD},
    product::in_panels,
};
use crate::precision::quantize;

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
}

impl Int8Panels {
    /// A matrix of `[outputs, width]` whose rows are yet to come.
    pub fn new(outputs: usize, width: usize) -> Self {
        Self { steps: Vec::new(), scales: Vec::new(), width, outputs }
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
        let mut rounded = vec![0; self.width];
        for (lane, row) in rows.chunks_exact(self.width).enumerate() {
            scales[lane] = quantize(row, &mut rounded);
            for (step, word) in self.steps[begin..].iter_mut().zip(rounded.chunks(WORD)) {
                for (to, &weight) in step[lane * WORD..].iter_mut().zip(word) {
                    *to = weight as u8 ^ 128;
                }
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

    /// How many rows the matrix has.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x` (`[rows, width]`) times the transpose of the matrix: `[rows, outputs]`.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        let [y] = self.parts(x);
        y
    }

    /// As [`product`](Self::product), the outputs divided into N equal parts: `[rows, outputs / N]` each.
    pub(crate) fn parts<const N: usize>(&self, x: &[f32]) -> [Vec<f32>; N] {
        self.parts_by(Kind::all().next().expect("the portable kind is always there"), x)
    }

    fn parts_by<const N: usize>(&self, kind: Kind, x: &[f32]) -> [Vec<f32>; N] {
        let rows = x.len() / self.width;
        let inputs = Inputs::round(x, self.width, kind.most_rows());
        let steps = self.steps_of_panel();
        // A byte takes a quarter of the time that a float takes.
        let shared = is_shared(rows, self.steps.len() * size_of::<Step>() / 4);
        in_panels(rows, self.outputs, shared, |first, blocks| {
            for (i, block) in blocks.chunks_exact_mut(rows * PANEL).enumerate() {
                let panel = &self.steps[(first + i) * steps..][..steps];
                let mut block = block;
                for tile in inputs.tiles() {
                    let (part, rest) = block.split_at_mut(tile.rows * PANEL);
                    kind.multiply(&tile, panel, &self.scales[first + i], part);
                    block = rest;
                }
            }
        })
    }
}

/// Rows of inputs rounded to 8 bits, tile after tile.
struct Inputs {
    rows: usize,
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
    fn round(x: &[f32], width: usize, most_rows: usize) -> Self {
        let rows = x.len() / width;
        let (steps, groups) = (width.div_ceil(WORD), width.div_ceil(GROUP));
        let mut inputs = Self {
            rows,
            share: rows.div_ceil(rows.div_ceil(most_rows)),
            steps,
            groups,
            words: vec![0; rows * steps],
            scales: vec![0.0; rows * groups],
            offsets: vec![0; rows * groups],
        };
        Arch::new().dispatch(Round { x, width, inputs: &mut inputs });
        inputs
    }

    fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        (0..self.rows).step_by(self.share).map(|first| {
            let rows = self.share.min(self.rows - first);
            let groups = first * self.groups..(first + rows) * self.groups;
            Tile {
                rows,
                group: GROUP / WORD,
                words: &self.words[first * self.steps..][..rows * self.steps],
                scales: &self.scales[groups.clone()],
                offsets: &self.offsets[groups],
            }
        })
    }
}

struct Round<'a> {
    x: &'a [f32],
    width: usize,
    inputs: &'a mut Inputs,
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, width, inputs } = self;
        for (row, x) in x.chunks_exact(width).enumerate() {
            let first = row / inputs.share * inputs.share;
            let (lane, lanes) = (row - first, inputs.share.min(inputs.rows - first));
            let words = &mut inputs.words[first * inputs.steps + lane..];
            let at = first * inputs.groups + lane;
            let (scales, offsets) = (&mut inputs.scales[at..], &mut inputs.offsets[at..]);
            for (group, x) in x.chunks(GROUP).enumerate() {
                let mut rounded = [0i8; GROUP];
                let (scale, sum) = round_group(x, &mut rounded);
                scales[group * lanes] = scale;
                offsets[group * lanes] = -128 * sum;
                let words = words[group * (GROUP / WORD) * lanes..].iter_mut().step_by(lanes);
                let count = x.len().div_ceil(WORD);
                for (word, bytes) in words.zip(&rounded.as_chunks::<WORD>().0[..count]) {
                    *word = i32::from_le_bytes(bytes.map(|byte| byte as u8));
                }
            }
        }
    }
}

/// Rounds a group to nearest; returns its scale and the sum of what it was rounded to. A NaN or ∞ in it makes the scale
/// one, so that it is not lost.
#[inline(always)]
fn round_group(x: &[f32], rounded: &mut [i8; GROUP]) -> (f32, i32) {
    // Adding this rounds to a whole number, which is left in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // Magnitudes are in the order of their bits, NaN above all.
    let largest = f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
    let inverse = 127.0 / largest;
    // Too small to divide by.
    if !inverse.is_finite() && largest < 1.0 {
        return (0.0, 0);
    }
    let mut sum = 0;
    for (to, x) in rounded.iter_mut().zip(x) {
        *to = (x * inverse + ROUND).to_bits() as i8;
        sum += i32::from(*to);
    }
    (largest / 127.0, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::in_pool;

    fn product_by(panels: &Int8Panels, kind: Kind, x: &[f32]) -> Vec<f32> {
        let [y] = panels.parts_by(kind, x);
        y
    }

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    fn panels(weight: &[f32], width: usize) -> Int8Panels {
        let mut panels = Int8Panels::new(weight.len() / width, width);
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
            crate::precision::round_to_int8(&mut weight, width);
            for (i, row) in weight.chunks_exact(width).enumerate() {
                assert!(panels.row(i).eq(row.iter().copied()), "row {i} of {outputs}");
            }
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
                    product_by(&panels, Kind::Portable, &x).iter().map(|value| value.to_bits()).collect();
                for &kind in &kinds {
                    let same = product_by(&panels, kind, &x).iter().map(|value| value.to_bits()).eq(portable.clone());
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
            let panels = panels(&weight, width);
            let alone: Vec<f32> = x.chunks_exact(width).flat_map(|row| panels.product(row)).collect();
            in_pool(|| {
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
                let found = product_by(&panels, kind, &vec![-1.0; 13 * width]);
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
