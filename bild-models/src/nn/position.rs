use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::{cache::held, loader::Loader};
use crate::{backend::is_flex, error::Result};

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
        let limit = held::<B>(limit);
        let bidirectional = self.buckets.bidirectional;
        let bucket = |ahead: isize| (bidirectional || ahead <= 0).then(|| self.buckets.of(ahead));
        let buckets: Vec<_> = (0..2 * limit).map(|i| bucket(i as isize - (limit as isize - 1))).collect();
        let value = |head: usize, bucket: Option<usize>| {
            bucket.map_or(f32::NEG_INFINITY, |bucket| self.values[bucket * self.heads + head])
        };
        let masked = if is_flex::<B>() { 0 } else { 1 };
        let mut table = Vec::with_capacity(self.heads * (buckets.len() + masked));
        for head in 0..self.heads {
            table.extend(buckets.iter().map(|&bucket| value(head, bucket)));
            table.extend(std::iter::repeat_n(f32::NEG_INFINITY, masked));
        }
        BiasTable { table: Table::new(table, self.heads, &self.device), limit, bidirectional }
    }
}

/// The bias of every query and key up to a limit. It depends on the distance alone, so the row of one query is a stretch of
/// one table: no row is ever computed again.
pub(crate) struct BiasTable<B: Backend> {
    /// For each head, the bias of a key that stands `ahead` of its query, for `ahead` from `1 − limit` to `limit`.
    table: Table<B>,
    limit: usize,
    bidirectional: bool,
}

enum Table<B: Backend> {
    /// `[1, heads, 1, 2 · limit + 1]`, the last for what is masked.
    Plain(Tensor<B, 4>),
    /// `[heads, 2 · limit]`, on the host.
    #[cfg(feature = "flex")]
    Kernel(Vec<f32>),
}

impl<B: Backend> Table<B> {
    fn new(values: Vec<f32>, heads: usize, device: &B::Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            return Self::Kernel(values);
        }
        let shape = [1, heads, 1, values.len() / heads];
        Self::Plain(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// The bias of the rows of one pass.
pub(crate) enum Bias<'a, B: Backend> {
    /// `[1, heads or 1, rows or 1, keys]`, keys that are not there masked.
    Plain(Tensor<B, 4>),
    #[cfg(feature = "flex")]
    Kernel(crate::backend::kernel::Bias<'a>),
    #[cfg(not(feature = "flex"))]
    #[allow(dead_code)]
    Never(std::convert::Infallible, std::marker::PhantomData<&'a B>),
}

impl<B: Backend> BiasTable<B> {
    /// The bias of `rows` queries from position `first` on over the first `keys` keys.
    pub(crate) fn rows(&self, first: usize, rows: usize, keys: usize) -> Bias<'_, B> {
        match &self.table {
            Table::Plain(table) => Bias::Plain(self.plain(table.clone(), first, rows, keys)),
            #[cfg(feature = "flex")]
            Table::Kernel(table) => Bias::Kernel(crate::backend::kernel::Bias {
                table,
                width: 2 * self.limit,
                first: self.limit - 1 - first,
            }),
        }
    }

    fn plain(&self, table: Tensor<B, 4>, first: usize, rows: usize, keys: usize) -> Tensor<B, 4> {
        let seen = held::<B>(keys);
        let begin = |row: usize| self.limit - 1 - row;
        if rows == 1 && !self.bidirectional {
            // What stands ahead is masked as it is.
            return table.narrow(3, begin(first), seen);
        }
        let of_row = |row: usize| (0..seen).map(move |key| if key < keys { begin(row) + key } else { 2 * self.limit });
        let indices: Vec<i32> = (first..first + rows).flat_map(of_row).map(|index| index as i32).collect();
        let (device, heads) = (table.device(), table.dims()[1]);
        let indices = Tensor::<B, 1, Int>::from_data(TensorData::new(indices, [rows * seen]), &device);
        table.select(3, indices).reshape([1, heads, rows, seen])
    }
}

impl<B: Backend> Bias<'_, B> {
    /// What masks all but the first `keys` keys of a cache that holds just these, if that must be done.
    pub(crate) fn mask(keys: usize, device: &B::Device) -> Option<Bias<'static, B>> {
        let seen = held::<B>(keys);
        if seen == keys {
            return None;
        }
        let values: Vec<f32> = (0..seen).map(|key| if key < keys { 0.0 } else { f32::NEG_INFINITY }).collect();
        Some(Bias::Plain(Tensor::from_data(TensorData::new(values, [1, 1, 1, seen]), device)))
    }

    pub(crate) fn plain(&self) -> Tensor<B, 4> {
        match self {
            Self::Plain(bias) => bias.clone(),
            _ => unreachable!("a plain cache goes with a plain table"),
        }
    }

    #[cfg(feature = "flex")]
    pub(crate) fn kernel(&self) -> crate::backend::kernel::Bias<'_> {
        match self {
            Self::Kernel(bias) => *bias,
            Self::Plain(_) => unreachable!("a kernel's cache goes with its table"),
        }
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
