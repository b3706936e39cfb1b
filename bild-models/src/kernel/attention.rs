//! Attention of a few rows over keys and values.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Rows, elementwise::exp, is_shared};

/// Keys and values are laid out in multiples of this, whatever vectors the CPU has, and sums over keys go by as many lanes.
const LANES: usize = 16;

/// Keys and values with room for a number of rows, laid out so that vectors go along the keys for the scores and along
/// the entries of a value for what is found: neither needs a sum within a vector.
pub(crate) struct KeysValues {
    /// `[heads, d_kv, room]`
    keys: Vec<f32>,
    /// `[heads, room, depth]`
    values: Vec<f32>,
    d_kv: usize,
    /// The number of rows and `d_kv`, each made a multiple of `LANES`.
    room: usize,
    depth: usize,
}

impl KeysValues {
    /// With room for `limit` rows.
    pub(crate) fn new(limit: usize, heads: usize, d_kv: usize) -> Self {
        let (room, depth) = (limit.next_multiple_of(LANES), d_kv.next_multiple_of(LANES));
        let (keys, values) = (vec![0.0; heads * d_kv * room], vec![0.0; heads * room * depth]);
        Self { keys, values, d_kv, room, depth }
    }

    /// Writes rows of `[heads, d_kv]` from row `at` on.
    pub(crate) fn write(&mut self, keys: Rows<'_>, values: Rows<'_>, at: usize) {
        for first in (0..keys.count).step_by(LANES) {
            // Up to a cache line of each column at a time.
            let count = LANES.min(keys.count - first);
            for (c, column) in self.keys.chunks_exact_mut(self.room).enumerate() {
                for (i, to) in column[at + first..][..count].iter_mut().enumerate() {
                    *to = keys.values[(first + i) * keys.stride + c];
                }
            }
        }
        let head_values = self.values.chunks_exact_mut(self.room * self.depth);
        for (head, to) in head_values.enumerate() {
            for (i, to) in to[at * self.depth..].chunks_exact_mut(self.depth).take(values.count).enumerate() {
                to[..self.d_kv].copy_from_slice(&values.row(i)[head * self.d_kv..][..self.d_kv]);
            }
        }
    }

    /// What queries, rows of `[heads, d_kv]`, find among the first `count` keys, with `bias` (`[heads, rows, count]`) added
    /// to the scores: the sums of values weighted by the softmax of the scores, `[rows, heads, d_kv]`.
    ///
    /// A key whose bias is −∞ leaves no trace in the result if it comes after all others, so a row of a longer pass that
    /// masks what follows it has the bits of a pass that ends with it.
    pub(crate) fn attend(&self, queries: Rows<'_>, count: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let mut found = vec![0.0; queries.count * queries.width];
        let row = |(row, found): (usize, &mut [f32])| {
            let bias = bias.map(|bias| Bias { values: bias, row, rows: queries.count });
            Arch::new().dispatch(Row { query: queries.row(row), memory: self, count, bias, found });
        };
        if queries.count > 1 && is_shared(queries.count, 2 * count * queries.width) {
            found.par_chunks_mut(queries.width).enumerate().for_each(row);
        } else {
            found.chunks_mut(queries.width).enumerate().for_each(row);
        }
        found
    }
}

/// `[heads, rows, keys]`, and which of the rows it is for.
struct Bias<'a> {
    values: &'a [f32],
    row: usize,
    rows: usize,
}

struct Row<'a> {
    query: &'a [f32],
    memory: &'a KeysValues,
    count: usize,
    bias: Option<Bias<'a>>,
    found: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let KeysValues { keys, values, d_kv, room, depth, .. } = self.memory;
        let (mut weights, mut sum) = (vec![0.0; self.count.next_multiple_of(LANES)], vec![0.0; *depth]);
        let heads = self.query.chunks_exact(*d_kv).zip(self.found.chunks_exact_mut(*d_kv)).enumerate();
        for (head, (query, found)) in heads {
            sums(simd, query, &keys[head * d_kv * room..], *room, &mut weights);
            if let Some(Bias { values, row, rows }) = self.bias {
                let bias = &values[(head * rows + row) * self.count..];
                for (weight, bias) in weights[..self.count].iter_mut().zip(bias) {
                    *weight += bias;
                }
            }
            weights[self.count..].fill(f32::NEG_INFINITY);
            softmax(&mut weights);
            sums(simd, &weights[..self.count], &values[head * room * depth..], *depth, &mut sum);
            found.copy_from_slice(&sum[..*d_kv]);
        }
    }
}

/// The sums of the rows of `matrix`, `stride` apart, each times its factor, as far as `to` goes. Every entry is summed in
/// the order of the rows.
#[inline(always)]
fn sums<S: Simd>(simd: S, factors: &[f32], matrix: &[f32], stride: usize, to: &mut [f32]) {
    let (to, _) = S::as_mut_simd_f32s(to);
    let mut at = 0;
    while at < to.len() {
        at += match to.len() - at {
            4.. => columns::<S, 4>(simd, factors, matrix, stride, at, to),
            2.. => columns::<S, 2>(simd, factors, matrix, stride, at, to),
            _ => columns::<S, 1>(simd, factors, matrix, stride, at, to),
        };
    }
}

/// C vectors of the sums, from vector `at` on.
#[inline(always)]
fn columns<S: Simd, const C: usize>(
    simd: S,
    factors: &[f32],
    matrix: &[f32],
    stride: usize,
    at: usize,
    to: &mut [S::f32s],
) -> usize {
    let mut sums = [simd.splat_f32s(0.0); C];
    for (factor, row) in factors.iter().zip(matrix.chunks_exact(stride)) {
        let (row, _) = S::as_simd_f32s(row);
        let (factor, row) = (simd.splat_f32s(*factor), &row[at..at + C]);
        for c in 0..C {
            sums[c] = simd.mul_add_e_f32s(factor, row[c], sums[c]);
        }
    }
    to[at..at + C].copy_from_slice(&sums);
    C
}

/// The softmax of scores, of which there is a multiple of `LANES`.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for (largest, score) in largest.iter_mut().zip(scores) {
            *largest = if score > largest { *score } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = [0.0; LANES];
    for scores in scores.as_chunks_mut::<LANES>().0 {
        for (sum, score) in sum.iter_mut().zip(scores) {
            *score = exp(*score - largest);
            *sum += *score;
        }
    }
    let scale = 1.0 / sum.iter().sum::<f32>();
    for score in scores {
        *score *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::in_pool;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    fn attend(q: Rows<'_>, k: Rows<'_>, v: Rows<'_>, bias: Option<&[f32]>, heads: usize) -> Vec<f32> {
        // In two writes, with room for more.
        let mut memory = KeysValues::new(k.count + 3, heads, k.width / heads);
        let first = k.count / 2;
        let cut = |rows: Rows<'_>, from: usize, count: usize| -> Vec<f32> {
            (from..from + count).flat_map(|i| rows.row(i).to_vec()).collect()
        };
        memory.write(rows_of(&cut(k, 0, first), k.width), rows_of(&cut(v, 0, first), v.width), 0);
        let rest = k.count - first;
        memory.write(rows_of(&cut(k, first, rest), k.width), rows_of(&cut(v, first, rest), v.width), first);
        memory.attend(q, k.count, bias)
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
