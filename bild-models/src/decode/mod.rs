//! What any decoder with a cache needs to draft and to verify: sessions, early exit, a draft decoder on the same encoder, look-up. A
//! family brings a [`Decoder`].

mod early_exit;
mod guess;
mod late;
mod lookup;
mod self_test;
mod session;
mod shared_encoder;
#[cfg(all(test, feature = "flex", feature = "safetensors", feature = "tokenizers"))]
mod tests;
#[cfg(all(test, feature = "flex", feature = "safetensors", feature = "tokenizers"))]
mod toy;

use std::{ops::Range, sync::Arc};

use bild_core::{Error, Pass, Result, Row, SessionLimit, Source, Token, Vocabulary, Want};
use burn::tensor::{
    Int, Tensor, TensorData,
    backend::{Backend, BackendTypes},
};

use crate::{
    Threads,
    backend::{self, is_flex, memory},
    nn::{
        ShortHead,
        reduce::{self, Asked, Reduced},
    },
};

pub use early_exit::{EarlyExit, EarlyExitSession};
pub use guess::{Guess, GuessSession};
pub use lookup::{LookIn, NgramLookup, NgramLookupSession};
pub(crate) use self_test::{check_floats, probe, self_test};
pub(crate) use session::Session;
pub use shared_encoder::{SharedEncoder, SharedEncoderSession};

/// The weights of a decoder, immutable and shared, and how tokens go through its layers.
pub trait Decoder: Send + Sync + Sized + 'static {
    /// Where its tensors are.
    type Backend: Backend;
    /// What is made of the source before anything is known of the output: the states of an encoder.
    type Encoded: Clone + Send + 'static;
    /// What one generation needs: what the decoder knows of the source, and a cache laid out for the limit, of which a session
    /// knows how much is filled.
    type State: Send + 'static;

    /// The tokens it speaks.
    fn vocabulary(&self) -> &Vocabulary;

    /// Why it cannot decode, if it cannot.
    ///
    /// # Errors
    ///
    /// That.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How many layers it has.
    fn layers(&self) -> usize;

    /// How many weights a pass reads, for a pass that pays to be computed by several threads.
    fn weights(&self) -> usize;

    /// The device of its tensors.
    fn device(&self) -> &<Self::Backend as BackendTypes>::Device;

    /// The threads it computes in, on a CPU.
    fn threads(&self) -> &Threads;

    /// As [`VerifierModel::bytes_for`](bild_core::VerifierModel::bytes_for).
    fn bytes_for(&self, source: usize, tokens: usize) -> u64;

    /// Reads sources, several in one pass. What is made of one does not depend on the others.
    ///
    /// # Errors
    ///
    /// For one that cannot be read, or that nobody waits for any more, as its limit says.
    fn encode(self: &Arc<Self>, sources: &[(&Source, &SessionLimit)]) -> Vec<Result<Self::Encoded>>;

    /// The states of generations, from what was made of their sources.
    ///
    /// # Errors
    ///
    /// For one that nobody waits for any more, as its limit says.
    fn begin(self: &Arc<Self>, encoded: Vec<(Self::Encoded, &SessionLimit)>) -> Vec<Result<Self::State>>;

    /// What the first layer takes of tokens, all of the vocabulary: `[tokens, width]`.
    fn embed(&self, tokens: &[Token]) -> Tensor<Self::Backend, 2>;

    /// As [`embed`](Self::embed), of tokens that are on the device, of a backend other than flex.
    fn embed_on_device(&self, tokens: Tensor<Self::Backend, 1, Int>) -> Tensor<Self::Backend, 2>;

    /// The rows of one or more sessions, `[rows, width]` one session after the other, through some of the layers. A row's numbers do
    /// not depend on the other sessions: on flex to the bit, elsewhere up to rounding.
    fn forward(
        &self,
        rows: Tensor<Self::Backend, 2>,
        parts: &mut [Part<'_, Self::State>],
        layers: Range<usize>,
    ) -> Tensor<Self::Backend, 2>;

    /// The norm of rows, `[rows, width]`, that come out of the last layer.
    fn norm(&self, rows: Tensor<Self::Backend, 2>) -> Tensor<Self::Backend, 2>;

    /// The part of the head that drafts for a source are made with, if it is not all of it.
    fn short_head(&self, source: &Source) -> Option<Arc<ShortHead<Self::Backend>>> {
        let _ = source;
        None
    }

    /// The logits of rows after the norm: `[rows, vocab]`, or those of the tokens of a short head.
    fn head(
        &self,
        rows: Tensor<Self::Backend, 2>,
        short: Option<&ShortHead<Self::Backend>>,
    ) -> Tensor<Self::Backend, 2>;

    /// The logits, `[rows, vocab]`, of rows that come out of a layer.
    fn logits(&self, rows: Tensor<Self::Backend, 2>) -> Tensor<Self::Backend, 2> {
        self.head(self.norm(rows), None)
    }
}

/// The rows of one session in a pass.
#[derive(Debug)]
pub struct Part<'a, S> {
    /// The state of the session.
    pub state: &'a mut S,
    /// The position of the first row: so many tokens stand in the cache before it.
    pub at: usize,
    /// How many rows.
    pub rows: usize,
}

/// A model whose weights are a [`Decoder`].
pub trait DecoderModel: Clone + Send + Sync {
    /// The weights.
    type Decoder: Decoder;

    /// The weights, shared.
    fn decoder(&self) -> &Arc<Self::Decoder>;
}

/// So many sessions share the reading of the weights; with more, time goes into multiplying alone.
pub(crate) const BATCH_SIZE: usize = 64;

/// On the CPU each of the threads can compute a pass of its own; a device computes one after the other.
pub(crate) fn passes_at_once<D: Decoder>(decoder: &D) -> usize {
    if is_flex::<D::Backend>() { decoder.threads().count() } else { 1 }
}

/// Makes `$model<B>`, whose field `weights` is an `Arc` of the decoder `$weights<B>`, draft and verify.
macro_rules! drafts_and_verifies {
    ($model:ident, $weights:ident) => {
        impl<B: Backend> $crate::decode::DecoderModel for $model<B> {
            type Decoder = $weights<B>;

            fn decoder(&self) -> &std::sync::Arc<$weights<B>> {
                &self.weights
            }
        }

        impl<B: Backend> bild_core::Model for $model<B> {
            type Session = $crate::decode::Session<$weights<B>>;

            fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
                $crate::decode::Session::begin(&self.weights, source, limit)
            }

            fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
                $crate::decode::Decoder::bytes_for(&*self.weights, source, tokens)
            }

            fn batch_size(&self) -> usize {
                $crate::decode::BATCH_SIZE
            }

            fn passes_at_once(&self) -> usize {
                $crate::decode::passes_at_once(&*self.weights)
            }
        }

        impl<B: Backend> bild_core::DraftModel for $model<B> {
            fn speaks(&self) -> Option<&Vocabulary> {
                Some($crate::decode::Decoder::vocabulary(&*self.weights))
            }

            fn most_drafts(&self) -> usize {
                $crate::decode::most_drafts(&*self.weights)
            }

            fn propose_all(
                &self,
                passes: &mut [(&mut Self::Session, bild_core::Pass<'_>)],
            ) -> Vec<bild_core::Result<bild_core::Rows>> {
                $crate::decode::Session::propose_all(&self.weights, passes)
            }
        }

        impl<B: Backend> bild_core::VerifierModel for $model<B> {
            fn vocabulary(&self) -> &Vocabulary {
                $crate::decode::Decoder::vocabulary(&*self.weights)
            }

            fn score_all(
                &self,
                passes: &mut [(&mut Self::Session, bild_core::Pass<'_>)],
            ) -> Vec<bild_core::Result<bild_core::Rows>> {
                $crate::decode::Session::score_all(&self.weights, passes)
            }
        }
    };
}
pub(crate) use drafts_and_verifies;

/// Computes a pass over so many rows, where its backend computes best.
pub(crate) fn run<D: Decoder, R: Send + 'static>(
    decoder: &Arc<D>,
    rows: usize,
    pass: impl FnOnce(&D) -> R + Send + 'static,
) -> R {
    let weights = decoder.clone();
    // A weight takes as long to read as to multiply eight times.
    let work = (rows + 8) * decoder.weights();
    backend::run::<D::Backend, _>(decoder.threads(), work, move || pass(&weights))
}

/// Refuses tokens that are not of the vocabulary; `place` says where the token at an index stood.
pub(crate) fn check_tokens<D: Decoder>(decoder: &D, tokens: &[Token], place: impl Fn(usize) -> String) -> Result<()> {
    let mut numbered = tokens.iter().enumerate();
    numbered.try_for_each(|(at, &token)| decoder.vocabulary().check(token, || place(at)))
}

/// Does `together` for those that are well, given their numbers, and puts its results beside the errors of the others.
pub(crate) fn for_each_ok<X, Y>(
    items: Vec<Result<X>>,
    together: impl FnOnce(Vec<X>, &[usize]) -> Vec<Result<Y>>,
) -> Vec<Result<Y>> {
    let (mut found, mut well, mut chosen) = (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
    for (i, item) in items.into_iter().enumerate() {
        found.push(item.map(|item| {
            well.push(item);
            chosen.push(i);
        }));
    }
    let mut done = if well.is_empty() { Vec::new() } else { together(well, &chosen) }.into_iter();
    let missing = || Err(Error::model("a pass over several returned too few results"));
    found.into_iter().map(|item| item.and_then(|()| done.next().unwrap_or_else(missing))).collect()
}

/// What a session drafts with, and what is wanted of its rows.
#[derive(Clone)]
struct Drafting<B: Backend> {
    /// Part of the head, if not all of it.
    short: Option<Arc<ShortHead<B>>>,
    want: Want,
    /// How many drafts, at least 1.
    most: usize,
}

impl<B: Backend> Drafting<B> {
    /// Of a session that has `room` for more tokens.
    fn new(short: Option<Arc<ShortHead<B>>>, pass: &Pass<'_>, room: usize) -> Self {
        let step_by_step = is_flex::<B>() || pass.want.logits;
        let most = if step_by_step { 1 } else { pass.most.min(room + 1) };
        Self { short, want: pass.want, most }
    }
}

/// The most drafts in one go: one that ends its sequence early would be followed by too much that nobody keeps.
const DRAFTS_IN_ONE_GO: usize = 16;

/// How many drafts a session of this decoder can make in one go. Where tensors lie in the memory of this process nothing is gained.
pub(crate) fn most_drafts<D: Decoder>(decoder: &D) -> usize {
    if memory::is_host::<D::Backend>(decoder.device()) { 1 } else { DRAFTS_IN_ONE_GO }
}

/// The drafts of sessions, the first of each from its last row after the norm. If more are asked for, each goes on from its own: `step`
/// is given how many there are, the numbers of the sessions that go on and their last drafts, and returns the next rows after the norm;
/// all are read at once.
fn draft<D: Decoder>(
    decoder: &D,
    normed: Tensor<D::Backend, 2>,
    drafting: &[Drafting<D::Backend>],
    mut step: impl FnMut(usize, &[usize], Tensor<D::Backend, 1, Int>) -> Tensor<D::Backend, 2>,
) -> Vec<Vec<Result<Row>>> {
    // Logits are read on the host, where a step is as good as many.
    if drafting.iter().all(|drafting| drafting.most == 1) || drafting.iter().any(|drafting| drafting.want.logits) {
        return read_drafts(decoder, normed, drafting).into_iter().map(|row| vec![row]).collect();
    }
    let mut chosen: Vec<usize> = (0..drafting.len()).collect();
    let (mut order, mut found) = (chosen.clone(), reduced_drafts(decoder, normed, drafting, &chosen));
    let mut last = argmax(&found);
    for drafted in 1.. {
        let goes_on = |&(_, &i): &(usize, &usize)| drafting[i].most > drafted;
        let (places, next): (Vec<_>, Vec<_>) =
            chosen.iter().enumerate().filter(goes_on).map(|(place, &i)| (place as i32, i)).unzip();
        if next.is_empty() {
            break;
        }
        if next.len() < chosen.len() {
            last = last.select(0, Tensor::from_data(TensorData::new(places, [next.len()]), decoder.device()));
        }
        chosen = next;
        let reduced = reduced_drafts(decoder, step(drafted, &chosen, last), drafting, &chosen);
        last = argmax(&reduced);
        order.extend(&chosen);
        found.extend(reduced);
    }
    let asked: Vec<Asked> = order.iter().map(|&i| (drafting[i].want, None)).collect();
    let mut rows: Vec<Vec<_>> = drafting.iter().map(|_| Vec::new()).collect();
    match Reduced::read_all(found, &asked) {
        Ok(read) => order.into_iter().zip(read).for_each(|(i, row)| rows[i].push(row)),
        Err(error) => rows.iter_mut().for_each(|rows| rows.push(Err(Error::model(error.to_string())))),
    }
    rows
}

/// Logits, what is asked of their rows, and the short head they are of, if they are of one.
type DraftLogits<'a, B> = (Tensor<B, 2>, Vec<Asked>, Option<&'a ShortHead<B>>);

/// The logits that the sessions with these numbers draft from: all in one, or where
/// one has a short head each by itself.
fn draft_logits<'a, D: Decoder>(
    decoder: &D,
    normed: Tensor<D::Backend, 2>,
    drafting: &'a [Drafting<D::Backend>],
    chosen: &[usize],
) -> Vec<DraftLogits<'a, D::Backend>> {
    let asked: Vec<Asked> = chosen.iter().map(|&i| (drafting[i].want, None)).collect();
    if chosen.iter().all(|&i| drafting[i].short.is_none()) {
        return vec![(decoder.head(normed, None), asked, None)];
    }
    let each = chosen.iter().zip(asked).enumerate().map(|(place, (&i, asked))| {
        let short = drafting[i].short.as_deref();
        let row = if chosen.len() == 1 { normed.clone() } else { normed.clone().narrow(0, place, 1) };
        (decoder.head(row, short), vec![asked], short)
    });
    each.collect()
}

/// The drafts from these rows, read.
fn read_drafts<D: Decoder>(
    decoder: &D,
    normed: Tensor<D::Backend, 2>,
    drafting: &[Drafting<D::Backend>],
) -> Vec<Result<Row>> {
    let all: Vec<usize> = (0..drafting.len()).collect();
    let rows =
        draft_logits(decoder, normed, drafting, &all).into_iter().flat_map(|(logits, asked, short)| match short {
            Some(short) => short.reduce(logits, &asked, decoder.threads()),
            None => reduce::rows(logits, &asked, decoder.threads()),
        });
    rows.collect()
}

/// The most likely tokens of rows, `[rows]`.
fn argmax<B: Backend>(reduced: &[Reduced<B>]) -> Tensor<B, 1, Int> {
    let tokens: Vec<_> = reduced.iter().map(|reduced| reduced.argmax.clone().reshape([-1])).collect();
    if tokens.len() == 1 { tokens[0].clone() } else { Tensor::cat(tokens, 0) }
}

/// The drafts from these rows, of the sessions with these numbers, on the device.
fn reduced_drafts<D: Decoder>(
    decoder: &D,
    normed: Tensor<D::Backend, 2>,
    drafting: &[Drafting<D::Backend>],
    chosen: &[usize],
) -> Vec<Reduced<D::Backend>> {
    let rows = draft_logits(decoder, normed, drafting, chosen).into_iter().map(|(logits, asked, short)| match short {
        Some(short) => short.reduce_on_device(logits, &asked),
        None => Reduced::of(logits, &asked),
    });
    rows.collect()
}

/// Where the tokens of a pass stand, of which the first is at position `first`.
fn in_output(first: usize) -> impl Fn(usize) -> String {
    move |at| format!("at position {} of the output", first + at)
}

/// What is asked of each row of a pass over `new`.
fn asked(new: &[Token], want: Want) -> impl Iterator<Item = Asked> {
    new[1..].iter().copied().map(Some).chain([None]).map(move |next| (want, next))
}

/// Refuses a pass of no tokens, and one beyond the limit of a session.
fn check_pass(name: &'static str, before: usize, new: usize, limit: usize) -> Result<()> {
    if new > 0 && before + new <= limit {
        return Ok(());
    }
    let found = format!("{new} new tokens after {before}");
    Err(Error::Setting { name, found, expected: "at least one, and no more in all than the session was begun for" })
}

/// Refuses a session that takes more memory than is free beside what is needed already, where that is the memory of this process. One
/// that fits is added to what is needed.
fn check_memory<D: Decoder>(decoder: &D, source: usize, tokens: usize, already: &mut u64) -> Result<()> {
    /// Asking what is free takes longer than finding out about less.
    const WORTH_ASKING: u64 = 64 << 20;
    let needed = decoder.bytes_for(source, tokens);
    let all = already.saturating_add(needed);
    if all < WORTH_ASKING || !memory::is_host::<D::Backend>(decoder.device()) {
        *already = all;
        return Ok(());
    }
    let too_much = |free: u64| {
        let free = memory::gigabytes(free.saturating_sub(*already));
        let reason = format!("{free} are free; a shorter source or a smaller `max_new_tokens` takes less");
        Error::Memory { needed, reason }
    };
    memory::check(all).map_err(too_much)?;
    *already = all;
    Ok(())
}
