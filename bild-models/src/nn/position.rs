use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::loader::Loader;
use crate::error::Result;

/// The relative position bias of a stack: what attention adds for the distance between query and key, per head.
///
/// The first layer of a stack holds it and all layers add it.
pub(crate) struct PositionBias<B: Backend> {
    /// `[buckets, heads]`
    values: Vec<f32>,
    heads: usize,
    buckets: Buckets,
    device: B::Device,
}

/// How distances fall into buckets.
#[derive(Clone, Copy)]
pub(crate) struct Buckets {
    pub(crate) count: usize,
    /// The distance from which all share the last bucket.
    pub(crate) max_distance: usize,
    /// An encoder looks both ways and halves the buckets between them; a decoder only looks back.
    pub(crate) bidirectional: bool,
}

impl Buckets {
    /// The bucket of a key that stands `ahead` of its query (negative: behind it), as transformers computes it: half of
    /// the buckets are exact, the others grow with the logarithm of the distance up to `max_distance`. The arithmetic is
    /// f32 in the same order, so that distances on an edge fall on the same side.
    pub(crate) fn of(self, ahead: isize) -> usize {
        let (count, offset) = match self.bidirectional {
            true if ahead > 0 => (self.count / 2, self.count / 2),
            true => (self.count / 2, 0),
            false => (self.count, 0),
        };
        let distance = if self.bidirectional { ahead.unsigned_abs() } else { ahead.min(0).unsigned_abs() };
        let exact = count / 2;
        if distance < exact {
            return offset + distance;
        }
        let scale = (self.max_distance as f64 / exact as f64).ln() as f32;
        let growth = (distance as f32 / exact as f32).ln() / scale * (count - exact) as f32;
        offset + (exact + growth as usize).min(count - 1)
    }
}

impl<B: Backend> PositionBias<B> {
    /// Reads a matrix of `[buckets, heads]`.
    pub(crate) fn load(loader: &Loader<'_, B>, name: &str, buckets: Buckets, heads: usize) -> Result<Self> {
        let values = loader.values(name, [buckets.count, heads])?;
        Ok(Self { values, heads, buckets, device: loader.device().clone() })
    }

    /// The bias between tokens of which at most `limit` stand in a row; a decoder's masks what stands ahead.
    pub(crate) fn table(&self, limit: usize) -> BiasTable<B> {
        let bidirectional = self.buckets.bidirectional;
        let bucket = |ahead: isize| (bidirectional || ahead <= 0).then(|| self.buckets.of(ahead));
        let buckets: Vec<_> = (0..2 * limit).map(|i| bucket(i as isize - (limit as isize - 1))).collect();
        let value = |head: usize, bucket: Option<usize>| {
            bucket.map_or(f32::NEG_INFINITY, |bucket| self.values[bucket * self.heads + head])
        };
        let mut table = Vec::with_capacity(self.heads * buckets.len());
        for head in 0..self.heads {
            table.extend(buckets.iter().map(|&bucket| value(head, bucket)));
        }
        BiasTable { table: Table::new(table, self.heads, &self.device), limit }
    }
}

/// The bias of every query and key up to a limit. It depends on the distance alone, so the row of one query is a stretch of
/// one table: no row is ever computed again.
pub(crate) struct BiasTable<B: Backend> {
    /// For each head, the bias of a key that stands `ahead` of its query, for `ahead` from `1 − limit` to `limit`.
    table: Table<B>,
    limit: usize,
}

enum Table<B: Backend> {
    /// `[heads, 1, 2 · limit]`
    Plain(Tensor<B, 3>),
    /// The same, on the host.
    #[cfg(feature = "flex")]
    Kernel(Vec<f32>),
}

impl<B: Backend> Table<B> {
    fn new(values: Vec<f32>, heads: usize, device: &B::Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            return Self::Kernel(values);
        }
        let shape = [heads, 1, values.len() / heads];
        Self::Plain(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// The bias of the rows of one pass.
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // only a kernel reads the table
pub(crate) struct Bias<'a, B: Backend> {
    table: &'a BiasTable<B>,
    first: usize,
    /// `[heads, rows, keys]`, where no kernel reads the table.
    plain: Option<Tensor<B, 3>>,
}

impl<B: Backend> BiasTable<B> {
    /// The bias of `rows` queries from position `first` on over the first `keys` keys.
    pub(crate) fn rows(&self, first: usize, rows: usize, keys: usize) -> Bias<'_, B> {
        let plain = match &self.table {
            Table::Plain(table) => {
                let row = |row: usize| table.clone().narrow(2, self.limit - 1 - row, keys);
                Some(if rows == 1 { row(first) } else { Tensor::cat((first..first + rows).map(row).collect(), 1) })
            }
            #[cfg(feature = "flex")]
            Table::Kernel(_) => None,
        };
        Bias { table: self, first, plain }
    }
}

impl<B: Backend> Bias<'_, B> {
    /// `[heads, rows, keys]`
    pub(crate) fn plain(&self) -> Tensor<B, 3> {
        self.plain.clone().expect("a plain cache goes with a plain table")
    }

    #[cfg(feature = "flex")]
    pub(crate) fn kernel(&self) -> crate::backend::kernel::Bias<'_> {
        let Table::Kernel(table) = &self.table.table else { unreachable!("a kernel's cache goes with its table") };
        crate::backend::kernel::Bias { table, width: 2 * self.table.limit, first: self.table.limit - 1 - self.first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets from transformers 4.57's `T5Attention._relative_position_bucket` are checked through the fixtures; these
    /// are the edges that the formula has by hand.
    #[test]
    fn edges_of_the_buckets() {
        let encoder = Buckets { count: 32, max_distance: 128, bidirectional: true };
        let of = |ahead| encoder.of(ahead);
        assert_eq!((of(0), of(-1), of(1), of(-7), of(7)), (0, 1, 17, 7, 23));
        // Beyond 8 a bucket spans a factor of 2^(1/2): 16 = 8 · 2 opens the third, 128 is past the last.
        assert_eq!((of(-8), of(-11), of(-12), of(-16), of(-64), of(-127), of(-1000)), (8, 8, 9, 10, 14, 15, 15));
        let decoder = Buckets { count: 32, max_distance: 128, bidirectional: false };
        let of = |ahead| decoder.of(ahead);
        assert_eq!((of(3), of(0), of(-15), of(-16), of(-18), of(-19)), (0, 0, 15, 16, 16, 17));
        assert_eq!((of(-113), of(-128), of(-500)), (31, 31, 31));
    }
}
