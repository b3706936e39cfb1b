//! Training on flex: each part of a model is one step of the graph, with its gradient by hand and its numbers in place.

use std::{array::from_fn, sync::Arc};

use bild::{decode::Token, models::Activation};
use burn::{
    Tensor,
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{TensorData, TensorPrimitive, ops::FloatTensor},
};
use burn_flex::{Flex, FlexTensor};

use super::{Attending, Compute, Head, kernel, plain};
use crate::{
    loss::{Loss, Score, Targets},
    optimizer::AdamW,
    random::Dropout,
};

type Matrix = Tensor<Flex, 2>;

/// The most rows whose logits lie in memory at once.
const LOGIT_ROWS: usize = 1024;

/// A tensor whose numbers lie in order.
#[derive(Clone, Debug)]
struct Flat(FlexTensor);

impl Flat {
    fn of<const D: usize>(tensor: Tensor<Flex, D>) -> Self {
        let primitive = tensor.into_primitive().tensor();
        Self(if primitive.as_slice::<f32>().is_some() { primitive } else { primitive.to_contiguous() })
    }

    fn values(&self) -> &[f32] {
        self.0.as_slice().expect("it was made contiguous")
    }

    /// The numbers to write to, which are copied if another tensor has them too.
    fn into_values_mut<R>(mut self, with: impl FnOnce(&mut [f32]) -> R) -> (FlexTensor, R) {
        let count = self.values().len();
        if self.0.storage::<f32>().len() != count {
            self.0 = FlexTensor::from_data(TensorData::new(self.values().to_vec(), self.0.layout().shape().clone()));
        }
        let result = with(self.0.storage_mut());
        (self.0, result)
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn wrap<const D: usize>(primitive: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn unwrap<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    tensor.into_primitive().tensor()
}

/// What one step of the graph keeps for its gradient with respect to N inputs.
trait Saved<const N: usize>: Clone + Send + std::fmt::Debug + 'static {
    /// The gradients of those inputs that are wanted.
    fn backward(self, gradient: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

#[derive(Debug)]
struct Step<S>(std::marker::PhantomData<fn() -> S>);

impl<S: Saved<N>, const N: usize> Backward<Flex, N> for Step<S> {
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = ops.state.backward(gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

type Tracked<const D: usize> = Tensor<Autodiff<Flex>, D>;

/// A tensor of the graph, whatever its rank.
struct Input(FloatTensor<Autodiff<Flex>>);

impl Input {
    fn of<const D: usize>(tensor: Tracked<D>) -> Self {
        Self(tensor.into_primitive().tensor())
    }

    fn is_tracked(&self) -> bool {
        self.0.is_tracked()
    }

    fn inner<const D: usize>(&self) -> Tensor<Flex, D> {
        wrap(self.0.primitive.clone())
    }
}

/// A step of the graph from its inputs to its output; what it saves is made only if a gradient is wanted.
fn record<S: Saved<N>, const N: usize, const D: usize>(
    inputs: [Input; N],
    output: Tensor<Flex, D>,
    saved: impl FnOnce() -> S,
) -> Tracked<D> {
    let nodes = inputs.map(|input| input.0.node);
    let step = Step::<S>(std::marker::PhantomData);
    let output = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(saved(), unwrap(output)),
        OpsKind::UnTracked(step) => step.finish(unwrap(output)),
    };
    Tensor::from_primitive(TensorPrimitive::Float(output))
}

#[derive(Clone, Debug)]
struct Linear {
    x: Matrix,
    weight: Matrix,
}

impl Saved<2> for Linear {
    fn backward(self, gradient: FlexTensor, [x, weight]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let gradient: Matrix = wrap(gradient);
        let of_weight = weight.then(|| unwrap(gradient.clone().transpose().matmul(self.x)));
        [x.then(|| unwrap(gradient.matmul(self.weight))), of_weight]
    }
}

#[derive(Clone, Debug)]
struct Norm {
    x: Flat,
    weight: Flat,
    inverse: Arc<[f32]>,
}

impl Saved<2> for Norm {
    fn backward(self, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let gradient = Flat::of::<2>(wrap(gradient));
        let width = self.weight.values().len();
        let [x, weight] =
            kernel::rms_norm_backward(gradient.values(), self.x.values(), &self.inverse, self.weight.values());
        let rows = x.len() / width;
        [Some(unwrap(tensor(x, [rows, width]))), Some(unwrap(tensor(weight, [width])))]
    }
}

fn rms_norm(x: Matrix, weight: Tensor<Flex, 1>, epsilon: f64) -> (Matrix, Norm) {
    let shape = x.dims();
    let (x, weight) = (Flat::of(x), Flat::of(weight));
    let (normed, inverse) = kernel::rms_norm(x.values(), weight.values(), epsilon as f32);
    (tensor(normed, shape), Norm { x, weight, inverse: inverse.into() })
}

#[derive(Clone, Debug)]
struct Attended {
    queries: Matrix,
    keys: Matrix,
    values: Matrix,
    weights: Tensor<Flex, 4>,
    /// Rows of the matrix of the bias.
    buckets: usize,
    at: Attending,
}

/// `[batch · rows, heads · width]` to a view of `[batch, heads, rows, width]`.
fn split(x: Matrix, rows: usize, at: &Attending) -> Tensor<Flex, 4> {
    let width = x.dims()[1] / at.heads;
    x.reshape([at.batch, rows, at.heads, width]).swap_dims(1, 2)
}

/// The inverse of [`split`].
fn join(x: Tensor<Flex, 4>) -> Matrix {
    let [batch, heads, rows, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * rows, heads * width])
}

fn dropped<const D: usize>(x: Tensor<Flex, D>, dropout: Dropout) -> Tensor<Flex, D> {
    if dropout.is_none() {
        return x;
    }
    let shape = x.dims();
    tensor(kernel::dropped(Flat::of(x).values(), dropout), shape)
}

fn attention([queries, keys, values]: [Matrix; 3], bias: Option<Matrix>, at: &Attending) -> (Matrix, Attended) {
    let scores = split(queries.clone(), at.queries, at).matmul(split(keys.clone(), at.keys, at).swap_dims(2, 3));
    let buckets = bias.as_ref().map_or(0, |bias| bias.dims()[0]);
    // From buckets to distances.
    let bias = bias.map(|bias| {
        let bias = Flat::of(bias);
        let of = |head| at.buckets.iter().map(move |bucket| bucket * at.heads + head);
        (0..at.heads).flat_map(of).map(|at| bias.values()[at]).collect::<Vec<f32>>()
    });
    let (weights, ()) = Flat::of(scores).into_values_mut(|scores| kernel::softmax(scores, bias.as_deref(), at));
    let weights: Tensor<Flex, 4> = wrap(weights);
    let found = join(dropped(weights.clone(), at.dropout).matmul(split(values.clone(), at.keys, at)));
    (found, Attended { queries, keys, values, weights, buckets, at: at.clone() })
}

impl<const N: usize> Saved<N> for Attended {
    fn backward(self, gradient: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N] {
        let at = &self.at;
        let gradient = split(wrap(gradient), at.queries, at);
        let weights = dropped(self.weights.clone(), at.dropout);
        let of_values = join(weights.swap_dims(2, 3).matmul(gradient.clone()));
        let of_weights = gradient.matmul(split(self.values, at.keys, at).swap_dims(2, 3));
        let weights = Flat::of(self.weights);
        let wants_bias = wanted.get(3).is_some_and(|&wanted| wanted);
        let (of_scores, by_distance) = Flat::of(of_weights)
            .into_values_mut(|gradient| kernel::softmax_backward(gradient, weights.values(), at, wants_bias));
        let of_scores: Tensor<Flex, 4> = wrap(of_scores);
        let of_queries = join(of_scores.clone().matmul(split(self.keys, at.keys, at)));
        let of_keys = join(of_scores.swap_dims(2, 3).matmul(split(self.queries, at.queries, at)));
        let of_bias = wants_bias.then(|| {
            let mut of_bias = vec![0.0; self.buckets * at.heads];
            for (head, by_distance) in by_distance.chunks_exact(at.buckets.len()).enumerate() {
                for (bucket, gradient) in at.buckets.iter().zip(by_distance) {
                    of_bias[bucket * at.heads + head] += gradient;
                }
            }
            unwrap(tensor(of_bias, [self.buckets, at.heads]))
        });
        let mut found = [Some(unwrap(of_queries)), Some(unwrap(of_keys)), Some(unwrap(of_values)), of_bias].into_iter();
        from_fn(|_| found.next().flatten())
    }
}

#[derive(Clone, Debug)]
struct Activated {
    gate: Flat,
    up: Option<Flat>,
    activation: Activation,
    dropout: Dropout,
}

impl<const N: usize> Saved<N> for Activated {
    fn backward(self, gradient: FlexTensor, _: [bool; N]) -> [Option<FlexTensor>; N] {
        let gradient: Matrix = wrap(gradient);
        let shape = gradient.dims();
        let (gradient, up) = (Flat::of(gradient), self.up.as_ref().map(Flat::values));
        let (gate, up) =
            kernel::activate_backward(gradient.values(), self.gate.values(), up, self.activation, self.dropout);
        let mut found = [Some(gate), up].into_iter();
        from_fn(|_| found.next().flatten().map(|values| unwrap(tensor(values, shape))))
    }
}

fn activate(gate: Matrix, up: Option<Matrix>, activation: Activation, dropout: Dropout) -> (Matrix, Activated) {
    let shape = gate.dims();
    let (gate, up) = (Flat::of(gate), up.map(Flat::of));
    let made = kernel::activate(gate.values(), up.as_ref().map(Flat::values), activation, dropout);
    (tensor(made, shape), Activated { gate, up, activation, dropout })
}

/// What is left of a sum's second part, or of one input.
#[derive(Clone, Debug)]
struct Dropped(Dropout);

impl Saved<2> for Dropped {
    fn backward(self, gradient: FlexTensor, [_, wants_y]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let y = wants_y.then(|| unwrap(dropped::<2>(wrap(gradient.clone()), self.0)));
        [Some(gradient), y]
    }
}

impl Saved<1> for Dropped {
    fn backward(self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(unwrap(dropped::<2>(wrap(gradient), self.0)))]
    }
}

fn residual(x: Matrix, y: Matrix, dropout: Dropout) -> Matrix {
    let shape = x.dims();
    tensor(kernel::residual(Flat::of(x).values(), Flat::of(y).values(), dropout), shape)
}

#[derive(Clone, Debug)]
struct Embedded {
    tokens: Arc<[Token]>,
    shape: [usize; 2],
}

impl Saved<1> for Embedded {
    fn backward(self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let [rows, width] = self.shape;
        let mut of_weight = vec![0.0; rows * width];
        let tokens = self.tokens.iter().map(|&token| token as usize);
        kernel::scatter(&mut of_weight, width, tokens, Flat::of::<2>(wrap(gradient)).values(), 1.0);
        [Some(unwrap(tensor(of_weight, self.shape)))]
    }
}

fn embed(weight: Matrix, tokens: &[Token]) -> Matrix {
    let width = weight.dims()[1];
    let rows: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
    tensor(kernel::gather(Flat::of(weight).values(), width, &rows, 1.0), [rows.len(), width])
}

/// The gradients of a loss, which are computed with it.
#[derive(Clone, Debug)]
struct Lost {
    rows: Option<Matrix>,
    weight: Option<Matrix>,
}

impl Saved<2> for Lost {
    fn backward(self, gradient: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let factor = gradient.as_slice::<f32>().map_or(1.0, |values| values[0]);
        let scaled = |x: Matrix| if factor == 1.0 { x } else { x.mul_scalar(factor) };
        [self.rows, self.weight].map(|gradient| gradient.map(|gradient| unwrap(scaled(gradient))))
    }
}

/// The score of rows, and with it the gradients of the rows and of the head that are wanted.
fn loss(rows: Matrix, head: &Head<Flex>, targets: &Targets, loss: Loss, wanted: [bool; 2]) -> (Score, Lost) {
    let [count, width] = rows.dims();
    let vocab = head.weight.dims()[0];
    let rows = Flat::of(rows);
    let mut score = Score { tokens: targets.tokens.len(), ..Score::default() };
    let mut of_rows = vec![0.0; if wanted[0] { count * width } else { 0 }];
    let mut of_weight: Option<Matrix> = None;
    let scale = wanted.contains(&true).then_some(head.scale_loss);
    for (part, chosen) in targets.rows.chunks(LOGIT_ROWS).enumerate() {
        let taken = tensor(kernel::gather(rows.values(), width, chosen, head.scale), [chosen.len(), width]);
        let logits = Flat::of(taken.clone().matmul(head.weight.clone().transpose()));
        let first = part * LOGIT_ROWS;
        let (gradient, losses) =
            logits.into_values_mut(|logits| kernel::losses(logits, vocab, targets, first, loss, scale));
        score.loss += losses.iter().map(|(loss, _)| loss).sum::<f64>();
        score.agreed += losses.iter().filter(|(_, agreed)| *agreed).count();
        let gradient: Matrix = wrap(gradient);
        if wanted[1] {
            let part = gradient.clone().transpose().matmul(taken);
            of_weight = Some(match of_weight {
                None => part,
                Some(sum) => wrap(Flat::of(sum).into_values_mut(|sum| kernel::add(sum, Flat::of(part).values())).0),
            });
        }
        if wanted[0] {
            let part = Flat::of(gradient.matmul(head.weight.clone()));
            kernel::scatter(&mut of_rows, width, chosen.iter().copied(), part.values(), head.scale);
        }
    }
    (score, Lost { rows: wanted[0].then(|| tensor(of_rows, [count, width])), weight: of_weight })
}

impl Compute for Flex {
    fn rms_norm(x: Matrix, weight: Tensor<Self, 1>, epsilon: f64) -> Matrix {
        rms_norm(x, weight, epsilon).0
    }

    fn attend(inputs: [Matrix; 3], bias: Option<Matrix>, attending: &Attending) -> Matrix {
        attention(inputs, bias, attending).0
    }

    fn activate(gate: Matrix, up: Option<Matrix>, activation: Activation, dropout: Dropout) -> Matrix {
        if kernel::has(activation) {
            activate(gate, up, activation, dropout).0
        } else {
            plain::activate(gate, up, activation, dropout)
        }
    }

    fn residual(x: Matrix, y: Matrix, dropout: Dropout) -> Matrix {
        residual(x, y, dropout)
    }

    fn dropout(x: Matrix, dropout: Dropout) -> Matrix {
        dropped(x, dropout)
    }

    fn embed(weight: Matrix, tokens: &[Token]) -> Matrix {
        embed(weight, tokens)
    }

    fn loss(rows: Matrix, head: Head<Self>, targets: &Targets, loss: Loss) -> Tensor<Self, 1> {
        let score = Self::score(rows, head.clone(), targets, loss);
        tensor(vec![score.loss as f32 * head.scale_loss], [1])
    }

    fn score(rows: Matrix, head: Head<Self>, targets: &Targets, of: Loss) -> Score {
        loss(rows, &head, targets, of, [false; 2]).0
    }

    fn squares(x: &Tensor<Self, 1>) -> f64 {
        kernel::squares(Flat::of(x.clone()).values())
    }

    fn adamw(
        rule: &AdamW,
        [rate, factor]: [f64; 2],
        step: usize,
        parameter: Tensor<Self, 1>,
        gradient: Tensor<Self, 1>,
        moments: Vec<Tensor<Self, 1>>,
    ) -> (Tensor<Self, 1>, Vec<Tensor<Self, 1>>) {
        let [correction, root] = rule.corrections(step);
        let step = kernel::AdamWStep {
            betas: [rule.beta_1 as f32, rule.beta_2 as f32],
            factor: factor as f32,
            decay: (1.0 - rate * rule.weight_decay) as f32,
            rate: (rate * correction) as f32,
            root: root as f32,
            epsilon: rule.epsilon as f32,
        };
        let gradient = Flat::of(gradient);
        let mut moments = moments.into_iter();
        let mut next = || {
            let none = || tensor(vec![0.0; gradient.values().len()], [gradient.values().len()]);
            Flat::of(moments.next().unwrap_or_else(none))
        };
        let (first, second) = (next(), next());
        let (first, (second, (parameter, ()))) = first.into_values_mut(|first| {
            second.into_values_mut(|second| {
                Flat::of(parameter).into_values_mut(|parameter| {
                    kernel::adamw(&step, parameter, gradient.values(), [first, second]);
                })
            })
        });
        (wrap(parameter), vec![wrap(first), wrap(second)])
    }
}

impl Compute for Autodiff<Flex> {
    fn project(x: Tracked<2>, weight: Tracked<2>) -> Tracked<2> {
        let inputs = [Input::of(x), Input::of(weight)];
        let (x, weight) = (inputs[0].inner::<2>(), inputs[1].inner::<2>());
        let made = Flex::project(x.clone(), weight.clone());
        record(inputs, made, || Linear { x, weight })
    }

    fn rms_norm(x: Tracked<2>, weight: Tracked<1>, epsilon: f64) -> Tracked<2> {
        let inputs = [Input::of(x), Input::of(weight)];
        let (normed, saved) = rms_norm(inputs[0].inner(), inputs[1].inner(), epsilon);
        record(inputs, normed, || saved)
    }

    fn attend(inputs: [Tracked<2>; 3], bias: Option<Tracked<2>>, attending: &Attending) -> Tracked<2> {
        let inputs = inputs.map(Input::of);
        let inner = inputs.each_ref().map(Input::inner);
        let Some(bias) = bias.map(Input::of) else {
            let (found, saved) = attention(inner, None, attending);
            return record::<_, 3, 2>(inputs, found, || saved);
        };
        let (found, saved) = attention(inner, Some(bias.inner()), attending);
        let [queries, keys, values] = inputs;
        record::<_, 4, 2>([queries, keys, values, bias], found, || saved)
    }

    fn activate(gate: Tracked<2>, up: Option<Tracked<2>>, activation: Activation, dropout: Dropout) -> Tracked<2> {
        if !kernel::has(activation) {
            return plain::activate(gate, up, activation, dropout);
        }
        let gate = Input::of(gate);
        let Some(up) = up.map(Input::of) else {
            let (made, saved) = activate(gate.inner(), None, activation, dropout);
            return record::<_, 1, 2>([gate], made, || saved);
        };
        let (made, saved) = activate(gate.inner(), Some(up.inner()), activation, dropout);
        record::<_, 2, 2>([gate, up], made, || saved)
    }

    fn residual(x: Tracked<2>, y: Tracked<2>, dropout: Dropout) -> Tracked<2> {
        let inputs = [Input::of(x), Input::of(y)];
        let sum = residual(inputs[0].inner(), inputs[1].inner(), dropout);
        record::<_, 2, 2>(inputs, sum, || Dropped(dropout))
    }

    fn dropout(x: Tracked<2>, dropout: Dropout) -> Tracked<2> {
        if dropout.is_none() {
            return x;
        }
        let x = Input::of(x);
        let left = dropped::<2>(x.inner(), dropout);
        record::<_, 1, 2>([x], left, || Dropped(dropout))
    }

    fn embed(weight: Tracked<2>, tokens: &[Token]) -> Tracked<2> {
        let shape = weight.dims();
        let weight = Input::of(weight);
        let rows = embed(weight.inner(), tokens);
        record([weight], rows, || Embedded { tokens: tokens.into(), shape })
    }

    fn loss(rows: Tracked<2>, head: Head<Self>, targets: &Targets, of: Loss) -> Tracked<1> {
        let inputs = [Input::of(rows), Input::of(head.weight)];
        let wanted = inputs.each_ref().map(Input::is_tracked);
        let head = Head { weight: inputs[1].inner(), scale: head.scale, scale_loss: head.scale_loss };
        let (score, saved) = loss(inputs[0].inner(), &head, targets, of, wanted);
        let value = tensor(vec![score.loss as f32 * head.scale_loss], [1]);
        record(inputs, value, || saved)
    }

    fn score(rows: Tracked<2>, head: Head<Self>, targets: &Targets, of: Loss) -> Score {
        let head = Head { weight: head.weight.inner(), scale: head.scale, scale_loss: head.scale_loss };
        Flex::score(rows.inner(), head, targets, of)
    }
}
