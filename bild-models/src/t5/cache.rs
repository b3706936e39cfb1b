use burn::tensor::{Tensor, backend::Backend};

use super::attention::KeysValues;

/// The keys and values of one self-attention layer, laid out once for the limit of the generation. How much of it is
/// filled is known to the session, which takes tokens back by setting a length.
pub(super) struct Cache<B: Backend> {
    keys: Rows<B>,
    values: Rows<B>,
}

impl<B: Backend> Cache<B> {
    pub(super) fn new(limit: usize, heads: usize, d_kv: usize, device: &B::Device) -> Self {
        let rows = || Rows(Some(Tensor::zeros([limit, heads, d_kv], device)));
        Self { keys: rows(), values: rows() }
    }

    /// Writes new rows from row `at` on, and returns all up to the last of them. Reading is a view of the cache.
    pub(super) fn extend(&mut self, new: KeysValues<B>, at: usize) -> KeysValues<B> {
        KeysValues { keys: self.keys.extend(new.keys, at), values: self.values.extend(new.values, at) }
    }
}

/// `[limit, heads, d_kv]`; `None` only while it is being written.
struct Rows<B: Backend>(Option<Tensor<B, 3>>);

impl<B: Backend> Rows<B> {
    fn extend(&mut self, new: Tensor<B, 3>, at: usize) -> Tensor<B, 3> {
        let [count, heads, d_kv] = new.dims();
        let cache = self.0.take().expect("a cache is put back after each write");
        let cache = write(cache, new, at);
        self.0 = Some(cache.clone());
        cache.slice([0..at + count, 0..heads, 0..d_kv])
    }
}

#[cfg(feature = "flex")]
fn write<B: Backend>(cache: Tensor<B, 3>, new: Tensor<B, 3>, at: usize) -> Tensor<B, 3> {
    if !crate::flex::is_flex::<B>() {
        return assign(cache, new, at);
    }
    let (mut primitive, rows) = (cache.into_primitive(), new.into_primitive());
    let done = crate::flex::write_rows::<B>(&mut primitive, &rows, at);
    let cache = Tensor::from_primitive(primitive);
    if done { cache } else { assign(cache, Tensor::from_primitive(rows), at) }
}

#[cfg(not(feature = "flex"))]
use assign as write;

fn assign<B: Backend>(cache: Tensor<B, 3>, new: Tensor<B, 3>, at: usize) -> Tensor<B, 3> {
    let [count, heads, d_kv] = new.dims();
    cache.slice_assign([at..at + count, 0..heads, 0..d_kv], new)
}
