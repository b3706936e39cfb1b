use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::loader::Loader;
use crate::{T5Config, error::Result};

/// The relative position bias of a stack: what attention adds for the distance between query and key, per head.
///
/// The first layer of a stack holds it and all layers add it.
pub(super) struct PositionBias<B: Backend> {
    /// `[buckets, heads]`
    values: Vec<f32>,
    heads: usize,
    buckets: Buckets,
    device: B::Device,
}

#[derive(Clone, Copy)]
struct Buckets {
    count: usize,
    max_distance: usize,
    /// The encoder looks both ways and halves the buckets between them; the decoder only looks back.
    bidirectional: bool,
}

impl Buckets {
    /// The bucket of a key that stands `ahead` of its query (negative: behind it), as transformers computes it: half of
    /// the buckets are exact, the others grow with the logarithm of the distance up to `max_distance`. The arithmetic is
    /// f32 in the same order, so that distances on an edge fall on the same side.
    fn of(self, ahead: isize) -> usize {
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
    /// `stack` is `encoder` or `decoder`.
    pub(super) fn load(loader: &Loader<'_, B>, stack: &str, config: &T5Config) -> Result<Self> {
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let buckets = Buckets {
            count: config.position_buckets,
            max_distance: config.max_distance,
            bidirectional: stack == "encoder",
        };
        Ok(Self {
            values: loader.values(&name, [config.position_buckets, config.num_heads])?,
            heads: config.num_heads,
            buckets,
            device: loader.device().clone(),
        })
    }

    /// The bias between all tokens of a source, `[heads, length, length]`.
    pub(super) fn square(&self, length: usize) -> Tensor<B, 3> {
        let table = self.table(length, length, |ahead| Some(self.buckets.of(ahead)));
        let width = 2 * length;
        let mut square = Vec::with_capacity(self.heads * length * length);
        for head in table.chunks_exact(width) {
            for query in 0..length {
                square.extend_from_slice(&head[length - 1 - query..][..length]);
            }
        }
        Tensor::from_data(TensorData::new(square, [self.heads, length, length]), &self.device)
    }

    /// The bias of a decoder of at most `limit` tokens, with its causal mask.
    pub(super) fn causal(&self, limit: usize) -> CausalBias<B> {
        let table = self.table(limit, limit, |ahead| (ahead <= 0).then(|| self.buckets.of(ahead)));
        let shape = [self.heads, 1, 2 * limit];
        CausalBias { table: Tensor::from_data(TensorData::new(table, shape), &self.device), limit }
    }

    /// For each head, the bias of a key that stands `ahead` of its query, for `ahead` from `1 − behind` to `before`;
    /// −∞ where there is no bucket.
    fn table(&self, behind: usize, before: usize, bucket: impl Fn(isize) -> Option<usize>) -> Vec<f32> {
        let buckets: Vec<_> = (0..behind + before).map(|i| bucket(i as isize - (behind as isize - 1))).collect();
        let value = |head: usize, bucket: Option<usize>| {
            bucket.map_or(f32::NEG_INFINITY, |bucket| self.values[bucket * self.heads + head])
        };
        (0..self.heads).flat_map(|head| buckets.iter().map(move |&bucket| value(head, bucket))).collect()
    }
}

/// The decoder's bias for every query and key up to a limit. The bias depends on the distance alone, so the row of one
/// query is a stretch of one table: no row is ever computed again.
pub(super) struct CausalBias<B: Backend> {
    /// `[heads, 1, 2 · limit]`
    table: Tensor<B, 3>,
    limit: usize,
}

impl<B: Backend> CausalBias<B> {
    /// The bias of `rows` queries from position `first` on over all keys up to the last of them,
    /// `[heads, rows, first + rows]`.
    pub(super) fn rows(&self, first: usize, rows: usize) -> Tensor<B, 3> {
        let keys = first + rows;
        let row = |query: usize| self.table.clone().narrow(2, self.limit - 1 - query, keys);
        if rows == 1 { row(first) } else { Tensor::cat((first..keys).map(row).collect(), 1) }
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
