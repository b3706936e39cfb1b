//! Attention of a few rows over keys and values.

use aligned_vec::{AVec, avec};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Rows, WORTH_SHARING, elementwise::exp, parts};
use crate::backend::Threads;

/// Sums over keys go by as many lanes, whatever vectors the CPU has.
const LANES: usize = 16;

/// Keys and values with room for a number of rows, laid out so that vectors go along the keys for the scores and along
/// the entries of a value for what is found: neither needs a sum within a vector.
pub(crate) enum KeysValues {
    F32(Memory<f32>),
    /// Rounded to 16 bits, so that half as much is read.
    Bf16(Memory<Pair>),
}

/// The same for each way to hold them.
macro_rules! each {
    ($memory:expr, $of:ident => $do:expr) => {
        match $memory {
            KeysValues::F32($of) => $do,
            KeysValues::Bf16($of) => $do,
        }
    };
}

pub(crate) struct Memory<N> {
    /// `[heads, d_kv, room]`
    keys: AVec<N>,
    /// `[heads, room, depth]`
    values: AVec<N>,
    d_kv: usize,
    /// The number of rows and `d_kv`, each made a multiple of what `LANES` words hold, in words.
    room: usize,
    depth: usize,
    /// The most rows.
    limit: usize,
    threads: Threads,
}

/// How keys and values are held: in words of one or two numbers. Of a row of words each `LANES` hold as many numbers that follow each
/// other in their lower halves, and then as many in their upper ones.
pub(crate) trait Number: Copy + Default + Send + Sync {
    /// Numbers of a word.
    const OF_WORD: usize;

    /// Writes numbers into a row from number `at` on.
    fn write(row: &mut [Self], at: usize, values: &[f32]);

    /// The numbers of a vector of words, as far as a word has them.
    fn load<S: Simd>(simd: S, row: &[Self], vector: usize) -> [S::f32s; 2];

    /// Where such numbers stand among all of a row, in vectors.
    fn place<S: Simd>(vector: usize, half: usize) -> usize;
}

/// How many words of a row hold so many numbers.
fn words<N: Number>(numbers: usize) -> usize {
    numbers.div_ceil(LANES * N::OF_WORD) * LANES
}

impl Number for f32 {
    const OF_WORD: usize = 1;

    #[inline(always)]
    fn write(row: &mut [Self], at: usize, values: &[f32]) {
        row[at..][..values.len()].copy_from_slice(values);
    }

    #[inline(always)]
    fn load<S: Simd>(_: S, row: &[Self], vector: usize) -> [S::f32s; 2] {
        [S::as_simd_f32s(row).0[vector]; 2]
    }

    #[inline(always)]
    fn place<S: Simd>(vector: usize, _: usize) -> usize {
        vector
    }
}

/// Two numbers of which the upper 16 bits are kept, rounded to nearest.
pub(crate) type Pair = u32;

impl Number for Pair {
    const OF_WORD: usize = 2;

    #[inline(always)]
    fn write(row: &mut [Self], mut at: usize, mut values: &[f32]) {
        while !values.is_empty() {
            // As far as they lie in one half of neighbouring words.
            let (run, rest) = values.split_at(values.len().min(LANES - at % LANES));
            let words = row[at / (2 * LANES) * LANES + at % LANES..].iter_mut().zip(run);
            if (at / LANES).is_multiple_of(2) {
                words.for_each(|(word, value)| *word = *word & 0xffff_0000 | short(*value));
            } else {
                words.for_each(|(word, value)| *word = *word & 0xffff | short(*value) << 16);
            }
            (at, values) = (at + run.len(), rest);
        }
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, row: &[Self], vector: usize) -> [S::f32s; 2] {
        let words = S::as_simd_u32s(row).0[vector];
        let lower = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16));
        let upper = simd.and_u32s(words, simd.splat_u32s(0xffff_0000));
        [simd.transmute_f32s_u32s(lower), simd.transmute_f32s_u32s(upper)]
    }

    #[inline(always)]
    fn place<S: Simd>(vector: usize, half: usize) -> usize {
        let vectors = LANES / S::F32_LANES;
        vector / vectors * 2 * vectors + half * vectors + vector % vectors
    }
}

/// The upper 16 bits of a number, rounded to nearest, a tie to even; a NaN stays one.
#[inline(always)]
fn short(value: f32) -> u32 {
    u32::from(half::bf16::from_f32(value).to_bits())
}

/// Rows that there is room for at first.
const FEW: usize = 32;

/// What attention adds to the scores of queries for the distance to each key. It is a stretch of one table for each query, so
/// that it takes the memory of one row however many queries there are.
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a> {
    /// `[heads, width]`
    pub(crate) table: &'a [f32],
    pub(crate) width: usize,
    /// Where the stretch of the first query begins; that of each further one begins one entry before.
    pub(crate) first: usize,
}

impl<'a> Bias<'a> {
    /// Of the query in row `row` over the first `count` keys.
    #[inline(always)]
    fn row(self, head: usize, row: usize, count: usize) -> &'a [f32] {
        &self.table[head * self.width + self.first - row..][..count]
    }
}

impl KeysValues {
    /// Room for `limit` rows in the end; at first for a few, because most generations end long before their limit.
    pub(crate) fn new(limit: usize, heads: usize, d_kv: usize, threads: Threads, short: bool) -> Self {
        Self::with_room(limit.min(FEW), limit, heads, d_kv, threads, short)
    }

    /// With room for `limit` rows, all of which will be written.
    pub(crate) fn full(limit: usize, heads: usize, d_kv: usize, threads: Threads, short: bool) -> Self {
        Self::with_room(limit, limit, heads, d_kv, threads, short)
    }

    fn with_room(room: usize, limit: usize, heads: usize, d_kv: usize, threads: Threads, short: bool) -> Self {
        if short {
            Self::Bf16(Memory::with_room(room, limit, heads, d_kv, threads))
        } else {
            Self::F32(Memory::with_room(room, limit, heads, d_kv, threads))
        }
    }

    /// How many bytes it would take, whatever the limit.
    pub(crate) fn bytes(limit: usize, heads: usize, d_kv: usize, short: bool) -> f64 {
        if short { Memory::<Pair>::bytes(limit, heads, d_kv) } else { Memory::<f32>::bytes(limit, heads, d_kv) }
    }

    /// Writes rows of `[heads, d_kv]` from row `at` on.
    pub(crate) fn write(&mut self, keys: Rows<'_>, values: Rows<'_>, at: usize) {
        each!(self, memory => memory.write(keys, values, at));
    }

    /// As [`Memory::attend`].
    fn attend(&self, queries: Rows<'_>, count: usize, bias: Option<Bias<'_>>, found: &mut [f32]) {
        each!(self, memory => memory.attend(queries, count, bias, found));
    }

    fn threads(&self) -> &Threads {
        each!(self, memory => &memory.threads)
    }
}

impl<N: Number> Memory<N> {
    fn with_room(room: usize, limit: usize, heads: usize, d_kv: usize, threads: Threads) -> Self {
        let [room, depth] = [room, d_kv].map(words::<N>);
        let (keys, values) =
            (avec![N::default(); heads * d_kv * room], avec![N::default(); heads * room * N::OF_WORD * depth]);
        Self { keys, values, d_kv, room, depth, limit, threads }
    }

    /// Rows that there is room for.
    fn rows(&self) -> usize {
        self.room * N::OF_WORD
    }

    /// Makes room for so many rows: twice as many as before at least, up to the limit.
    fn grow(&mut self, rows: usize) {
        let heads = self.values.len() / (self.rows() * self.depth);
        let room = rows.max((2 * self.rows()).min(self.limit));
        let mut larger = Self::with_room(room, self.limit, heads, self.d_kv, self.threads.clone());
        let columns = larger.keys.chunks_exact_mut(larger.room).zip(self.keys.chunks_exact(self.room));
        columns.for_each(|(to, from)| to[..self.room].copy_from_slice(from));
        let of_heads = larger.values.chunks_exact_mut(larger.room * N::OF_WORD * larger.depth);
        let of_heads = of_heads.zip(self.values.chunks_exact(self.room * N::OF_WORD * self.depth));
        of_heads.for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
        *self = larger;
    }

    fn bytes(limit: usize, heads: usize, d_kv: usize) -> f64 {
        // As `words`, beyond what an integer holds.
        let blocks = |count: usize| (count as f64 / (LANES * N::OF_WORD) as f64).ceil();
        let [room, depth] = [limit, d_kv].map(|count| blocks(count) * LANES as f64);
        heads as f64 * (room * d_kv as f64 + room * N::OF_WORD as f64 * depth) * size_of::<N>() as f64
    }

    /// Writes rows of `[heads, d_kv]` from row `at` on.
    fn write(&mut self, keys: Rows<'_>, values: Rows<'_>, at: usize) {
        if at + keys.count > self.rows() {
            self.grow(at + keys.count);
        }
        let Self { d_kv, room, depth, .. } = *self;
        let write = |(head, (to_keys, to_values)): (usize, (&mut [N], &mut [N]))| {
            write_columns(to_keys, room, keys, head * d_kv, at);
            for (i, to) in to_values[at * depth..].chunks_exact_mut(depth).take(values.count).enumerate() {
                N::write(to, 0, &values.row(i)[head * d_kv..][..d_kv]);
            }
        };
        let size = room * N::OF_WORD * depth;
        // Memory that is written for the first time takes as long as many weights that are read.
        if parts(&self.threads, keys.count, 32 * keys.width) > 1 {
            let heads = self.keys.par_chunks_exact_mut(d_kv * room).zip(self.values.par_chunks_exact_mut(size));
            heads.enumerate().for_each(write);
        } else {
            let heads = self.keys.chunks_exact_mut(d_kv * room).zip(self.values.chunks_exact_mut(size));
            heads.enumerate().for_each(write);
        }
    }

    /// What queries, rows of `[heads, d_kv]`, find among the first `count` keys, with `bias` added to the scores: the sums of values
    /// weighted by the softmax of the scores, into `found` (`[rows, heads, d_kv]`).
    ///
    /// A key whose bias is −∞ leaves no trace in the result if it comes after all others, so a row of a longer pass that
    /// masks what follows it has the bits of a pass that ends with it.
    fn attend(&self, queries: Rows<'_>, count: usize, bias: Option<Bias<'_>>, found: &mut [f32]) {
        let Rows { count: rows, width, .. } = queries;
        let attend = |first, found: &mut [f32]| {
            Arch::new().dispatch(Heads { queries, first, memory: self, count, bias, found });
        };
        let threads = parts(&self.threads, rows, 2 * count * width);
        let all = |found: &mut [f32]| {
            if threads > 1 {
                let each = (width / self.d_kv).div_ceil(2 * threads);
                let parts = found.par_chunks_mut(each * rows * self.d_kv).enumerate();
                parts.for_each(|(part, found)| attend(part * each, found));
            } else {
                attend(0, found);
            }
        };
        if rows == 1 {
            return all(found);
        }
        let mut by_head = vec![0.0; rows * width]; // [heads, rows, d_kv]
        all(&mut by_head);
        for (row, found) in found.chunks_exact_mut(width).enumerate() {
            let of_row = by_head.chunks_exact(self.d_kv).skip(row).step_by(rows);
            found.chunks_exact_mut(self.d_kv).zip(of_row).for_each(|(found, of_head)| found.copy_from_slice(of_head));
        }
    }
}

/// The rows of one session that attend, and what they attend to.
pub(crate) struct Look<'a> {
    pub(crate) rows: usize,
    pub(crate) memory: &'a mut KeysValues,
    /// How many keys are looked at. If new ones are written, they are the last `rows` of these.
    pub(crate) count: usize,
    pub(crate) bias: Option<Bias<'a>>,
}

/// What the queries of several sessions, one after the other, find, each in its own keys and values, `[rows, heads, d_kv]`; `new`
/// keys and values, a row for each query, are written first. Sessions are shared between threads.
pub(crate) fn attend(queries: Rows<'_>, new: Option<[Rows<'_>; 2]>, looks: Vec<Look<'_>>) -> Vec<f32> {
    let mut found = vec![0.0; queries.count * queries.width];
    let (mut rest, mut pieces, mut at) = (&mut found[..], Vec::with_capacity(looks.len()), 0);
    let mut work = 0;
    for look in looks {
        let (piece, others) = rest.split_at_mut(look.rows * queries.width);
        work += (look.rows + 8) * 2 * look.count * queries.width;
        at += look.rows;
        pieces.push((at - look.rows, look, piece));
        rest = others;
    }
    let attend = |(at, look, found): (usize, Look<'_>, &mut [f32])| {
        let Look { rows, memory, count, bias } = look;
        if let Some(new) = new {
            let [keys, values] = new.map(|new| new.part(at, rows));
            memory.write(keys, values, count - rows);
        }
        memory.attend(queries.part(at, rows), count, bias, found);
    };
    let threads = pieces.first().map_or(1, |(_, look, _)| look.memory.threads().shared());
    if pieces.len() > 1 && threads > 1 && work >= WORTH_SHARING {
        pieces.into_par_iter().for_each(attend);
    } else {
        pieces.into_iter().for_each(attend);
    }
    found
}

/// Writes the columns of `rows` that begin with `first`, as many as `to` has rows of `room`, from entry `at` of each on. It
/// goes by squares, so that neither side touches a cache line twice.
fn write_columns<N: Number>(to: &mut [N], room: usize, rows: Rows<'_>, first: usize, at: usize) {
    let mut square = [[0.0; LANES]; LANES];
    for row in (0..rows.count).step_by(LANES) {
        let count = LANES.min(rows.count - row);
        for (part, columns) in to.chunks_mut(LANES * room).enumerate() {
            let width = columns.len() / room;
            for i in 0..count {
                let values = &rows.row(row + i)[first + part * LANES..][..width];
                values.iter().zip(&mut square).for_each(|(value, column)| column[i] = *value);
            }
            for (column, values) in columns.chunks_exact_mut(room).zip(&square) {
                N::write(column, at + row, &values[..count]);
            }
        }
    }
}

/// Some heads' attention.
struct Heads<'a, N> {
    queries: Rows<'a>,
    first: usize,
    memory: &'a Memory<N>,
    count: usize,
    bias: Option<Bias<'a>>,
    /// `[heads, rows, d_kv]`
    found: &'a mut [f32],
}

impl<N: Number> WithSimd for Heads<'_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, first, memory, count, bias, found } = self;
        // The scores of up to four rows, and their sums of values.
        let mut buffer = vec![0.0; 4 * (words::<N>(count) + memory.depth) * N::OF_WORD];
        for (i, found) in found.chunks_exact_mut(queries.count * memory.d_kv).enumerate() {
            let head = first + i;
            let mut head = Head { queries, head, memory, count, bias, found, buffer: &mut buffer };
            let mut row = 0;
            while row < queries.count {
                row += match queries.count - row {
                    4.. => head.rows::<S, 4>(simd, row),
                    3 => head.rows::<S, 3>(simd, row),
                    2 => head.rows::<S, 2>(simd, row),
                    _ => head.rows::<S, 1>(simd, row),
                };
            }
        }
    }
}

struct Head<'a, N> {
    queries: Rows<'a>,
    head: usize,
    memory: &'a Memory<N>,
    count: usize,
    bias: Option<Bias<'a>>,
    /// `[rows, d_kv]`
    found: &'a mut [f32],
    buffer: &'a mut [f32],
}

impl<N: Number> Head<'_, N> {
    /// R rows, from row `at` on, for which keys and values are read once.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, at: usize) -> usize {
        let Memory { keys, values, d_kv, room, depth, .. } = self.memory;
        let padded = words::<N>(self.count) * N::OF_WORD;
        let (weights, rest) = self.buffer.split_at_mut(R * padded);
        let entries = depth * N::OF_WORD;
        let sum = &mut rest[..R * entries];
        let mut queries: [&[f32]; R] = [&[]; R];
        for (r, query) in queries.iter_mut().enumerate() {
            *query = &self.queries.row(at + r)[self.head * d_kv..][..*d_kv];
        }
        sums(simd, queries, &keys[self.head * d_kv * room..], *room, weights);
        for (r, weights) in weights.chunks_exact_mut(padded).enumerate() {
            let (scores, rest) = weights.split_at_mut(self.count);
            if let Some(bias) = self.bias {
                for (score, bias) in scores.iter_mut().zip(bias.row(self.head, at + r, self.count)) {
                    *score += bias;
                }
            }
            rest.fill(f32::NEG_INFINITY);
            softmax(weights);
        }
        let mut factors: [&[f32]; R] = [&[]; R];
        for (factors, weights) in factors.iter_mut().zip(weights.chunks_exact(padded)) {
            *factors = &weights[..self.count];
        }
        sums(simd, factors, &values[self.head * room * entries..], *depth, sum);
        let found = self.found[at * d_kv..].chunks_exact_mut(*d_kv);
        for (found, sum) in found.zip(sum.chunks_exact(entries)) {
            found.copy_from_slice(&sum[..*d_kv]);
        }
        R
    }
}

/// The sums of the rows of `matrix`, `stride` words apart, each times its factor, R times with factors of their own, to as many
/// entries each as `to` (`[R, entries]`) has. Every entry is summed in the order of the rows.
#[inline(always)]
fn sums<S: Simd, N: Number, const R: usize>(
    simd: S,
    factors: [&[f32]; R],
    matrix: &[N],
    stride: usize,
    to: &mut [f32],
) {
    let vectors = to.len() / R / N::OF_WORD / S::F32_LANES;
    let mut at = 0;
    while at < vectors {
        // So many that sums and what is loaded fit the registers.
        at += match vectors - at {
            4.. if R == 1 && N::OF_WORD == 1 => columns::<S, N, R, 4>(simd, factors, matrix, stride, at, to),
            2.. if R == 1 || N::OF_WORD == 1 => columns::<S, N, R, 2>(simd, factors, matrix, stride, at, to),
            _ => columns::<S, N, R, 1>(simd, factors, matrix, stride, at, to),
        };
    }
}

/// The entries in C vectors of words of the R sums, from vector `at` on.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // several arrays go by the same index
fn columns<S: Simd, N: Number, const R: usize, const C: usize>(
    simd: S,
    factors: [&[f32]; R],
    matrix: &[N],
    stride: usize,
    at: usize,
    to: &mut [f32],
) -> usize {
    let mut sums = [[[simd.splat_f32s(0.0); 2]; C]; R];
    let count = factors[0].len();
    for factors in factors {
        assert_eq!(factors.len(), count);
    }
    for (i, row) in (0..count).zip(matrix.chunks_exact(stride)) {
        let mut entries = [[simd.splat_f32s(0.0); 2]; C];
        for c in 0..C {
            entries[c] = N::load(simd, row, at + c);
        }
        for r in 0..R {
            let factor = simd.splat_f32s(factors[r][i]);
            for c in 0..C {
                for half in 0..N::OF_WORD {
                    sums[r][c][half] = simd.mul_add_e_f32s(factor, entries[c][half], sums[r][c][half]);
                }
            }
        }
    }
    for (sums, to) in sums.iter().zip(to.chunks_exact_mut(to.len() / R)) {
        let (to, _) = S::as_mut_simd_f32s(to);
        for c in 0..C {
            for half in 0..N::OF_WORD {
                to[N::place::<S>(at + c, half)] = sums[c][half];
            }
        }
    }
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
    use crate::backend::kernel::{in_threads, values};

    fn attend(
        q: Rows<'_>,
        k: Rows<'_>,
        v: Rows<'_>,
        bias: Option<Bias<'_>>,
        heads: usize,
        threads: Threads,
        short: bool,
    ) -> Vec<f32> {
        // In two writes, with room for more.
        let mut memory = KeysValues::new(k.count + 3, heads, k.width / heads, threads, short);
        let first = k.count / 2;
        let cut = |rows: Rows<'_>, from: usize, count: usize| -> Vec<f32> {
            (from..from + count).flat_map(|i| rows.row(i).to_vec()).collect()
        };
        memory.write(rows_of(&cut(k, 0, first), k.width), rows_of(&cut(v, 0, first), v.width), 0);
        let rest = k.count - first;
        memory.write(rows_of(&cut(k, first, rest), k.width), rows_of(&cut(v, first, rest), v.width), first);
        let mut found = vec![f32::NAN; q.count * q.width];
        memory.attend(q, k.count, bias, &mut found);
        found
    }

    /// What is held of numbers.
    fn held(values: &[f32], short: bool) -> Vec<f32> {
        let upper = |value: &f32| f32::from_bits(super::short(*value) << 16);
        if short { values.iter().map(upper).collect() } else { values.to_vec() }
    }

    #[test]
    fn sixteen_bits_are_the_nearest() {
        for value in [0.0, -0.0, 1.0, -3.5, 1e-40, 3.0e38, f32::INFINITY, f32::NEG_INFINITY] {
            let found = f32::from_bits(short(value) << 16);
            assert_eq!(found, half::bf16::from_f32(value).to_f32(), "{value}");
        }
        for value in values(1000, 3) {
            assert_eq!(short(value), u32::from(half::bf16::from_f32(value).to_bits()), "{value}");
            let found = |upper: u32| (f32::from_bits(upper << 16) - value).abs();
            assert!(
                found(short(value)) <= found(short(value).saturating_sub(1))
                    && found(short(value)) <= found(short(value) + 1),
                "{value}"
            );
        }
        assert!(f32::from_bits(short(f32::NAN) << 16).is_nan());
        assert!(f32::from_bits(short(f32::from_bits(0xffff_ffff)) << 16).is_nan());
    }

    fn rows_of(values: &[f32], width: usize) -> Rows<'_> {
        Rows { values, count: values.len() / width, width, stride: width }
    }

    fn alone() -> Threads {
        Threads::new(1).unwrap()
    }

    #[test]
    fn rows_may_lie_apart() {
        let (width, rows) = (6, 5);
        let together = values(3 * width * rows, 8);
        let part = |i: usize| Rows { values: &together[i * width..], count: rows, width, stride: 3 * width };
        let copied = |i: usize| (0..rows).flat_map(|row| part(i).row(row).to_vec()).collect::<Vec<f32>>();
        let copies = [copied(0), copied(1), copied(2)];
        let [q, k, v] = [&copies[0], &copies[1], &copies[2]].map(|copy| rows_of(copy, width));
        for short in [false, true] {
            let apart = attend(part(0), part(1), part(2), None, 2, alone(), short);
            assert_eq!(apart, attend(q, k, v, None, 2, alone(), short));
        }
    }

    /// The definition, in f64; `bias` is given the head and how far the key stands ahead of the query.
    fn expected(
        q: &[f32],
        k: &[f32],
        v: &[f32],
        bias: impl Fn(usize, isize) -> f32,
        [count, d_kv]: [usize; 2],
    ) -> Vec<f64> {
        let width = count * d_kv;
        let (rows, keys) = (q.len() / width, k.len() / width);
        let mut found = vec![0.0; q.len()];
        for row in 0..rows {
            for head in 0..count {
                let at = |row: usize, i: usize| row * width + head * d_kv + i;
                let score = |key: usize| -> f64 {
                    let product = |i| f64::from(q[at(row, i)]) * f64::from(k[at(key, i)]);
                    let ahead = key as isize - row as isize;
                    (0..d_kv).map(product).sum::<f64>() + f64::from(bias(head, ahead))
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
                let table = values(count * (rows + keys), 4);
                let bias = Bias { table: &table, width: rows + keys, first: rows - 1 };
                let [q_rows, k_rows, v_rows] = [&q, &k, &v].map(|values| rows_of(values, width));
                let at = |head: usize, ahead: isize| table[head * (rows + keys) + (rows as isize - 1 + ahead) as usize];
                for short in [false, true] {
                    let found = attend(q_rows, k_rows, v_rows, Some(bias), count, alone(), short);
                    let [k, v] = [&k, &v].map(|values| held(values, short));
                    for (found, expected) in found.iter().zip(expected(&q, &k, &v, at, [count, d_kv])) {
                        assert!((f64::from(*found) - expected).abs() < 1e-5, "{count} {d_kv} {rows} {keys} {short}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_masked_row_among_others_has_the_bits_of_a_pass_that_ends_with_it() {
        // The last is shared between threads, its keys and values too.
        let shapes = [(2, 3, 2), (4, 21, 11), (2, 64, 11), (8, 64, 5), (16, 64, 150)];
        for ((count, d_kv, rows), short) in shapes.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
            let (width, before) = (count * d_kv, 13);
            let keys = before + rows;
            in_threads(move |threads| {
                // What stands ahead is masked.
                let masked = |ahead: isize| if ahead > 0 { f32::NEG_INFINITY } else { (ahead as f32).sin() };
                let of_head = |_| (0..2 * keys).map(|i| masked(i as isize - (keys as isize - 1)));
                let table: Vec<f32> = (0..count).flat_map(of_head).collect();
                let bias = |row: usize| Bias { table: &table, width: 2 * keys, first: keys - 1 - (before + row) };
                let (q, k, v) = (values(rows * width, 1), values(keys * width, 2), values(keys * width, 3));
                let [all_q, all_k, all_v] = [&q, &k, &v].map(|values| rows_of(values, width));
                let together = attend(all_q, all_k, all_v, Some(bias(0)), count, threads, short);
                for row in 0..rows {
                    let seen = before + row + 1;
                    let (k, v) = (rows_of(&k[..seen * width], width), rows_of(&v[..seen * width], width));
                    let q = rows_of(&q[row * width..][..width], width);
                    let own = attend(q, k, v, Some(bias(row)), count, alone(), short);
                    let same = own.iter().zip(&together[row * width..]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "row {row} of {count} heads of {d_kv}");
                }
            });
        }
    }

    #[test]
    fn sessions_together_find_what_each_finds_alone() {
        let (heads, d_kv) = (8, 64);
        let width = heads * d_kv;
        // Rows, and keys before them.
        let sessions = [(1, 40), (5, 0), (1, 0), (2, 99), (40, 300), (1, 17)];
        in_threads(move |threads| {
            [false, true].into_iter().for_each(|short| {
                let rows = sessions.iter().map(|(rows, _)| rows).sum::<usize>();
                let [q, k, v] = [1, 2, 3].map(|seed| values(rows * width, seed));
                let old = |i: usize, seed| values(sessions[i].1 * width, 10 * i + seed);
                let tables: Vec<_> = (0..6).map(|i| values(heads * 2 * 340, 50 + i)).collect();
                let bias = |i: usize| (i != 2).then(|| Bias { table: &tables[i], width: 2 * 340, first: 339 });
                let mut memories: Vec<KeysValues> = Vec::new();
                for (i, (rows, before)) in sessions.into_iter().enumerate() {
                    let mut memory = KeysValues::new(before + rows, heads, d_kv, threads.clone(), short);
                    memory.write(rows_of(&old(i, 4), width), rows_of(&old(i, 5), width), 0);
                    memories.push(memory);
                }
                let looks = memories.iter_mut().zip(sessions).enumerate().map(|(i, (memory, (rows, before)))| Look {
                    rows,
                    memory,
                    count: before + rows,
                    bias: bias(i),
                });
                let new = [rows_of(&k, width), rows_of(&v, width)];
                let together = super::attend(rows_of(&q, width), Some(new), looks.collect());
                let mut at = 0;
                for (i, (rows, _)) in sessions.into_iter().enumerate() {
                    let of = |values: &[f32]| values[at * width..][..rows * width].to_vec();
                    let [k, v] = [(old(i, 4), of(&k)), (old(i, 5), of(&v))].map(|(old, new)| [old, new].concat());
                    let q = of(&q);
                    let [q, k, v] = [&q, &k, &v].map(|values| rows_of(values, width));
                    assert!(attend(q, k, v, bias(i), heads, alone(), short) == of(&together), "session {i}");
                    at += rows;
                }
            })
        });
    }
}
