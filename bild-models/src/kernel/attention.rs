//! Attention of a few rows over a cache of keys and values.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{dot, elementwise::exp, is_shared};

/// How a row divides into heads.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) d_kv: usize,
}

/// What `queries` (`[rows, heads, d_kv]`) find among `keys` and `values` (`[keys, heads, d_kv]` each), with `bias`
/// (`[heads, rows, keys]`) added to the scores: the sums of values weighted by the softmax of the scores, in the shape of
/// `queries`.
///
/// A key whose bias is −∞ leaves no trace in the result if it comes after all others, so a row of a longer pass that
/// masks what follows it has the bits of a pass that ends with it.
pub(crate) fn attend(queries: &[f32], keys: &[f32], values: &[f32], bias: Option<&[f32]>, heads: Heads) -> Vec<f32> {
    let width = heads.count * heads.d_kv;
    let rows = queries.len() / width;
    let mut found = vec![0.0; queries.len()];
    let row = |(row, (queries, found)): (usize, (&[f32], &mut [f32]))| {
        Arch::new().dispatch(Row { queries, keys, values, bias, heads, row, rows, found });
    };
    if rows > 1 && is_shared(rows, keys.len() + values.len()) {
        queries.par_chunks(width).zip(found.par_chunks_mut(width)).enumerate().for_each(row);
    } else {
        queries.chunks(width).zip(found.chunks_mut(width)).enumerate().for_each(row);
    }
    found
}

struct Row<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    bias: Option<&'a [f32]>,
    heads: Heads,
    /// This row and how many there are, to find its bias.
    row: usize,
    rows: usize,
    found: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Heads { count, d_kv } = self.heads;
        let width = count * d_kv;
        let keys = self.keys.len() / width;
        let mut weights = vec![0.0; keys];
        for head in 0..count {
            let at = head * d_kv;
            let query = &self.queries[at..][..d_kv];
            for (weight, key) in weights.iter_mut().zip(self.keys.chunks_exact(width)) {
                *weight = dot(simd, query, &key[at..][..d_kv]);
            }
            if let Some(bias) = self.bias {
                let bias = &bias[(head * self.rows + self.row) * keys..][..keys];
                for (weight, bias) in weights.iter_mut().zip(bias) {
                    *weight += bias;
                }
            }
            let sum = exponentials(&mut weights);
            let found = &mut self.found[at..][..d_kv];
            for (weight, value) in weights.iter().zip(self.values.chunks_exact(width)) {
                add_scaled(simd, found, weight / sum, &value[at..][..d_kv]);
            }
        }
    }
}

/// Replaces scores by exp(score − largest score) and returns their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in &mut *scores {
        *score = exp(*score - largest);
    }
    let mut sum = 0.0;
    for score in scores {
        sum += *score;
    }
    sum
}

#[inline(always)]
fn add_scaled<S: Simd>(simd: S, to: &mut [f32], scale: f32, x: &[f32]) {
    let scales = simd.splat_f32s(scale);
    let ((to, to_rest), (x, x_rest)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(x));
    for (to, x) in to.iter_mut().zip(x) {
        *to = simd.mul_add_e_f32s(scales, *x, *to);
    }
    for (to, x) in to_rest.iter_mut().zip(x_rest) {
        *to += scale * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::in_pool;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    /// The definition, in f64.
    fn expected(q: &[f32], k: &[f32], v: &[f32], bias: &[f32], heads: Heads) -> Vec<f64> {
        let width = heads.count * heads.d_kv;
        let (rows, keys) = (q.len() / width, k.len() / width);
        let mut found = vec![0.0; q.len()];
        for row in 0..rows {
            for head in 0..heads.count {
                let at = |row: usize, i: usize| row * width + head * heads.d_kv + i;
                let score = |key: usize| -> f64 {
                    let product = |i| f64::from(q[at(row, i)]) * f64::from(k[at(key, i)]);
                    (0..heads.d_kv).map(product).sum::<f64>() + f64::from(bias[(head * rows + row) * keys + key])
                };
                let sum: f64 = (0..keys).map(|key| score(key).exp()).sum();
                for i in 0..heads.d_kv {
                    let weighted = |key| score(key).exp() / sum * f64::from(v[at(key, i)]);
                    found[at(row, i)] = (0..keys).map(weighted).sum();
                }
            }
        }
        found
    }

    #[test]
    fn equals_its_definition_for_shapes_that_are_multiples_of_nothing() {
        for (count, d_kv) in [(1, 1), (2, 3), (3, 16), (4, 21), (2, 64), (5, 37)] {
            let (heads, width) = (Heads { count, d_kv }, count * d_kv);
            for (rows, keys) in [(1, 1), (1, 9), (2, 2), (3, 17), (11, 40)] {
                let (q, k, v) = (values(rows * width, 1), values(keys * width, 2), values(keys * width, 3));
                let bias = values(count * rows * keys, 4);
                let found = attend(&q, &k, &v, Some(&bias), heads);
                for (found, expected) in found.iter().zip(expected(&q, &k, &v, &bias, heads)) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{count} {d_kv} {rows} {keys}");
                }
            }
        }
    }

    #[test]
    fn a_masked_row_among_others_has_the_bits_of_a_pass_that_ends_with_it() {
        // The last is shared between threads.
        for (count, d_kv, rows) in [(2, 3, 2), (4, 21, 11), (2, 64, 11), (8, 64, 5), (16, 64, 90)] {
            let (heads, width, before) = (Heads { count, d_kv }, count * d_kv, 13);
            let keys = before + rows;
            let (q, k, v) = (values(rows * width, 1), values(keys * width, 2), values(keys * width, 3));
            let bias = |row: usize, key: usize| if key > before + row { f32::NEG_INFINITY } else { (key as f32).sin() };
            let all = (0..count).flat_map(|_| (0..rows).flat_map(|row| (0..keys).map(move |key| bias(row, key))));
            let all: Vec<f32> = all.collect();
            let mut together = Vec::new();
            in_pool(|| together = attend(&q, &k, &v, Some(&all), heads));
            for row in 0..rows {
                let seen = before + row + 1;
                let own: Vec<f32> = (0..count).flat_map(|_| (0..seen).map(|key| bias(row, key))).collect();
                let (k, v) = (&k[..seen * width], &v[..seen * width]);
                let alone = attend(&q[row * width..][..width], k, v, Some(&own), heads);
                let same = alone.iter().zip(&together[row * width..]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "row {row} of {count} heads of {d_kv}");
            }
        }
    }
}
