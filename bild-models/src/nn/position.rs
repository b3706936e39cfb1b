use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

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
    /// The longest table that was asked for, which does for shorter ones.
    table: Mutex<Option<Arc<BiasTable<B>>>>,
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
        Ok(Self { values, heads, buckets, device: loader.device().clone(), table: Mutex::default() })
    }

    /// The bias between tokens of which at most `limit` stand in a row; a decoder's masks what stands ahead.
    pub(crate) fn table(&self, limit: usize) -> Arc<BiasTable<B>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &*table {
            Some(table) if table.limit >= limit => table.clone(),
            // A long one is not kept for the short ones that come after it.
            _ if limit > LONGEST_BLOCK => Arc::new(self.new_table(held::<B>(limit))),
            _ => table.insert(Arc::new(self.new_table(held::<B>(limit.max(1))))).clone(),
        }
    }

    fn new_table(&self, limit: usize) -> BiasTable<B> {
        let bidirectional = self.buckets.bidirectional;
        let width = 2 * limit;
        let bucket = |ahead: isize| (bidirectional || ahead <= 0).then(|| self.buckets.of(ahead));
        let value = |head: usize, bucket: Option<usize>| {
            bucket.map_or(f32::NEG_INFINITY, |bucket| self.values[bucket * self.heads + head])
        };
        let rows = if is_flex::<B>() || bidirectional || limit > LONGEST_BLOCK { 1 } else { BLOCK };
        // From the first key that a row sees to the last: each begins one later than the row after it.
        let buckets: Vec<_> = (1 - rows as isize..width as isize).map(|i| bucket(i - (limit as isize - 1))).collect();
        let mut table = Vec::with_capacity(self.heads * rows * width);
        for head in 0..self.heads {
            let distances: Vec<f32> = buckets.iter().map(|&bucket| value(head, bucket)).collect();
            (0..rows).for_each(|row| table.extend(&distances[rows - 1 - row..][..width]));
        }
        let table = Table::new(table, [1, self.heads, rows, width], &self.device);
        BiasTable { table, limit, bidirectional, whole: Mutex::default() }
    }
}

/// The bias of so many queries that follow one another stands in a table, so that none is gathered for a pass of them, unless a text is longer than
/// this.
pub(crate) const BLOCK: usize = 16;
const LONGEST_BLOCK: usize = 4096;

/// The bias of a whole source is kept up to this length.
const LONGEST_KEPT: usize = 512;

/// The bias of every query and key up to a limit. It depends on the distance alone, so the row of one query is a stretch of
/// one table: no row is ever computed again.
pub(crate) struct BiasTable<B: Backend> {
    /// For each head and each query of a block, the bias of a key that stands `ahead` of the first of these, for `ahead` from
    /// `1 − limit` to `limit`.
    table: Table<B>,
    limit: usize,
    bidirectional: bool,
    /// The bias of all queries and keys of a source, `[1, heads, rows, rows]`, by their number.
    whole: Mutex<BTreeMap<usize, Tensor<B, 4>>>,
}

enum Table<B: Backend> {
    /// `[1, heads, rows, 2 · limit]`
    Plain(Tensor<B, 4>),
    /// `[heads, 2 · limit]`, on the host.
    #[cfg(feature = "flex")]
    Kernel(Vec<f32>),
}

impl<B: Backend> Table<B> {
    fn new(values: Vec<f32>, shape: [usize; 4], device: &B::Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            return Self::Kernel(values);
        }
        Self::Plain(Tensor::from_data(TensorData::new(values, shape), device))
    }

    fn plain(&self) -> Option<&Tensor<B, 4>> {
        match self {
            Self::Plain(table) => Some(table),
            #[cfg(feature = "flex")]
            Self::Kernel(_) => None,
        }
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
            Table::Plain(table) => Bias::Plain(self.plain(table, first, rows, keys)),
            #[cfg(feature = "flex")]
            Table::Kernel(table) => Bias::Kernel(crate::backend::kernel::Bias {
                table,
                width: 2 * self.limit,
                first: self.limit - 1 - first,
            }),
        }
    }

    /// As [`rows`](Self::rows) over the first `seen` keys, of which those ahead of each query are masked, if it stands ready.
    pub(crate) fn block(&self, first: usize, rows: usize, seen: usize) -> Option<Tensor<B, 4>> {
        let table = self.table.plain()?;
        let [one, heads, block, width] = table.dims();
        let begin = self.limit - 1 - first;
        let stands = !self.bidirectional && rows <= block && begin + seen <= width;
        stands.then(|| table.clone().slice([one - 1..one, 0..heads, 0..rows, begin..begin + seen]))
    }

    fn plain(&self, table: &Tensor<B, 4>, first: usize, rows: usize, keys: usize) -> Tensor<B, 4> {
        let seen = held::<B>(keys);
        let [one, heads, ..] = table.dims();
        let begin = self.limit - 1 - first;
        // Where only what stands behind is looked at, keys that are not there yet are masked as what stands ahead is.
        if let Some(bias) = self.block(first, rows, seen) {
            return bias;
        }
        let gathered = || {
            let indices = (0..rows).flat_map(|row| (0..seen).map(move |key| (begin + key - row) as i32)).collect();
            let indices = TensorData::new::<i32, _>(indices, [rows * seen]);
            let distances = table.clone().slice([0..one, 0..heads, 0..1, 0..2 * self.limit]);
            distances
                .select(3, Tensor::<B, 1, Int>::from_data(indices, &table.device()))
                .reshape([1, heads, rows, seen])
        };
        let whole = if self.bidirectional && first == 0 && rows == seen && rows <= LONGEST_KEPT {
            let mut kept = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            kept.entry(rows).or_insert_with(gathered).clone()
        } else {
            gathered()
        };
        let mask = if self.bidirectional { Bias::mask(keys, &table.device()) } else { None };
        match mask {
            Some(mask) => whole + mask.plain(),
            None => whole,
        }
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
