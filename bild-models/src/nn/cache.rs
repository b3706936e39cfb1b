use burn::tensor::{Tensor, activation, backend::Backend};

use super::{Heads, joined, position::Bias};
use crate::Threads;

/// The keys and values that one attention looks at, laid out once: those of the source, or of the tokens of a generation
/// up to its limit. How much of it is filled is known to the session, which takes tokens back by setting a length.
pub(crate) enum Cache<B: Backend> {
    /// `[limit, heads · width]` each; `None` only while they are written.
    Plain(Option<[Tensor<B, 2>; 2]>),
    #[cfg(feature = "flex")]
    Kernel(crate::backend::kernel::KeysValues),
}

/// How caches are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) heads: Heads,
    /// Whether numbers are held in 16 bits (bf16), which half as much has to be read of. Flex alone does.
    pub(crate) short: bool,
    pub(crate) threads: &'a Threads,
}

impl<B: Backend> Cache<B> {
    /// With room for `limit` rows in the end.
    pub(crate) fn new(limit: usize, layout: Layout<'_>, device: &B::Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let Layout { heads, short, threads } = layout;
            let keys_values =
                crate::backend::kernel::KeysValues::new(limit, heads.count, heads.width, threads.clone(), short);
            return Self::Kernel(keys_values);
        }
        Self::full(limit, layout, device)
    }

    /// With room for `limit` rows, all of which will be written.
    pub(crate) fn full(limit: usize, layout: Layout<'_>, device: &B::Device) -> Self {
        let Layout { heads, short, threads } = layout;
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let keys_values =
                crate::backend::kernel::KeysValues::full(limit, heads.count, heads.width, threads.clone(), short);
            return Self::Kernel(keys_values);
        }
        let _ = (threads, short);
        let rows = || Tensor::zeros([limit, heads.count * heads.width], device);
        Self::Plain(Some([rows(), rows()]))
    }

    /// How many bytes one with room for `limit` rows takes.
    pub(crate) fn bytes(limit: usize, heads: Heads, short: bool) -> f64 {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            return crate::backend::kernel::KeysValues::bytes(limit, heads.count, heads.width, short);
        }
        let _ = short;
        2.0 * limit as f64 * (heads.count * heads.width * size_of::<f32>()) as f64
    }

    /// One that holds just these keys and values.
    pub(crate) fn of(keys: Tensor<B, 2>, values: Tensor<B, 2>, layout: Layout<'_>) -> Self {
        let mut cache = Self::full(keys.dims()[0], layout, &keys.device());
        cache.write(keys, values, 0);
        cache
    }

    /// Writes new rows, `[rows, heads · width]` each, from row `at` on.
    pub(crate) fn write(&mut self, keys: Tensor<B, 2>, values: Tensor<B, 2>, at: usize) {
        match self {
            Self::Plain(rows) => {
                let [count, width] = keys.dims();
                let [old_keys, old_values] = rows.take().expect("they are put back after each write");
                let place = || [at..at + count, 0..width];
                *rows = Some([old_keys.slice_assign(place(), keys), old_values.slice_assign(place(), values)]);
            }
            #[cfg(feature = "flex")]
            Self::Kernel(rows) => crate::backend::flex::write(rows, &keys, &values, at).expect("flex alone has these"),
        }
    }

    /// What queries (`[rows, heads · width]`) find among the first `count` keys: the sums of values, weighted by the softmax
    /// of the products of query and key with `bias` added, `[rows, heads · width]`.
    fn attend(&self, query: Tensor<B, 2>, count: usize, bias: Option<&Bias<'_, B>>, heads: usize) -> Tensor<B, 2> {
        let [keys, values] = match self {
            Self::Plain(rows) => rows.clone().expect("they are put back after each write"),
            #[cfg(feature = "flex")]
            Self::Kernel(_) => unreachable!("a kernel attends for all sessions at once"),
        };
        let [rows, width] = query.dims();
        let split = |x: Tensor<B, 2>| {
            let rows = x.dims()[0];
            x.reshape([rows, heads, width / heads]).swap_dims(0, 1) // [heads, rows, width]
        };
        let (keys, values) = (keys.narrow(0, 0, count), values.narrow(0, 0, count));
        let scores = split(query).matmul(split(keys).swap_dims(1, 2)); // [heads, rows, count]
        let scores = match bias {
            Some(bias) => scores + bias.plain(),
            None => scores,
        };
        let found = activation::softmax(scores, 2).matmul(split(values)); // [heads, rows, width]
        found.swap_dims(0, 1).reshape([rows, width])
    }
}

/// The rows of one session that attend, and what they attend to.
pub(crate) struct Attending<'a, B: Backend> {
    pub(crate) rows: usize,
    pub(crate) cache: &'a mut Cache<B>,
    /// How many keys of the cache are looked at. If new ones are written, they are the last `rows` of these.
    pub(crate) count: usize,
    pub(crate) bias: Option<&'a Bias<'a, B>>,
}

/// What queries (`[rows, heads · width]`, one session after the other) find, each in the cache of its session, to the same shape;
/// `new` keys and values of that shape are written to the caches first.
pub(crate) fn attend<B: Backend>(
    query: Tensor<B, 2>,
    new: Option<&[Tensor<B, 2>; 2]>,
    parts: Vec<Attending<'_, B>>,
    heads: usize,
) -> Tensor<B, 2> {
    let _span = tracing::trace_span!("attention").entered();
    #[cfg(feature = "flex")]
    if crate::backend::is_flex::<B>() {
        let looks = parts.into_iter().map(|Attending { rows, cache, count, bias }| {
            let Cache::Kernel(memory) = cache else { unreachable!("flex has no other caches") };
            crate::backend::kernel::Look { rows, memory, count, bias: bias.map(Bias::kernel) }
        });
        let looks = looks.collect();
        return crate::backend::flex::attend(&query, new, looks).expect("flex alone has these");
    }
    let mut at = 0;
    let mut found: Vec<_> = Vec::with_capacity(parts.len());
    for Attending { rows, cache, count, bias } in parts {
        let of = |x: &Tensor<B, 2>| x.clone().narrow(0, at, rows);
        if let Some([keys, values]) = new {
            cache.write(of(keys), of(values), count - rows);
        }
        found.push(cache.attend(of(&query), count, bias, heads));
        at += rows;
    }
    joined(found)
}
