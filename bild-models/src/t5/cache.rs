use burn::tensor::{Tensor, backend::Backend};

use super::attention::KeysValues;

/// The keys and values of one self-attention layer, laid out once for the limit of the generation. How much of it is
/// filled is known to the session, which takes tokens back by setting a length.
pub(super) struct Cache<B: Backend> {
    keys: Rows<B>,
    values: Rows<B>,
}

impl<B: Backend> Cache<B> {
    /// For `limit` keys and values of `width` each.
    pub(super) fn new(limit: usize, width: usize, device: &B::Device) -> Self {
        let rows = || Rows(Some(Tensor::zeros([limit, width], device)));
        Self { keys: rows(), values: rows() }
    }

    /// Writes new rows from row `at` on, and returns all up to the last of them. Reading is a view of the cache.
    pub(super) fn extend(&mut self, new: KeysValues<B>, at: usize) -> KeysValues<B> {
        KeysValues { keys: self.keys.extend(new.keys, at), values: self.values.extend(new.values, at) }
    }
}

/// `[limit, width]`; `None` only while it is being written.
struct Rows<B: Backend>(Option<Tensor<B, 2>>);

impl<B: Backend> Rows<B> {
    fn extend(&mut self, new: Tensor<B, 2>, at: usize) -> Tensor<B, 2> {
        let count = new.dims()[0];
        let cache = self.0.take().expect("a cache is put back after each write");
        let cache = write(cache, new, at);
        self.0 = Some(cache.clone());
        cache.narrow(0, 0, at + count)
    }
}

#[cfg(feature = "flex")]
fn write<B: Backend>(cache: Tensor<B, 2>, new: Tensor<B, 2>, at: usize) -> Tensor<B, 2> {
    if !crate::flex::is_flex::<B>() {
        return assign(cache, new, at);
    }
    let mut primitive = cache.into_primitive();
    let done = crate::flex::write_rows::<B>(&mut primitive, &new, at);
    let cache = Tensor::from_primitive(primitive);
    if done { cache } else { assign(cache, new, at) }
}

#[cfg(not(feature = "flex"))]
use assign as write;

fn assign<B: Backend>(cache: Tensor<B, 2>, new: Tensor<B, 2>, at: usize) -> Tensor<B, 2> {
    let [count, width] = new.dims();
    cache.slice_assign([at..at + count, 0..width], new)
}
