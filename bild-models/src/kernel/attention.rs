//! Attention of a few rows over a cache of keys and values.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Rows, dot, elementwise::exp, is_shared};

/// What `queries` find among `keys` and `values`, whose rows are `[heads, d_kv]` all, with `bias` (`[heads, rows, keys]`)
/// added to the scores: the sums of values weighted by the softmax of the scores, `[rows, heads, d_kv]`.
///
/// A key whose bias is −∞ leaves no trace in the result if it comes after all others, so a row of a longer pass that
/// masks what follows it has the bits of a pass that ends with it.
pub(crate) fn attend(
    queries: Rows<'_>,
    keys: Rows<'_>,
    values: Rows<'_>,
    bias: Option<&[f32]>,
    heads: usize,
) -> Vec<f32> {
    let mut found = vec![0.0; queries.count * queries.width];
    let row = |(row, found): (usize, &mut [f32])| {
        let bias = bias.map(|bias| Bias { values: bias, row, rows: queries.count });
        Arch::new().dispatch(Row { query: queries.row(row), keys, values, bias, heads, found });
    };
    if queries.count > 1 && is_shared(queries.count, 2 * keys.count * keys.width) {
        found.par_chunks_mut(queries.width).enumerate().for_each(row);
    } else {
        found.chunks_mut(queries.width).enumerate().for_each(row);
    }
    found
}

/// `[heads, rows, keys]`, and which of the rows it is for.
struct Bias<'a> {
    values: &'a [f32],
    row: usize,
    rows: usize,
}

struct Row<'a> {
    query: &'a [f32],
    keys: Rows<'a>,
    values: Rows<'a>,
    bias: Option<Bias<'a>>,
    heads: usize,
    found: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (keys, d_kv) = (self.keys.count, self.query.len() / self.heads);
        let mut weights = vec![0.0; self.heads * keys];
        // Key after key, as they lie in memory.
        for key in 0..keys {
            let parts = self.query.chunks_exact(d_kv).zip(self.keys.row(key).chunks_exact(d_kv));
            for (weight, (query, part)) in weights[key..].iter_mut().step_by(keys).zip(parts) {
                *weight = dot(simd, query, part);
            }
        }
        for (head, weights) in weights.chunks_exact_mut(keys).enumerate() {
            if let Some(Bias { values, row, rows }) = self.bias {
                for (weight, bias) in weights.iter_mut().zip(&values[(head * rows + row) * keys..]) {
                    *weight += bias;
                }
            }
            let sum = exponentials(weights);
            for weight in weights {
                *weight /= sum;
            }
        }
        for key in 0..keys {
            let parts = self.found.chunks_exact_mut(d_kv).zip(self.values.row(key).chunks_exact(d_kv));
            for (weight, (found, part)) in weights[key..].iter().step_by(keys).zip(parts) {
                add_scaled(simd, found, *weight, part);
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

    fn rows_of(values: &[f32], width: usize) -> Rows<'_> {
        Rows { values, count: values.len() / width, width, stride: width }
    }

    #[test]
    fn rows_may_lie_apart() {
        let (width, rows) = (6, 5);
        let together = values(3 * width * rows, 8);
        let part = |i: usize| Rows { values: &together[i * width..], count: rows, width, stride: 3 * width };
        let copied = |i: usize| (0..rows).flat_map(|row| part(i).row(row).to_vec()).collect::<Vec<f32>>();
        let copies = [copied(0), copied(1), copied(2)];
        let [q, k, v] = [&copies[0], &copies[1], &copies[2]].map(|copy| rows_of(copy, width));
        assert_eq!(attend(part(0), part(1), part(2), None, 2), attend(q, k, v, None, 2));
    }

    /// The definition, in f64.
    fn expected(q: &[f32], k: &[f32], v: &[f32], bias: &[f32], [count, d_kv]: [usize; 2]) -> Vec<f64> {
        let width = count * d_kv;
        let (rows, keys) = (q.len() / width, k.len() / width);
        let mut found = vec![0.0; q.len()];
        for row in 0..rows {
            for head in 0..count {
                let at = |row: usize, i: usize| row * width + head * d_kv + i;
                let score = |key: usize| -> f64 {
                    let product = |i| f64::from(q[at(row, i)]) * f64::from(k[at(key, i)]);
                    (0..d_kv).map(product).sum::<f64>() + f64::from(bias[(head * rows + row) * keys + key])
                };
                let sum: f64 = (0..keys).map(|key| score(key).exp()).sum();
                for i in 0..d_kv {
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
            let width = count * d_kv;
            for (rows, keys) in [(1, 1), (1, 9), (2, 2), (3, 17), (11, 40)] {
                let (q, k, v) = (values(rows * width, 1), values(keys * width, 2), values(keys * width, 3));
                let bias = values(count * rows * keys, 4);
                let found = attend(rows_of(&q, width), rows_of(&k, width), rows_of(&v, width), Some(&bias), count);
                for (found, expected) in found.iter().zip(expected(&q, &k, &v, &bias, [count, d_kv])) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{count} {d_kv} {rows} {keys}");
                }
            }
        }
    }

    #[test]
    fn a_masked_row_among_others_has_the_bits_of_a_pass_that_ends_with_it() {
        // The last is shared between threads.
        for (count, d_kv, rows) in [(2, 3, 2), (4, 21, 11), (2, 64, 11), (8, 64, 5), (16, 64, 90)] {
            let (width, before) = (count * d_kv, 13);
            let keys = before + rows;
            let (q, k, v) = (values(rows * width, 1), values(keys * width, 2), values(keys * width, 3));
            let bias = |row: usize, key: usize| if key > before + row { f32::NEG_INFINITY } else { (key as f32).sin() };
            let all = (0..count).flat_map(|_| (0..rows).flat_map(|row| (0..keys).map(move |key| bias(row, key))));
            let all: Vec<f32> = all.collect();
            let mut together = Vec::new();
            in_pool(|| {
                together = attend(rows_of(&q, width), rows_of(&k, width), rows_of(&v, width), Some(&all), count)
            });
            for row in 0..rows {
                let seen = before + row + 1;
                let own: Vec<f32> = (0..count).flat_map(|_| (0..seen).map(|key| bias(row, key))).collect();
                let (k, v) = (rows_of(&k[..seen * width], width), rows_of(&v[..seen * width], width));
                let alone = attend(rows_of(&q[row * width..][..width], width), k, v, Some(&own), count);
                let same = alone.iter().zip(&together[row * width..]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "row {row} of {count} heads of {d_kv}");
            }
        }
    }
}
