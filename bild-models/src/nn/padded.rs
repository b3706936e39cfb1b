use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::{
    Heads,
    cache::{Plain, look},
};

/// The rows of several sessions, padded to as many for each: on a device attention of all in one product takes fewer launches than one for
/// each, and launches are what takes time there.
pub(crate) struct Padding<B: Backend> {
    sessions: usize,
    /// Of each session.
    rows: usize,
    /// From which row each padded one is taken, and which of those is each row; `None` if none is padded.
    places: Option<[Tensor<B, 1, Int>; 2]>,
}

impl<B: Backend> Padding<B> {
    /// For sessions with so many rows each, one after the other.
    pub(crate) fn of(counts: &[usize], device: &B::Device) -> Self {
        let rows = counts.iter().copied().max().unwrap_or_default();
        let places = counts.iter().any(|&count| count != rows).then(|| {
            let (mut from, mut to, mut begin) = (Vec::new(), Vec::new(), 0);
            for (session, &count) in counts.iter().enumerate() {
                // Another row of the session stands for what is not there.
                from.extend((0..rows).map(|row| (begin + row.min(count - 1)) as i32));
                to.extend((0..count).map(|row| (session * rows + row) as i32));
                begin += count;
            }
            [from, to].map(|places| {
                let count = places.len();
                Tensor::from_data(TensorData::new(places, [count]), device)
            })
        });
        Self { sessions: counts.len(), rows, places }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
}

/// What the queries of several sessions look at: as many keys of each.
pub(crate) struct Padded<'a, B: Backend> {
    pub(crate) padding: &'a Padding<B>,
    pub(crate) keys: usize,
    /// `[sessions or 1, heads or 1, rows or 1, keys]`, which must mask those that are not there.
    pub(crate) bias: Option<&'a Tensor<B, 4>>,
}

impl<B: Backend> Padded<'_, B> {
    /// Whether each cache has room for so many keys.
    pub(crate) fn fits(&self, caches: &[&Plain<B>]) -> bool {
        caches.iter().all(|cache| cache.room() >= self.keys)
    }

    /// What queries (the first `heads · width` of each row of `projected`) find, `[rows, heads · width]`.
    pub(crate) fn attend(&self, projected: Tensor<B, 2>, caches: &[&Plain<B>], heads: Heads) -> Tensor<B, 2> {
        let Padding { sessions, rows, places } = self.padding;
        let queries = projected.narrow(1, 0, heads.all());
        let queries = match places {
            Some([from, _]) => queries.select(0, from.clone()),
            None => queries,
        };
        let queries = queries.reshape([*sessions, *rows, heads.count, heads.width]).swap_dims(1, 2);
        let of = |which: usize| Tensor::cat(caches.iter().map(|cache| cache.part(which, self.keys)).collect(), 0);
        let found = look(queries, of(0), of(1), self.bias.cloned());
        let found = found.swap_dims(1, 2).reshape([sessions * rows, heads.all()]);
        match places {
            Some([_, to]) => found.select(0, to.clone()),
            None => found,
        }
    }
}
