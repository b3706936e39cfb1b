//! What training computes: each part of a T5 with its gradient. A backend that has nothing of its own computes it with Burn's
//! tensors; flex has kernels, which make one pass where tensors make many, on all cores.

mod flex;
mod kernel;
mod plain;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bild::{decode::Token, models::Activation};
use burn::{
    Tensor,
    tensor::{ElementConversion, backend::Backend},
};

use crate::{
    loss::{Loss, Score, Targets},
    optimizer::AdamW,
    random::Dropout,
};

pub(crate) use plain::loss_of_logits;

/// A backend that trains: `bild_train::Flex`, or one of Burn's for which this trait is implemented with no lines at all, since every
/// method has a body. Rows are the tokens of a batch, one sequence after the other, each padded to the longest.
pub trait Compute: Backend {
    /// `[rows, in]` and `[out, in]` to `[rows, out]`.
    fn project(x: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::project(x, weight)
    }

    /// Rows over the roots of their mean squares, times `weight`.
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        plain::rms_norm(x, weight, epsilon)
    }

    /// Queries, keys and values, `[rows, heads · d_kv]` each, and the bias of buckets of positions, `[buckets, heads]`.
    fn attend(
        [queries, keys, values]: [Tensor<Self, 2>; 3],
        bias: Option<Tensor<Self, 2>>,
        attending: &Attending,
    ) -> Tensor<Self, 2> {
        plain::attend([queries, keys, values], bias, attending)
    }

    /// The non-linearity of `gate`, times `up` where there is one, with dropout.
    fn activate(
        gate: Tensor<Self, 2>,
        up: Option<Tensor<Self, 2>>,
        activation: Activation,
        dropout: Dropout,
    ) -> Tensor<Self, 2> {
        plain::activate(gate, up, activation, dropout)
    }

    /// `x` and what is left of `y`.
    fn residual(x: Tensor<Self, 2>, y: Tensor<Self, 2>, dropout: Dropout) -> Tensor<Self, 2> {
        plain::residual(x, y, dropout)
    }

    /// What is left of `x`.
    fn dropout(x: Tensor<Self, 2>, dropout: Dropout) -> Tensor<Self, 2> {
        plain::dropout(x, dropout)
    }

    /// Rows of a matrix.
    fn embed(weight: Tensor<Self, 2>, tokens: &[Token]) -> Tensor<Self, 2> {
        plain::embed(weight, tokens)
    }

    /// The sum of the losses of the rows that [`Targets`] name, times `head.scale_loss`: the head and the loss are one, so that the
    /// logits of all rows never lie in memory at once.
    fn loss(rows: Tensor<Self, 2>, head: Head<Self>, targets: &Targets, loss: Loss) -> Tensor<Self, 1> {
        plain::loss(rows, head, targets, loss)
    }

    /// The sum of the losses, and how often the target is the most likely token; no gradient.
    fn score(rows: Tensor<Self, 2>, head: Head<Self>, targets: &Targets, loss: Loss) -> Score {
        plain::score(rows, head, targets, loss)
    }

    /// The sum of the squares.
    fn squares(x: &Tensor<Self, 1>) -> f64 {
        x.clone().powi_scalar(2).sum().into_scalar().elem::<f64>()
    }

    /// One step of AdamW: the parameter and its two moments, given its gradient times `factor`.
    fn adamw(
        rule: &AdamW,
        [rate, factor]: [f64; 2],
        step: usize,
        parameter: Tensor<Self, 1>,
        gradient: Tensor<Self, 1>,
        moments: Vec<Tensor<Self, 1>>,
    ) -> (Tensor<Self, 1>, Vec<Tensor<Self, 1>>) {
        plain::adamw(rule, [rate, factor], step, parameter, gradient, moments)
    }
}

/// The matrix that scores the tokens, `[vocab, d_model]`.
#[derive(Clone, Debug)]
pub struct Head<B: Backend> {
    /// The matrix.
    pub weight: Tensor<B, 2>,
    /// What rows are multiplied by before it.
    pub scale: f32,
    /// What the loss is multiplied by after it: one over the number of tokens, for a mean.
    pub scale_loss: f32,
}

/// Who attends to what.
#[derive(Clone, Debug)]
pub struct Attending {
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Rows of queries of a sequence.
    pub queries: usize,
    /// Rows of keys of a sequence.
    pub keys: usize,
    /// How many of a sequence's keys are no padding.
    pub lengths: Arc<[usize]>,
    /// Whether a query attends to no key after it.
    pub is_causal: bool,
    /// The bucket of a key that stands `i − (queries − 1)` ahead of its query, where there is a bias.
    pub buckets: Arc<[usize]>,
    /// What is dropped of the weights.
    pub dropout: Dropout,
}

impl Attending {
    /// How many keys a query of a sequence attends to: the first of them.
    #[inline(always)]
    fn visible(&self, sequence: usize, query: usize) -> usize {
        let length = self.lengths[sequence];
        if self.is_causal { length.min(query + 1) } else { length }
    }
}

#[cfg(feature = "tch")]
impl Compute for burn_tch::LibTorch {}

#[cfg(feature = "tch")]
impl Compute for burn::backend::Autodiff<burn_tch::LibTorch> {}
