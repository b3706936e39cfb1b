//! A few rows times a weight matrix.
//!
//! A general matrix product lays the weights out anew before it multiplies, which pays for many rows and not for the one
//! row of a draft step or the few of a verification. Here they are laid out once, when a model is loaded, and read once a
//! product.

use std::{array::from_fn, borrow::Cow, fmt};

use aligned_vec::{AVec, avec};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{lanes::prefetch, parts, worth_prefetching};
use crate::backend::Threads;

/// Outputs of one panel: a cache line or two of each input's weights, whatever vectors the CPU has.
pub const PANEL: usize = 32;

/// Panels that a few rows go through at a time: memory is read faster from several places than from one.
const STREAMS: usize = 4;

/// So many inputs' weights of each of them are read in turn.
const BURST: usize = 8;

/// Values of one cache line.
const LINE: usize = 16;

/// A weight matrix cut into panels: `[ceil(outputs / PANEL), width, PANEL]`, the last one filled up with zeros.
#[derive(Clone)]
pub(super) struct Panels {
    /// From the beginning of a cache line on: a vector that lies in two takes twice the time to load.
    weights: AVec<f32>,
    width: usize,
    outputs: usize,
    threads: Threads,
}

impl fmt::Debug for Panels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panels").field("width", &self.width).field("outputs", &self.outputs).finish_non_exhaustive()
    }
}

impl Panels {
    /// A matrix of `[outputs, width]` whose rows are yet to come, multiplied with by these threads.
    pub(super) fn new(outputs: usize, width: usize, threads: Threads) -> Self {
        Self { weights: avec![], width, outputs, threads }
    }

    /// Adds the next `PANEL` rows, or the last ones, as checkpoints store them.
    pub(super) fn push(&mut self, rows: &[f32]) {
        if self.weights.is_empty() {
            // Not before: that the file holds such a matrix is known now.
            self.weights.reserve_exact(self.outputs.div_ceil(PANEL) * PANEL * self.width);
        }
        let begin = self.weights.len();
        self.weights.resize(begin + PANEL * self.width, 0.0);
        // A cache line of each row at a time: rows are often a multiple of 4 KiB apart, where caches hold few lines.
        for (at, block) in self.weights[begin..].chunks_mut(LINE * PANEL).enumerate() {
            for (lane, row) in rows.chunks_exact(self.width).enumerate() {
                for (to, value) in block[lane..].iter_mut().step_by(PANEL).zip(&row[at * LINE..]) {
                    *to = *value;
                }
            }
        }
    }

    /// A row as it was added, `[width]`.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        let panel = &self.weights[row / PANEL * PANEL * self.width..][..PANEL * self.width];
        panel[row % PANEL..].iter().step_by(PANEL).copied()
    }

    /// The matrix of some of its rows.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        let panel = PANEL * self.width;
        let mut weights = avec![0.0; rows.len().div_ceil(PANEL) * panel];
        for (to, rows) in weights.chunks_exact_mut(panel).zip(rows.chunks(PANEL)) {
            for (lane, &row) in rows.iter().enumerate() {
                to[lane..].iter_mut().step_by(PANEL).zip(self.row(row as usize)).for_each(|(to, x)| *to = x);
            }
        }
        Self { weights, width: self.width, outputs: rows.len(), threads: self.threads.clone() }
    }

    /// `x` (`[rows, width]`) times the transpose of the matrix: `[rows, outputs]`.
    pub(super) fn product(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.width;
        let parts = parts(&self.threads, rows, self.weights.len());
        let x = Tiles::of(x, self.width, parts > 1);
        in_panels(rows, self.outputs, parts, |first, results| {
            let weights = &self.weights[first * PANEL * self.width..];
            Arch::new().dispatch(Product { x: &x, weights, results });
        })
    }
}

/// A product (`[rows, outputs]`) from its panels: `multiply` is given a first panel, and writes the results from that one on
/// to the slices that are there for them, one of each row.
pub(super) fn in_panels(
    rows: usize,
    outputs: usize,
    parts: usize,
    multiply: impl Fn(usize, &mut [&mut [f32]]) + Sync,
) -> Vec<f32> {
    let mut results = vec![0.0; rows * outputs];
    if parts == 1 {
        multiply(0, &mut results.chunks_mut(outputs).collect::<Vec<_>>());
        return results;
    }
    let panels = outputs.div_ceil(PANEL).div_ceil(parts);
    let mut shares: Vec<Vec<_>> = vec![];
    shares.resize_with(outputs.div_ceil(panels * PANEL), || Vec::with_capacity(rows));
    for row in results.chunks_mut(outputs) {
        for (share, piece) in shares.iter_mut().zip(row.chunks_mut(panels * PANEL)) {
            share.push(piece);
        }
    }
    shares.into_par_iter().enumerate().for_each(|(i, mut share)| multiply(i * panels, &mut share));
    results
}

/// Copies the results of one panel, `[rows, PANEL]`, to where those of each row are, as many as there are from `at` on.
pub(super) fn copy_block(block: &[f32], at: usize, results: &mut [&mut [f32]]) {
    for (row, block) in results.iter_mut().zip(block.chunks_exact(PANEL)) {
        let end = row.len().min(at + PANEL);
        row[at..end].copy_from_slice(&block[..end - at]);
    }
}

/// Rows of inputs, tile after tile: `[width, rows of the tile]` each, so that a step of a product reads what it needs from one place.
struct Tiles<'a> {
    values: Cow<'a, [f32]>,
    rows: usize,
    width: usize,
    /// Rows of a tile; the last one may have fewer.
    share: usize,
}

impl<'a> Tiles<'a> {
    fn of(x: &'a [f32], width: usize, shared: bool) -> Self {
        let rows = x.len() / width;
        let most = Arch::new().dispatch(MostRows);
        let share = rows.div_ceil(rows.div_ceil(most));
        if rows == 1 {
            return Self { values: x.into(), rows, width, share };
        }
        let mut values = vec![0.0; x.len()];
        let lay_out = |(tile, x): (&mut [f32], &[f32])| {
            let rows = tile.len() / width;
            for (row, x) in x.chunks_exact(width).enumerate() {
                tile[row..].iter_mut().step_by(rows).zip(x).for_each(|(to, x)| *to = *x);
            }
        };
        let size = share * width;
        if shared && rows > share {
            values.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(lay_out);
        } else {
            values.chunks_mut(size).zip(x.chunks(size)).for_each(lay_out);
        }
        Self { values: values.into(), rows, width, share }
    }
}

/// As many rows at a time as the sums of which fit the registers.
struct MostRows;

impl WithSimd for MostRows {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        match S::F32_LANES {
            16 => 12,
            8 => 6,
            4 => 2,
            _ => 1,
        }
    }
}

/// Some panels' share of a product, into a slice for each row.
struct Product<'a, 'r> {
    x: &'a Tiles<'a>,
    weights: &'a [f32],
    results: &'a mut [&'r mut [f32]],
}

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Whether it asks is known to the compiler: the loop is slower where it may ask for nothing. With narrower vectors memory is not
        // what is waited for.
        let asks = self.x.rows >= worth_prefetching();
        match S::F32_LANES {
            16 if asks => self.panels::<S, 2, true>(simd),
            16 => self.panels::<S, 2, false>(simd),
            8 if asks => self.panels::<S, 4, true>(simd),
            8 => self.panels::<S, 4, false>(simd),
            4 => self.panels::<S, 8, true>(simd),
            _ => self.panels::<S, PANEL, true>(simd),
        }
    }
}

/// So many inputs' weights of a panel, 32 KB, stay in the nearest cache while all tiles are multiplied with them; half as many with
/// AVX2, where that is smaller.
const DEPTH: usize = 256;

/// From so many passes over the weights on, all ask memory for an even share of the next panel; of fewer the first two do, so that it
/// comes in time.
const EVENLY: usize = 4;

impl Product<'_, '_> {
    /// V vectors make a row of a panel. ASKS: memory is asked for what comes next.
    #[inline(always)]
    fn panels<S: Simd, const V: usize, const ASKS: bool>(mut self, simd: S) {
        let Tiles { ref values, rows, width, .. } = *self.x;
        let count = self.results[0].len().div_ceil(PANEL);
        if rows == 1 {
            let panel = PANEL * width;
            for (i, panels) in self.weights[..count * panel].chunks(STREAMS * panel).enumerate() {
                let to = &mut self.results[0][i * STREAMS * PANEL..];
                match panels.len() / panel {
                    STREAMS => streams::<S, V, STREAMS>(simd, values, panels, to),
                    _ => panels.chunks(panel).zip(to.chunks_mut(PANEL)).for_each(|(panel, to)| {
                        streams::<S, V, 1>(simd, values, panel, to);
                    }),
                }
            }
            return;
        }
        let whole = self.results[0].len() / PANEL;
        // Vectors of 32 bytes take so many steps for a panel that the CPU would wait for memory between them.
        let in_bursts = if V == 4 && rows <= self.x.share { whole / STREAMS * STREAMS } else { 0 };
        for first in (0..in_bursts).step_by(STREAMS) {
            self.bursts::<S, V>(simd, first);
        }
        for (i, panel) in self.weights.chunks_exact(PANEL * width).take(count).enumerate().skip(in_bursts) {
            let at = i * PANEL;
            if at < whole * PANEL {
                self.x.times::<S, V, ASKS>(simd, panel, self.results, at);
                continue;
            }
            let mut block = vec![0.0; rows * PANEL];
            self.x.times::<S, V, ASKS>(simd, panel, &mut block.chunks_exact_mut(PANEL).collect::<Vec<_>>(), 0);
            copy_block(&block, at, self.results);
        }
    }

    /// The one tile there is times several panels from the one numbered `first` on, a few inputs of each in turn.
    #[inline(always)]
    fn bursts<S: Simd, const V: usize>(&mut self, simd: S, first: usize) {
        let Tiles { ref values, rows, width, .. } = *self.x;
        for (i, x) in values.chunks(BURST * rows).enumerate() {
            for panel in first..first + STREAMS {
                let begin = (panel * width + i * BURST) * PANEL;
                let weights = &self.weights[begin..begin + x.len() / rows * PANEL];
                let step = Step { first: i == 0, begin: 0, lines: 0, stride: 0 };
                part_of_tile::<S, V>(simd, x, weights, self.results, panel * PANEL, step);
            }
        }
    }
}

impl Tiles<'_> {
    /// All tiles times a panel, added to `PANEL` entries of each row of results, from `at` on.
    #[inline(always)]
    fn times<S: Simd, const V: usize, const ASKS: bool>(
        &self,
        simd: S,
        panel: &[f32],
        results: &mut [&mut [f32]],
        at: usize,
    ) {
        let Self { ref values, rows, width, share } = *self;
        let passes = rows.div_ceil(share);
        // A single pass over the weights has no use for parts of them.
        let depth = if passes == 1 { width } else { DEPTH / if V == 4 { 2 } else { 1 } };
        let asking = if passes < EVENLY { passes.min(2) } else { passes };
        for (part, weights) in panel.chunks(depth * PANEL).enumerate() {
            for (pass, (x, results)) in values.chunks(share * width).zip(results.chunks_mut(share)).enumerate() {
                let lines = if ASKS && pass < asking { (2 / asking).max(1) } else { 0 };
                let begin = size_of_val(panel) + size_of_val(weights) * pass / asking;
                let step = Step { first: part == 0, begin, lines, stride: PANEL * size_of::<f32>() / asking };
                let x = &x[part * depth * results.len()..][..weights.len() / PANEL * results.len()];
                part_of_tile::<S, V>(simd, x, weights, results, at, step);
            }
        }
    }
}

/// A tile times the weights of some inputs in a panel, added to `PANEL` entries of each row of results, from `at` on.
#[inline(always)]
fn part_of_tile<S: Simd, const V: usize>(
    simd: S,
    x: &[f32],
    weights: &[f32],
    results: &mut [&mut [f32]],
    at: usize,
    step: Step,
) {
    macro_rules! pick {
        ($vectors:expr, $first:expr, $step:expr, $($rows:literal)*) => {
            match results.len() {
                $($rows => tile::<S, V, { $vectors }, { $first }, $rows>(simd, x, weights, results, at, $step),)*
                _ => unreachable!("a tile has no more rows than its sums have registers"),
            }
        };
    }
    match (V, results.len()) {
        // Sums of more rows fit 16 registers for half a panel at a time.
        (4, 3..) => {
            pick!(2, 0, step, 3 4 5 6);
            pick!(2, 2, Step { lines: 0, ..step }, 3 4 5 6);
        }
        (4, _) => pick!(V, 0, step, 1 2),
        _ => pick!(V, 0, step, 1 2 3 4 5 6 7 8 9 10 11 12),
    }
}

/// What is done beside the sums of some inputs.
#[derive(Clone, Copy)]
struct Step {
    /// Whether they are the first inputs: results are not looked at before they are written, as memory that is read first and
    /// written then costs the system twice the work.
    first: bool,
    /// What to ask memory for meanwhile: where it begins, in bytes after the beginning of the weights, how many cache lines for each
    /// input, and by how many bytes those of the next input lie further on.
    begin: usize,
    lines: usize,
    stride: usize,
}

/// One row times P panels at a time, into the results that there is room for.
#[inline(always)]
fn streams<S: Simd, const V: usize, const P: usize>(simd: S, x: &[f32], panels: &[f32], to: &mut [f32]) {
    let panels: [&[S::f32s]; P] = from_fn(|p| S::as_simd_f32s(&panels[p * PANEL * x.len()..][..PANEL * x.len()]).0);
    let mut sums = [[simd.splat_f32s(0.0); V]; P];
    for (i, x) in x.iter().enumerate() {
        let x = simd.splat_f32s(*x);
        for p in 0..P {
            let weights = &panels[p][i * V..][..V];
            for v in 0..V {
                sums[p][v] = simd.mul_add_e_f32s(x, weights[v], sums[p][v]);
            }
        }
    }
    for (sums, to) in sums.iter().zip(to.chunks_mut(PANEL)) {
        let mut block = [0.0; PANEL];
        S::as_mut_simd_f32s(&mut block).0.copy_from_slice(sums);
        to.copy_from_slice(&block[..to.len()]);
    }
}

/// R rows of inputs (`[inputs, R]`) times their weights in a panel (`[inputs, PANEL]`), of which each input has V vectors: W of these,
/// from the one numbered F on, are multiplied and added to the `PANEL` entries of each row of results from `at` on.
#[inline(always)]
#[allow(clippy::manual_memcpy)] // a copy of a slice would take the sums out of the registers
fn tile<S: Simd, const V: usize, const W: usize, const F: usize, const R: usize>(
    simd: S,
    x: &[f32],
    weights: &[f32],
    results: &mut [&mut [f32]],
    at: usize,
    step: Step,
) {
    let (vectors, _) = S::as_simd_f32s(weights);
    let mut sums = [[simd.splat_f32s(0.0); W]; R];
    if !step.first {
        for r in 0..R {
            let (row, _) = S::as_simd_f32s(&results[r][at..at + PANEL]);
            for v in 0..W {
                sums[r][v] = row[F + v];
            }
        }
    }
    for (i, (x, vectors)) in x.as_chunks::<R>().0.iter().zip(vectors.as_chunks::<V>().0).enumerate() {
        for line in 0..step.lines {
            prefetch(weights, step.begin + i * step.stride + line * LINE * size_of::<f32>());
        }
        for r in 0..R {
            let x = simd.splat_f32s(x[r]);
            for v in 0..W {
                sums[r][v] = simd.mul_add_e_f32s(x, vectors[F + v], sums[r][v]);
            }
        }
    }
    for r in 0..R {
        let (row, _) = S::as_mut_simd_f32s(&mut results[r][at..at + PANEL]);
        for v in 0..W {
            row[F + v] = sums[r][v];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kernel::{check_selection, in_threads, values, worth_trying};

    fn panels(weight: &[f32], width: usize) -> Panels {
        panels_for(weight, width, Threads::new(1).unwrap())
    }

    fn panels_for(weight: &[f32], width: usize, threads: Threads) -> Panels {
        let mut panels = Panels::new(weight.len() / width, width, threads);
        weight.chunks(PANEL * width).for_each(|rows| panels.push(rows));
        panels
    }

    #[test]
    fn rows_are_found_again() {
        for (width, outputs) in
            [(1, 1), (3, 5), (17, 9), (48, 32), (100, 37), (7, 130)].into_iter().filter(worth_trying)
        {
            let weight = values(outputs * width, 7);
            let panels = panels(&weight, width);
            for (i, row) in weight.chunks_exact(width).enumerate() {
                assert!(panels.row(i).eq(row.iter().copied()), "row {i} of {outputs}");
            }
            let x = values(2 * width, 1);
            check_selection(outputs, &panels.product(&x), |some| panels.select(some).product(&x));
        }
    }

    #[test]
    fn equals_the_plain_product_for_shapes_that_are_multiples_of_nothing() {
        for rows in 1..=12 {
            for (width, outputs) in [(1, 1), (3, 5), (16, 8), (17, 9), (48, 23), (100, 37), (192, 101), (1024, 515)]
                .into_iter()
                .filter(worth_trying)
            {
                let (x, weight) = (values(rows * width, 1), values(outputs * width, 2));
                let found = panels(&weight, width).product(&x);
                for (r, row) in found.chunks_exact(outputs).enumerate() {
                    for (o, &found) in row.iter().enumerate() {
                        let (x, w) = (&x[r * width..][..width], &weight[o * width..][..width]);
                        let expected: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                        assert!(
                            (f64::from(found) - expected).abs() < 1e-5 * (width as f64),
                            "{rows} {width} {outputs}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        // The largest are shared between the threads of the pool.
        for (width, outputs) in
            [(3, 5), (17, 9), (192, 101), (192, 4001), (1024, 1601)].into_iter().filter(worth_trying)
        {
            let (x, weight) = (values(19 * width, 3), values(outputs * width, 4));
            let own = panels(&weight, width);
            let alone: Vec<f32> = x.chunks_exact(width).flat_map(|row| own.product(row)).collect();
            in_threads(move |threads| {
                let panels = panels_for(&weight, width, threads);
                for rows in 1..=19 {
                    let together = panels.product(&x[..rows * width]);
                    let same = together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{rows} rows of {width} to {outputs}");
                }
            });
        }
    }

    #[test]
    fn narrower_vectors_give_the_same_up_to_rounding() {
        // No more rows than a tile of any of them has.
        for (rows, width, outputs) in [(1, 17, 9), (2, 48, 64), (5, 100, 37), (6, 33, 101)] {
            let (x, panels) = (values(rows * width, 5), panels(&values(outputs * width, 6), width));
            let tiles = Tiles::of(&x, width, false);
            let with = |run: &(dyn Fn(Product<'_, '_>) + Sync)| {
                in_panels(rows, outputs, 1, |_, results| {
                    run(Product { x: &tiles, weights: &panels.weights, results });
                })
            };
            let widest = with(&|product| Arch::new().dispatch(product));
            let mut others = vec![with(&|product| Simd::vectorize(pulp::Scalar::new(), product))];
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = pulp::x86::V3::try_new() {
                others.push(with(&|product| Simd::vectorize(avx2, product)));
            }
            for other in others {
                assert!(other.iter().zip(&widest).all(|(a, b)| (a - b).abs() < 1e-5 * width as f32));
            }
        }
    }
}
