//! Everything with Burn's tensors and Burn's gradients: what a backend without kernels computes, and what the kernels are checked by.

use bild::{decode::Token, models::Activation};
use burn::{
    Tensor,
    tensor::{ElementConversion, Int, TensorData, activation as functions, backend::Backend},
};

use super::{Attending, Head};
use crate::{
    loss::{Loss, Rest, Score, Targets},
    optimizer::AdamW,
    random::Dropout,
};

pub(super) fn project<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    x.matmul(weight.transpose())
}

pub(super) fn rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, epsilon: f64) -> Tensor<B, 2> {
    let root = (x.clone() * x.clone()).mean_dim(1).add_scalar(epsilon).sqrt();
    x / root * weight.unsqueeze()
}

pub(super) fn attend<B: Backend>(
    [queries, keys, values]: [Tensor<B, 2>; 3],
    bias: Option<Tensor<B, 2>>,
    at: &Attending,
) -> Tensor<B, 2> {
    let device = queries.device();
    let inner = queries.dims()[1];
    let split = |x: Tensor<B, 2>, rows| x.reshape([at.batch, rows, at.heads, inner / at.heads]).swap_dims(1, 2);
    let (queries, keys, values) = (split(queries, at.queries), split(keys, at.keys), split(values, at.keys));
    let mut scores = queries.matmul(keys.swap_dims(2, 3));
    if let Some(bias) = bias {
        let of = |i: usize| (0..at.keys).map(move |j| at.buckets[j + at.queries - 1 - i] as i32);
        let buckets: Vec<i32> = (0..at.queries).flat_map(of).collect();
        let buckets = Tensor::<B, 1, Int>::from_data(TensorData::new(buckets, [at.queries * at.keys]), &device);
        let bias = bias.select(0, buckets).reshape([1, at.queries, at.keys, at.heads]);
        scores = scores + bias.swap_dims(2, 3).swap_dims(1, 2);
    }
    let masked = |b, i, j| if j < at.visible(b, i) { 0.0f32 } else { -1e30 };
    let rows = (0..at.batch).flat_map(|b| (0..at.queries).map(move |i| (b, i)));
    let mask: Vec<f32> = rows.flat_map(|(b, i)| (0..at.keys).map(move |j| masked(b, i, j))).collect();
    let mask = TensorData::new(mask, [at.batch, 1, at.queries, at.keys]);
    let weights = functions::softmax(scores + Tensor::from_data(mask, &device), 3);
    let shape = weights.dims();
    let weights = dropout(weights.reshape([-1, at.keys as i32]), at.dropout).reshape(shape);
    weights.matmul(values).swap_dims(1, 2).reshape([at.batch * at.queries, inner])
}

pub(super) fn activate<B: Backend>(
    gate: Tensor<B, 2>,
    up: Option<Tensor<B, 2>>,
    activation: Activation,
    at: Dropout,
) -> Tensor<B, 2> {
    let activated = match activation {
        Activation::Relu => functions::relu(gate),
        Activation::Gelu => functions::gelu(gate),
        Activation::Silu => functions::silu(gate),
        // The others of this enum do not exist yet.
        _ => functions::gelu_approximate(gate),
    };
    dropout(up.map_or(activated.clone(), |up| activated * up), at)
}

pub(super) fn residual<B: Backend>(x: Tensor<B, 2>, y: Tensor<B, 2>, at: Dropout) -> Tensor<B, 2> {
    x + dropout(y, at)
}

pub(super) fn dropout<B: Backend>(x: Tensor<B, 2>, at: Dropout) -> Tensor<B, 2> {
    if at.is_none() {
        return x;
    }
    let [rows, width] = x.dims();
    let factors: Vec<f32> = (0..rows * width).map(|i| at.factor(i as u32)).collect();
    let factors = Tensor::from_data(TensorData::new(factors, [rows, width]), &x.device());
    x * factors
}

fn indices<B: Backend>(indices: impl Iterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let indices: Vec<i32> = indices.map(|index| index as i32).collect();
    let count = indices.len();
    Tensor::from_data(TensorData::new(indices, [count]), device)
}

pub(super) fn embed<B: Backend>(weight: Tensor<B, 2>, tokens: &[Token]) -> Tensor<B, 2> {
    let tokens = indices(tokens.iter().map(|&token| token as usize), &weight.device());
    weight.select(0, tokens)
}

fn logits<B: Backend>(rows: Tensor<B, 2>, head: Head<B>, targets: &Targets) -> Tensor<B, 2> {
    let chosen = indices(targets.rows.iter().copied(), &rows.device());
    project(rows.select(0, chosen).mul_scalar(head.scale), head.weight)
}

pub(super) fn loss<B: Backend>(rows: Tensor<B, 2>, head: Head<B>, targets: &Targets, loss: Loss) -> Tensor<B, 1> {
    let scale = head.scale_loss;
    loss_of_logits(logits(rows, head, targets), targets, loss).mul_scalar(scale)
}

pub(super) fn score<B: Backend>(rows: Tensor<B, 2>, head: Head<B>, targets: &Targets, loss: Loss) -> Score {
    let logits = logits(rows, head, targets);
    let best = logits.clone().argmax(1).into_data().iter::<i64>().collect::<Vec<_>>();
    let agreed = best.iter().zip(&targets.tokens).filter(|&(&best, &token)| best == i64::from(token)).count();
    let loss = loss_of_logits(logits, targets, loss).into_scalar().elem::<f64>();
    Score { loss, agreed, tokens: targets.tokens.len() }
}

/// The sum of the losses of rows of logits, `[rows, vocab]`, of which each has its target.
pub(crate) fn loss_of_logits<B: Backend>(logits: Tensor<B, 2>, targets: &Targets, loss: Loss) -> Tensor<B, 1> {
    let device = logits.device();
    let rows = logits.dims()[0];
    let log_probs = functions::log_softmax(logits, 1);
    let rest = match loss {
        Loss::CrossEntropy { smoothing } => {
            let tokens = indices::<B>(targets.tokens.iter().map(|&token| token as usize), &device);
            let of_target = log_probs.clone().gather(1, tokens.reshape([rows, 1])).sum();
            let of_all = log_probs.mean_dim(1).sum();
            return (of_target.mul_scalar(1.0 - smoothing) + of_all.mul_scalar(smoothing)).neg();
        }
        Loss::KullbackLeibler { rest } | Loss::TotalVariation { rest } => rest,
    };
    let best = targets.best;
    let tokens = indices::<B>(targets.teacher_tokens.iter().map(|&token| token as usize), &device);
    let teacher = TensorData::new(targets.teacher_log_probs.clone(), [rows, best]);
    let teacher_log = Tensor::<B, 2>::from_data(teacher, &device);
    let teacher = teacher_log.clone().exp();
    let kept_log = log_probs.gather(1, tokens.reshape([rows, best]));
    let kept = kept_log.clone().exp();
    let left = |kept: Tensor<B, 2>| (-kept.sum_dim(1)).add_scalar(1.0).clamp_min(f32::MIN_POSITIVE);
    let (teacher_left, own_left) = (left(teacher.clone()), left(kept.clone()));
    match loss {
        Loss::TotalVariation { .. } => {
            let of_kept = (teacher - kept).abs().sum();
            let sum = if rest == Rest::Bucket { of_kept + (teacher_left - own_left).abs().sum() } else { of_kept };
            sum.mul_scalar(0.5)
        }
        _ => {
            let of_kept = (teacher * (teacher_log - kept_log)).sum();
            match rest {
                Rest::Ignored => of_kept,
                Rest::Bucket => of_kept + (teacher_left.clone() * (teacher_left.log() - own_left.log())).sum(),
            }
        }
    }
}

pub(super) fn adamw<B: Backend>(
    rule: &AdamW,
    [rate, factor]: [f64; 2],
    step: usize,
    parameter: Tensor<B, 1>,
    gradient: Tensor<B, 1>,
    moments: Vec<Tensor<B, 1>>,
) -> (Tensor<B, 1>, Vec<Tensor<B, 1>>) {
    let gradient = gradient.mul_scalar(factor);
    let zeros = || gradient.zeros_like();
    let mut moments = moments.into_iter();
    let mut next = || moments.next().unwrap_or_else(zeros);
    let first = next().mul_scalar(rule.beta_1) + gradient.clone().mul_scalar(1.0 - rule.beta_1);
    let second = next().mul_scalar(rule.beta_2) + gradient.powi_scalar(2).mul_scalar(1.0 - rule.beta_2);
    let [correction, root] = rule.corrections(step);
    let root = second.clone().sqrt().mul_scalar(root).add_scalar(rule.epsilon);
    let parameter = parameter.mul_scalar(1.0 - rate * rule.weight_decay);
    (parameter - first.clone().mul_scalar(rate * correction) / root, vec![first, second])
}
