use burn::tensor::{Tensor, activation, backend::Backend};

use super::{Heads, Padded, cast, joined, position::Bias, wide};
use crate::{Precision, Threads};

/// Where there is no kernel rows are held and looked at by so many at a time, so that few shapes occur, however long a text is.
const STEP: usize = 64;

/// How many rows stand for so many: just these where kernels compute, elsewhere the next multiple of `STEP`.
pub(crate) fn held<B: Backend>(rows: usize) -> usize {
    if crate::backend::is_flex::<B>() { rows } else { rows.checked_next_multiple_of(STEP).unwrap_or(rows) }
}

/// The keys and values that one attention looks at, laid out once: those of the source, or of the tokens of a generation
/// up to its limit. How much of it is filled is known to the session, which takes tokens back by setting a length.
pub(crate) enum Cache<B: Backend> {
    Plain(Plain<B>),
    #[cfg(feature = "flex")]
    Kernel(crate::backend::kernel::KeysValues),
}

/// Keys and values as tensors.
pub(crate) struct Plain<B: Backend> {
    /// `[2, heads, rows, width]`; `None` until they are written if that is done all at once, and while more are.
    rows: Option<Tensor<B, 4>>,
    /// Whether all are written at once.
    at_once: bool,
}

/// How caches are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) heads: Heads,
    /// As these weights: 16 bits on flex (bf16) if they have 8 or fewer, as nothing is lost that is not lost already; elsewhere if
    /// they have 16.
    pub(crate) precision: Precision,
    pub(crate) threads: &'a Threads,
}

/// Whether flex holds keys and values in 16 bits.
#[cfg(feature = "flex")]
fn is_short(precision: Precision) -> bool {
    precision != Precision::F32
}

impl<B: Backend> Cache<B> {
    /// With room for `limit` rows in the end.
    pub(crate) fn new(limit: usize, layout: Layout<'_>, device: &B::Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let Layout { heads, precision, threads } = layout;
            let short = is_short(precision);
            let keys_values =
                crate::backend::kernel::KeysValues::new(limit, heads.count, heads.width, threads.clone(), short);
            return Self::Kernel(keys_values);
        }
        let Heads { count, width } = layout.heads;
        // What is looked at and not written yet is masked, and must be numbers: 0 times a NaN is one. So a row that overflows,
        // which ends a generation of its own, spoils those that look at it until it is written anew.
        let rows = Tensor::zeros([2, count, held::<B>(limit), width], device);
        let rows = match layout.precision.half() {
            Some(half) => cast(rows, half),
            None => rows,
        };
        Self::Plain(Plain { rows: Some(rows), at_once: false })
    }

    /// With room for `limit` rows, all of which are written at once.
    pub(crate) fn full(limit: usize, layout: Layout<'_>) -> Self {
        let Layout { heads, precision, threads } = layout;
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let short = is_short(precision);
            let keys_values =
                crate::backend::kernel::KeysValues::full(limit, heads.count, heads.width, threads.clone(), short);
            return Self::Kernel(keys_values);
        }
        let _ = (limit, heads, threads, precision);
        Self::Plain(Plain { rows: None, at_once: true })
    }

    /// How many bytes one with room for `limit` rows takes.
    pub(crate) fn bytes(limit: usize, heads: Heads, precision: Precision) -> f64 {
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            return crate::backend::kernel::KeysValues::bytes(limit, heads.count, heads.width, is_short(precision));
        }
        let number = if precision.half().is_some() { 2 } else { size_of::<f32>() };
        2.0 * held::<B>(limit) as f64 * (heads.all() * number) as f64
    }

    /// Those that hold just these keys and values of one layer or several, `[rows, layers · 2 · heads · width]`.
    pub(crate) fn of(keys_values: Tensor<B, 2>, layout: Layout<'_>) -> Vec<Self> {
        let inner = layout.heads.all();
        let layers = 0..keys_values.dims()[1] / (2 * inner);
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let layer = |layer: usize| {
                let mut cache = Self::full(keys_values.dims()[0], layout);
                let Self::Kernel(written) = &mut cache else { unreachable!("flex has no other caches") };
                let part = |i: usize| keys_values.clone().narrow(1, (2 * layer + i) * inner, inner);
                crate::backend::flex::write(written, &part(0), &part(1), 0).expect("flex alone has these");
                cache
            };
            return layers.map(layer).collect();
        }
        let by_head = by_head(keys_values, layout.heads);
        // Laid out once for all layers, not at each look.
        let room = cast(Tensor::empty(by_head.dims(), &by_head.device()), by_head.dtype().into());
        let all = room.slice_assign(by_head.dims().map(|size| 0..size), by_head);
        let layer =
            |layer: usize| Self::Plain(Plain { rows: Some(all.clone().narrow(0, 2 * layer, 2)), at_once: true });
        layers.clone().map(layer).collect()
    }
}

impl<B: Backend> Plain<B> {
    /// Writes new keys and values, `[2, heads, rows, width]`, from row `at` on.
    fn write(&mut self, new: Tensor<B, 4>, at: usize) {
        let old = self.rows.take();
        self.rows = Some(if self.at_once {
            new
        } else {
            let [two, heads, count, width] = new.dims();
            // Nobody else has them, so they are written where they are.
            old.expect("they are put back after each write")
                .slice_assign([0..two, 0..heads, at..at + count, 0..width], new)
        });
    }

    fn rows(&self) -> &Tensor<B, 4> {
        self.rows.as_ref().expect("they are put back after each write")
    }

    /// For how many rows there is room.
    pub(crate) fn room(&self) -> usize {
        self.rows().dims()[2]
    }

    /// The first `seen` keys (0) or values (1), `[1, heads, seen, width]`.
    pub(crate) fn part(&self, which: usize, seen: usize) -> Tensor<B, 4> {
        let [_, heads, _, width] = self.rows().dims();
        self.rows().clone().slice([which..which + 1, 0..heads, 0..seen, 0..width])
    }

    /// What queries (`[1, heads, rows, width]`) find among the first `count` keys, and those up to the next `STEP` that `bias` must mask:
    /// the sums of values, weighted by the softmax of the products of query and key with `bias` added, `[rows, heads · width]`.
    fn attend(&self, query: Tensor<B, 4>, count: usize, bias: Option<&Bias<'_, B>>) -> Tensor<B, 2> {
        let [_, heads, rows, width] = query.dims();
        let seen = held::<B>(count).min(self.room());
        let found = look(query, self.part(0, seen), self.part(1, seen), bias.map(Bias::plain));
        // The numbers of one row lie in order as they are; others are copied.
        let found = if rows == 1 { found } else { found.swap_dims(1, 2) };
        found.reshape([rows, heads * width])
    }
}

/// What queries (`[sessions, heads, rows, width]`) find among keys and values (`[sessions, heads, seen, width]`), to the shape of the queries.
pub(crate) fn look<B: Backend>(
    query: Tensor<B, 4>,
    keys: Tensor<B, 4>,
    values: Tensor<B, 4>,
    bias: Option<Tensor<B, 4>>,
) -> Tensor<B, 4> {
    let scores = wide(query.matmul(keys.swap_dims(2, 3))); // [sessions, heads, rows, seen]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    cast(activation::softmax(scores, 3), values.dtype().into()).matmul(values)
}

/// Projections (`[rows, parts · heads · width]`) as `[parts, heads, rows, width]`.
fn by_head<B: Backend>(projected: Tensor<B, 2>, heads: Heads) -> Tensor<B, 4> {
    let [rows, width] = projected.dims();
    let parts = width / heads.all();
    if rows == 1 {
        return projected.reshape([parts, heads.count, 1, heads.width]);
    }
    projected.reshape([rows, parts, heads.count, heads.width]).permute([1, 2, 0, 3])
}

/// The rows of one session that attend, and what they attend to.
pub(crate) struct Attending<'a, B: Backend> {
    pub(crate) rows: usize,
    pub(crate) cache: &'a mut Cache<B>,
    /// How many keys of the cache are looked at. If new ones are written, they are the last `rows` of these.
    pub(crate) count: usize,
    pub(crate) bias: Option<&'a Bias<'a, B>>,
}

/// What queries (the first `heads · width` of each row of `projected`, one session after the other) find, each in the cache of its session,
/// `[rows, heads · width]`. Keys and values, if they stand beside the queries, are written to the caches first. Where `padded` fits, all are
/// looked for at once.
pub(crate) fn attend<B: Backend>(
    projected: Tensor<B, 2>,
    parts: Vec<Attending<'_, B>>,
    heads: Heads,
    padded: Option<&Padded<'_, B>>,
) -> Tensor<B, 2> {
    let _span = tracing::trace_span!("attention").entered();
    let writes = projected.dims()[1] > heads.all();
    #[cfg(feature = "flex")]
    if crate::backend::is_flex::<B>() {
        let looks = parts.into_iter().map(|Attending { rows, cache, count, bias }| {
            let Cache::Kernel(memory) = cache else { unreachable!("flex has no other caches") };
            crate::backend::kernel::Look { rows, memory, count, bias: bias.map(Bias::kernel) }
        });
        let looks = looks.collect();
        let part = |i: usize| projected.clone().narrow(1, i * heads.all(), heads.all());
        let new = writes.then(|| [part(1), part(2)]);
        return crate::backend::flex::attend(&part(0), new.as_ref(), looks).expect("flex alone has these");
    }
    let (mut at, alone) = (0, parts.len() == 1);
    let mut looks: Vec<_> = Vec::with_capacity(parts.len());
    for Attending { rows, cache, count, bias } in parts {
        let own = if alone { projected.clone() } else { projected.clone().narrow(0, at, rows) };
        let own = by_head(own, heads);
        #[cfg_attr(not(feature = "flex"), allow(irrefutable_let_patterns))]
        let Cache::Plain(cache) = cache else { unreachable!("flex alone has others") };
        if writes {
            cache.write(own.clone().narrow(0, 1, 2), count - rows);
        }
        looks.push((&*cache, own, count, bias));
        at += rows;
    }
    if let Some(padded) = padded {
        let caches: Vec<_> = looks.iter().map(|(cache, ..)| *cache).collect();
        if padded.fits(&caches) {
            return padded.attend(projected, &caches, heads);
        }
    }
    joined(looks.into_iter().map(|(cache, own, count, bias)| cache.attend(own.narrow(0, 0, 1), count, bias)).collect())
}
