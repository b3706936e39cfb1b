//! Kernels on slices: one pass over memory, on all cores. Which core does what never changes a sum, so results are the same bits each
//! time.

use bild::models::{Activation, internals::exp};
use pulp::Arch;
use rayon::prelude::*;

use super::Attending;
use crate::{
    loss::{Loss, Rest, Targets},
    random::Dropout,
};

/// How many numbers are one task.
const TASK: usize = 1 << 14;

/// Partial sums of a reduction.
const LANES: usize = 16;

/// A sum over pairs, in lanes.
#[inline(always)]
fn sum(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (x_whole, x_rest) = x.as_chunks::<LANES>();
    let (y_whole, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_whole.iter().zip(y_whole) {
        for i in 0..LANES {
            lanes[i] += term(x[i], y[i]);
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(&x, &y)| term(x, y)).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for x in whole {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| larger(most, x))
}

/// Runs something compiled for the widest vectors of this processor.
#[inline(always)]
fn wide<R>(what: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(what)
}

/// Makes numbers in tasks: `fill` is given the index of the first and the place of all.
fn make(count: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut made = vec![0.0; count];
    made.par_chunks_mut(TASK).enumerate().for_each(|(task, part)| {
        wide(
            #[inline(always)]
            || fill(task * TASK, part),
        )
    });
    made
}

/// `x` with dropout.
pub(super) fn dropped(x: &[f32], dropout: Dropout) -> Vec<f32> {
    make(
        x.len(),
        #[inline(always)]
        |first, part| {
            let x = &x[first..first + part.len()];
            for (i, (made, x)) in part.iter_mut().zip(x).enumerate() {
                *made = x * dropout.factor((first + i) as u32);
            }
        },
    )
}

/// `x` and `y` with dropout.
pub(super) fn residual(x: &[f32], y: &[f32], dropout: Dropout) -> Vec<f32> {
    make(
        x.len(),
        #[inline(always)]
        |first, part| {
            let of = first..first + part.len();
            for (i, (made, (x, y))) in part.iter_mut().zip(x[of.clone()].iter().zip(&y[of])).enumerate() {
                *made = x + y * dropout.factor((first + i) as u32);
            }
        },
    )
}

/// Rows over the roots of their mean squares, times `weight`; and one over each root.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let mut normed = vec![0.0; x.len()];
    let mut inverse = vec![0.0; x.len() / width];
    let rows = (TASK / width).max(1);
    let tasks = normed.par_chunks_mut(rows * width).zip(inverse.par_chunks_mut(rows)).zip(x.par_chunks(rows * width));
    tasks.for_each(|((normed, inverse), x)| {
        wide(
            #[inline(always)]
            || {
                for ((normed, inverse), x) in normed.chunks_exact_mut(width).zip(inverse).zip(x.chunks_exact(width)) {
                    *inverse = 1.0 / (sum(x, x, |x, y| x * y) / width as f32 + epsilon).sqrt();
                    for ((normed, x), weight) in normed.iter_mut().zip(x).zip(weight) {
                        *normed = x * *inverse * weight;
                    }
                }
            },
        );
    });
    (normed, inverse)
}

/// The gradients of [`rms_norm`]'s input and weight.
pub(super) fn rms_norm_backward(gradient: &[f32], x: &[f32], inverse: &[f32], weight: &[f32]) -> [Vec<f32>; 2] {
    let width = weight.len();
    let mut of_x = vec![0.0; x.len()];
    let rows = (TASK / width).max(1);
    let tasks = of_x.par_chunks_mut(rows * width).zip(gradient.par_chunks(rows * width));
    let tasks = tasks.zip(x.par_chunks(rows * width).zip(inverse.par_chunks(rows)));
    let parts: Vec<Vec<f32>> = tasks
        .map(|((of_x, gradient), (x, inverse))| {
            let mut of_weight = vec![0.0; width];
            wide(
                #[inline(always)]
                || {
                    let rows = of_x.chunks_exact_mut(width).zip(gradient.chunks_exact(width));
                    for ((of_x, gradient), (x, &inverse)) in rows.zip(x.chunks_exact(width).zip(inverse)) {
                        for i in 0..width {
                            of_x[i] = gradient[i] * weight[i];
                            of_weight[i] += gradient[i] * x[i] * inverse;
                        }
                        let mean = sum(of_x, x, |g, x| g * x) * inverse * inverse / width as f32;
                        for (of_x, x) in of_x.iter_mut().zip(x) {
                            *of_x = inverse * (*of_x - x * mean);
                        }
                    }
                },
            );
            of_weight
        })
        .collect();
    let mut of_weight = vec![0.0; width];
    for part in parts {
        of_weight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    [of_x, of_weight]
}

/// A non-linearity and its derivative.
trait Function: Sync {
    fn both(x: f32) -> [f32; 2];
}

struct Relu;
struct GeluTanh;
struct Silu;

impl Function for Relu {
    #[inline(always)]
    fn both(x: f32) -> [f32; 2] {
        if x > 0.0 { [x, 1.0] } else { [0.0, 0.0] }
    }
}

impl Function for GeluTanh {
    /// ½ (1 + tanh u) = 1 / (1 + exp(−2u)).
    #[inline(always)]
    fn both(x: f32) -> [f32; 2] {
        const TWICE_ROOT: f32 = 1.595_769; // 2 · (2 / π)^½
        const CUBIC: f32 = 0.044_715;
        let share = 1.0 / (1.0 + exp(-TWICE_ROOT * (x + CUBIC * x * x * x)));
        let slope = TWICE_ROOT * (1.0 + 3.0 * CUBIC * x * x);
        [x * share, share + x * share * (1.0 - share) * slope]
    }
}

impl Function for Silu {
    #[inline(always)]
    fn both(x: f32) -> [f32; 2] {
        let share = 1.0 / (1.0 + exp(-x));
        [x * share, share + x * share * (1.0 - share)]
    }
}

/// Whether there is a kernel for it.
pub(super) fn has(activation: Activation) -> bool {
    matches!(activation, Activation::Relu | Activation::GeluTanh | Activation::Silu)
}

/// The non-linearity of `gate`, times `up`, with dropout.
pub(super) fn activate(gate: &[f32], up: Option<&[f32]>, activation: Activation, dropout: Dropout) -> Vec<f32> {
    fn of<F: Function>(gate: &[f32], up: Option<&[f32]>, dropout: Dropout) -> Vec<f32> {
        make(
            gate.len(),
            #[inline(always)]
            |first, part| {
                let of = first..first + part.len();
                for (made, gate) in part.iter_mut().zip(&gate[of.clone()]) {
                    *made = F::both(*gate)[0];
                }
                if let Some(up) = up {
                    part.iter_mut().zip(&up[of]).for_each(|(made, up)| *made *= up);
                }
                if !dropout.is_none() {
                    part.iter_mut().enumerate().for_each(|(i, made)| *made *= dropout.factor((first + i) as u32));
                }
            },
        )
    }
    match activation {
        Activation::Relu => of::<Relu>(gate, up, dropout),
        Activation::Silu => of::<Silu>(gate, up, dropout),
        _ => of::<GeluTanh>(gate, up, dropout),
    }
}

/// The gradients of [`activate`]'s gate and up.
pub(super) fn activate_backward(
    gradient: &[f32],
    gate: &[f32],
    up: Option<&[f32]>,
    activation: Activation,
    dropout: Dropout,
) -> (Vec<f32>, Option<Vec<f32>>) {
    fn of<F: Function>(
        gradient: &[f32],
        gate: &[f32],
        up: Option<&[f32]>,
        dropout: Dropout,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let Some(up) = up else {
            let of_gate = make(
                gate.len(),
                #[inline(always)]
                |first, part| {
                    let of = first..first + part.len();
                    for (i, (made, (gate, gradient))) in
                        part.iter_mut().zip(gate[of.clone()].iter().zip(&gradient[of])).enumerate()
                    {
                        *made = gradient * dropout.factor((first + i) as u32) * F::both(*gate)[1];
                    }
                },
            );
            return (of_gate, None);
        };
        let (mut of_gate, mut of_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
        of_gate.par_chunks_mut(TASK).zip(of_up.par_chunks_mut(TASK)).enumerate().for_each(
            |(task, (of_gate, of_up))| {
                wide(
                    #[inline(always)]
                    || {
                        let first = task * TASK;
                        let of = first..first + of_gate.len();
                        let inputs = gate[of.clone()].iter().zip(&up[of.clone()]).zip(&gradient[of]);
                        for (i, ((of_gate, of_up), ((gate, up), gradient))) in
                            of_gate.iter_mut().zip(of_up).zip(inputs).enumerate()
                        {
                            let gradient = gradient * dropout.factor((first + i) as u32);
                            let [value, slope] = F::both(*gate);
                            *of_gate = gradient * up * slope;
                            *of_up = gradient * value;
                        }
                    },
                );
            },
        );
        (of_gate, Some(of_up))
    }
    match activation {
        Activation::Relu => of::<Relu>(gradient, gate, up, dropout),
        Activation::Silu => of::<Silu>(gradient, gate, up, dropout),
        _ => of::<GeluTanh>(gradient, gate, up, dropout),
    }
}

/// Scores, `[batch, heads, queries, keys]`, become weights; `bias` is `[heads, queries + keys − 1]`, by how far a key is ahead.
pub(super) fn softmax(scores: &mut [f32], bias: Option<&[f32]>, at: &Attending) {
    let distances = at.queries + at.keys - 1;
    scores.par_chunks_mut(at.queries * at.keys).enumerate().for_each(|(block, scores)| {
        let (sequence, head) = (block / at.heads, block % at.heads);
        wide(
            #[inline(always)]
            || {
                for (query, row) in scores.chunks_exact_mut(at.keys).enumerate() {
                    let (row, hidden) = row.split_at_mut(at.visible(sequence, query));
                    hidden.fill(0.0);
                    if let Some(bias) = bias {
                        let bias = &bias[head * distances + at.queries - 1 - query..];
                        row.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                    }
                    let most = maximum(row);
                    row.iter_mut().for_each(|score| *score = exp(*score - most));
                    let inverse = 1.0 / sum(row, row, |x, _| x);
                    row.iter_mut().for_each(|score| *score *= inverse);
                }
            },
        );
    });
}

/// The gradient of the weights becomes that of the scores; and that of the bias, `[heads, queries + keys − 1]`, if it is wanted.
pub(super) fn softmax_backward(gradient: &mut [f32], weights: &[f32], at: &Attending, wants_bias: bool) -> Vec<f32> {
    let (size, distances) = (at.queries * at.keys, at.queries + at.keys - 1);
    let blocks = gradient.par_chunks_mut(size).zip(weights.par_chunks(size)).enumerate();
    let parts: Vec<Vec<f32>> = blocks
        .map(|(block, (gradient, weights))| {
            let first = block * size;
            let mut of_bias = vec![0.0; if wants_bias { distances } else { 0 }];
            wide(
                #[inline(always)]
                || {
                    if !at.dropout.is_none() {
                        let factor = |i| at.dropout.factor((first + i) as u32);
                        gradient.iter_mut().enumerate().for_each(|(i, gradient)| *gradient *= factor(i));
                    }
                    let rows = gradient.chunks_exact_mut(at.keys).zip(weights.chunks_exact(at.keys));
                    for (query, (gradient, weights)) in rows.enumerate() {
                        let mean = sum(gradient, weights, |g, w| g * w);
                        gradient.iter_mut().zip(weights).for_each(|(g, w)| *g = w * (*g - mean));
                        if wants_bias {
                            let of_bias = &mut of_bias[at.queries - 1 - query..];
                            of_bias.iter_mut().zip(&*gradient).for_each(|(sum, g)| *sum += g);
                        }
                    }
                },
            );
            of_bias
        })
        .collect();
    let mut of_bias = vec![0.0; if wants_bias { at.heads * distances } else { 0 }];
    for (block, part) in parts.iter().enumerate().filter(|_| wants_bias) {
        let head = block % at.heads;
        of_bias[head * distances..].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    of_bias
}

/// Rows of `vocab` logits, of which each has a target from `first` on: their losses, and whether the target is the most likely
/// token. With `scale` the logits become their gradients times it.
pub(super) fn losses(
    logits: &mut [f32],
    vocab: usize,
    targets: &Targets,
    first: usize,
    loss: Loss,
    scale: Option<f32>,
) -> Vec<(f64, bool)> {
    let rows = logits.par_chunks_mut(vocab).enumerate();
    let of = |(row, logits): (usize, &mut [f32])| {
        wide(
            #[inline(always)]
            || row_loss(logits, targets, first + row, loss, scale),
        )
    };
    rows.map(of).collect()
}

/// The loss of one row.
#[inline(always)]
fn row_loss(logits: &mut [f32], targets: &Targets, row: usize, loss: Loss, scale: Option<f32>) -> (f64, bool) {
    let target = targets.tokens[row] as usize;
    let of_target = logits[target];
    let most = maximum(logits);
    let agreed = of_target == most && !logits[..target].contains(&most);
    let vocab = logits.len() as f32;
    let kept = row * targets.best..(row + 1) * targets.best;
    match loss {
        Loss::CrossEntropy { smoothing } => {
            let mean = if smoothing > 0.0 { sum(logits, logits, |x, _| x) / vocab } else { 0.0 };
            let total = exponentials(logits, most);
            let value = f64::from(total).ln() + f64::from(most)
                - f64::from(1.0 - smoothing) * f64::from(of_target)
                - f64::from(smoothing) * f64::from(mean);
            if let Some(scale) = scale {
                let (factor, smoothed) = (scale / total, scale * smoothing / vocab);
                logits.iter_mut().for_each(|x| *x = *x * factor - smoothed);
                logits[target] -= scale * (1.0 - smoothing);
            }
            (value, agreed)
        }
        Loss::KullbackLeibler { rest } => {
            let tokens = &targets.teacher_tokens[kept.clone()];
            let teacher = &targets.teacher_log_probs[kept];
            let own: Vec<f32> = tokens.iter().map(|&token| logits[token as usize] - most).collect();
            let Masses { total, left, teacher_kept, teacher_left } = masses(logits, most, tokens, teacher, &own);
            let log_total = total.ln();
            let of_kept: f64 =
                teacher.iter().zip(&own).map(|(&p, &x)| p.exp() as f64 * f64::from(p - (x - log_total))).sum();
            let (of_rest, share_of_rest) = match rest {
                Rest::Ignored => (0.0, teacher_kept),
                Rest::Bucket => {
                    let (p, q) = (f64::from(teacher_left), f64::from(left) / f64::from(total));
                    (p * (p.ln() - q.ln()), 1.0 - teacher_left * total / left)
                }
            };
            if let Some(scale) = scale {
                // Of the rest first, then of the kept ones.
                let factor = scale * share_of_rest / total;
                logits.iter_mut().for_each(|x| *x *= factor);
                let share = if rest == Rest::Ignored { teacher_kept } else { teacher_kept + teacher_left };
                for ((&token, &p), &x) in tokens.iter().zip(teacher).zip(&own) {
                    logits[token as usize] = scale * (share * exp(x) / total - p.exp());
                }
            }
            (of_kept + of_rest, agreed)
        }
        Loss::TotalVariation { rest } => {
            let tokens = &targets.teacher_tokens[kept.clone()];
            let teacher = &targets.teacher_log_probs[kept];
            let own: Vec<f32> = tokens.iter().map(|&token| logits[token as usize] - most).collect();
            let Masses { total, left, teacher_left, .. } = masses(logits, most, tokens, teacher, &own);
            let half_sign = |x: f32| {
                if x > 0.0 {
                    0.5
                } else if x < 0.0 {
                    -0.5
                } else {
                    0.0
                }
            };
            let (mut value, mut mean) = (0.0, 0.0);
            for (&p, &x) in teacher.iter().zip(&own) {
                let q = exp(x) / total;
                let difference = q - p.exp();
                value += f64::from(difference.abs());
                mean += half_sign(difference) * q;
            }
            let mut of_rest = 0.0;
            if rest == Rest::Bucket {
                let difference = left / total - teacher_left;
                value += f64::from(difference.abs());
                of_rest = half_sign(difference);
                mean += of_rest * left / total;
            }
            if let Some(scale) = scale {
                let factor = scale * (of_rest - mean) / total;
                logits.iter_mut().for_each(|x| *x *= factor);
                for ((&token, &p), &x) in tokens.iter().zip(teacher).zip(&own) {
                    let q = exp(x) / total;
                    logits[token as usize] = scale * q * (half_sign(q - p.exp()) - mean);
                }
            }
            (0.5 * value, agreed)
        }
    }
}

/// Logits become their exponentials below the largest; returns the sum.
#[inline(always)]
fn exponentials(logits: &mut [f32], most: f32) -> f32 {
    logits.iter_mut().for_each(|x| *x = exp(*x - most));
    sum(logits, logits, |x, _| x)
}

/// How much lies on the tokens that a teacher names, and on the others.
struct Masses {
    /// The sum of the exponentials, and those of the others.
    total: f32,
    left: f32,
    /// Probabilities.
    teacher_kept: f32,
    teacher_left: f32,
}

/// Logits become their exponentials, those of the kept tokens 0: what is left is a sum of its own, since a difference would lose it.
#[inline(always)]
fn masses(logits: &mut [f32], most: f32, tokens: &[u32], teacher: &[f32], own: &[f32]) -> Masses {
    tokens.iter().for_each(|&token| logits[token as usize] = f32::NEG_INFINITY);
    let left = exponentials(logits, most);
    let total = left + own.iter().map(|&x| exp(x)).sum::<f32>();
    let teacher_kept: f32 = teacher.iter().map(|p| p.exp()).sum();
    let teacher_left = (1.0 - teacher_kept).max(f32::MIN_POSITIVE);
    Masses { total, left: left.max(f32::MIN_POSITIVE), teacher_kept, teacher_left }
}

/// Rows of a matrix, times `scale`.
pub(super) fn gather(matrix: &[f32], width: usize, rows: &[usize], scale: f32) -> Vec<f32> {
    let mut gathered = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        gathered.extend(matrix[row * width..(row + 1) * width].iter().map(|x| x * scale));
    }
    gathered
}

/// Adds rows, times `scale`, to those of a matrix.
pub(super) fn scatter(matrix: &mut [f32], width: usize, rows: impl Iterator<Item = usize>, values: &[f32], scale: f32) {
    for (row, values) in rows.zip(values.chunks_exact(width)) {
        let row = &mut matrix[row * width..(row + 1) * width];
        row.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
    }
}

/// `x` += `y`.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    let tasks = x.par_chunks_mut(TASK).zip(y.par_chunks(TASK));
    tasks.for_each(|(x, y)| {
        wide(
            #[inline(always)]
            || x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
        )
    });
}

/// The sum of the squares.
pub(super) fn squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(TASK)
        .map(|x| {
            f64::from(wide(
                #[inline(always)]
                || sum(x, x, |x, y| x * y),
            ))
        })
        .collect();
    parts.iter().sum()
}

/// What one step of AdamW multiplies by.
pub(super) struct AdamWStep {
    /// What is left of the moments.
    pub(super) betas: [f32; 2],
    /// What a gradient is multiplied by.
    pub(super) factor: f32,
    /// What is left of the parameter.
    pub(super) decay: f32,
    pub(super) rate: f32,
    /// What the root of the second moment is multiplied by, and what is then added to it.
    pub(super) root: f32,
    pub(super) epsilon: f32,
}

/// One step of AdamW, in place.
pub(super) fn adamw(step: &AdamWStep, parameter: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2]) {
    let [first, second] = moments;
    let [beta_1, beta_2] = step.betas;
    let moments = first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK));
    let tasks = parameter.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK)).zip(moments);
    tasks.for_each(|((parameter, gradient), (first, second))| {
        wide(
            #[inline(always)]
            || {
                let numbers = parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
                for ((parameter, gradient), (first, second)) in numbers {
                    let gradient = gradient * step.factor;
                    *first = *first * beta_1 + gradient * (1.0 - beta_1);
                    *second = *second * beta_2 + gradient * gradient * (1.0 - beta_2);
                    *parameter =
                        *parameter * step.decay - step.rate * *first / (second.sqrt() * step.root + step.epsilon);
                }
            },
        );
    });
}
