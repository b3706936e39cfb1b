//! How gradients change parameters.
//!
//! Burn has an AdamW too, whose steps are whole tensors: twelve passes over memory on one core where the kernel here makes one on
//! all, and clipping that looks at each tensor alone. It has no Adafactor.

mod schedule;

use std::collections::BTreeMap;

use burn::{
    Tensor,
    module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param},
    tensor::{
        ElementConversion,
        backend::{AutodiffBackend, Backend},
    },
};
use serde::{Deserialize, Serialize};

use crate::compute::Compute;
pub use schedule::{Decay, Schedule};

/// The rule by which parameters change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Rule {
    /// Two moments of every gradient.
    AdamW(AdamW),
    /// The means of squares of rows and of columns, which take next to no memory.
    Adafactor(Adafactor),
}

/// AdamW (Loshchilov and Hutter, 2019), as PyTorch computes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// What is left of the first moment after a step.
    pub beta_1: f64,
    /// What is left of the second one.
    pub beta_2: f64,
    /// What is added to the root of the second moment.
    pub epsilon: f64,
    /// What a parameter loses each step, times the rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// What the first moment is multiplied by, and the root of the second one, because both began at 0; `step` counts from 1.
    pub(crate) fn corrections(&self, step: usize) -> [f64; 2] {
        let of = |beta: f64| 1.0 / (1.0 - beta.powi(step as i32));
        [of(self.beta_1), of(self.beta_2).sqrt()]
    }
}

/// Adafactor (Shazeer and Stern, 2018) as transformers computes it with a rate that is given (`relative_step=False`) and without a
/// first moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adafactor {
    /// What is added to the squares of gradients.
    pub epsilon: f64,
    /// The root mean square that an update has at most, before the rate.
    pub clip_threshold: f64,
    /// The means keep 1 − step^this.
    pub decay_rate: f64,
    /// What a parameter loses each step, times the rate.
    pub weight_decay: f64,
    /// Whether the rate is times the parameter's root mean square, or `least_scale` if that is larger.
    pub scale_parameter: bool,
    /// The least scale of a parameter.
    pub least_scale: f64,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            epsilon: 1e-30,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            weight_decay: 0.0,
            scale_parameter: true,
            least_scale: 1e-3,
        }
    }
}

impl Adafactor {
    /// One step: `shape` is that of the parameter, `step` counts from 1.
    fn step<B: Compute>(
        &self,
        [rate, factor]: [f64; 2],
        step: usize,
        (parameter, shape): (Tensor<B, 1>, &[usize]),
        gradient: Tensor<B, 1>,
        means: Vec<Tensor<B, 1>>,
    ) -> (Tensor<B, 1>, Vec<Tensor<B, 1>>) {
        let count = parameter.dims()[0] as f64;
        let rms = |x: &Tensor<B, 1>| (B::squares(x) / count).sqrt();
        let rate = if self.scale_parameter { rate * rms(&parameter).max(self.least_scale) } else { rate };
        let kept = 1.0 - (step as f64).powf(self.decay_rate);
        let gradient = gradient.mul_scalar(factor);
        let squares = gradient.clone().powi_scalar(2).add_scalar(self.epsilon);
        let mut means = means.into_iter();
        let mut renew = |new: Tensor<B, 1>| match means.next() {
            Some(old) => old.mul_scalar(kept) + new.mul_scalar(1.0 - kept),
            None => new.mul_scalar(1.0 - kept),
        };
        let inverse_root = |x: Tensor<B, 1>| x.sqrt().recip();
        let (update, means) = match *shape {
            [rows, columns] => {
                let squares = squares.reshape([rows, columns]);
                let of_rows = renew(squares.clone().mean_dim(1).reshape([rows]));
                let of_columns = renew(squares.mean_dim(0).reshape([columns]));
                let by_row = inverse_root(of_rows.clone() / of_rows.clone().mean()).reshape([rows, 1]);
                let by_column = inverse_root(of_columns.clone()).reshape([1, columns]);
                let update = gradient.reshape([rows, columns]) * by_row * by_column;
                (update.reshape([rows * columns]), vec![of_rows, of_columns])
            }
            _ => {
                let of_all = renew(squares);
                (gradient * inverse_root(of_all.clone()), vec![of_all])
            }
        };
        let rate_of_update = rate / (rms(&update) / self.clip_threshold).max(1.0);
        let parameter = parameter.mul_scalar(1.0 - rate * self.weight_decay);
        (parameter - update.mul_scalar(rate_of_update), means)
    }
}

/// The gradients of a module's parameters, by their ids. They add up.
#[derive(Clone, Debug)]
pub struct Gradients<B: Backend> {
    by_id: BTreeMap<u64, Tensor<B, 1>>,
}

impl<B: Backend> Default for Gradients<B> {
    fn default() -> Self {
        Self { by_id: BTreeMap::new() }
    }
}

impl<B: Compute> Gradients<B> {
    /// Takes the gradients of a loss with respect to the parameters of a module, and adds them to those that are there.
    pub fn add<A: AutodiffBackend<InnerBackend = B>, M: AutodiffModule<A>>(&mut self, module: &M, loss: Tensor<A, 1>) {
        struct Taken<'a, A: AutodiffBackend> {
            from: A::Gradients,
            to: &'a mut BTreeMap<u64, Tensor<A::InnerBackend, 1>>,
        }

        impl<A: AutodiffBackend> ModuleVisitor<A> for Taken<'_, A> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                if let Some(gradient) = param.val().grad_remove(&mut self.from) {
                    let gradient = gradient.flatten::<1>(0, D - 1);
                    let sum = match self.to.remove(&param.id.val()) {
                        Some(sum) => sum + gradient,
                        None => gradient,
                    };
                    self.to.insert(param.id.val(), sum);
                }
            }
        }

        module.visit(&mut Taken::<A> { from: loss.backward(), to: &mut self.by_id });
    }

    /// The norm of all of them as one vector.
    pub fn norm(&self) -> f64 {
        self.by_id.values().map(B::squares).sum::<f64>().sqrt()
    }

    /// That of a parameter, by its id.
    pub fn get(&self, id: u64) -> Option<&Tensor<B, 1>> {
        self.by_id.get(&id)
    }
}

/// A rule and what it remembers of every parameter.
#[derive(Clone, Debug)]
pub struct Optimizer<B: Backend> {
    rule: Rule,
    memories: BTreeMap<u64, Memory<B>>,
}

/// What is remembered of one parameter.
#[derive(Clone, Debug)]
pub(crate) struct Memory<B: Backend> {
    /// How often it was changed.
    pub(crate) steps: usize,
    pub(crate) moments: Vec<Tensor<B, 1>>,
}

impl<B: Compute> Optimizer<B> {
    /// One that remembers nothing yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, memories: BTreeMap::new() }
    }

    pub(crate) fn memories(&self) -> &BTreeMap<u64, Memory<B>> {
        &self.memories
    }

    pub(crate) fn with_memories(rule: Rule, memories: BTreeMap<u64, Memory<B>>) -> Self {
        Self { rule, memories }
    }

    /// Changes the parameters of which there are gradients, which are first multiplied by `factor`.
    pub fn step<A: AutodiffBackend<InnerBackend = B>, M: AutodiffModule<A>>(
        &mut self,
        module: M,
        gradients: Gradients<B>,
        rate: f64,
        factor: f64,
    ) -> M {
        struct Change<'a, B: Backend> {
            optimizer: &'a mut Optimizer<B>,
            gradients: Gradients<B>,
            rates: [f64; 2],
        }

        impl<A: AutodiffBackend> ModuleMapper<A> for Change<'_, A::InnerBackend>
        where
            A::InnerBackend: Compute,
        {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
                let (id, tensor, mapper) = param.consume();
                let Some(gradient) = self.gradients.by_id.remove(&id.val()) else {
                    return Param::from_mapped_value(id, tensor, mapper);
                };
                let shape = tensor.dims();
                let parameter = tensor.inner().flatten::<1>(0, D - 1);
                let memory = self.optimizer.memories.remove(&id.val());
                let Memory { steps, moments } = memory.unwrap_or(Memory { steps: 0, moments: Vec::new() });
                let step = steps + 1;
                let (parameter, moments) = match self.optimizer.rule {
                    Rule::AdamW(rule) => Compute::adamw(&rule, self.rates, step, parameter, gradient, moments),
                    Rule::Adafactor(rule) => rule.step(self.rates, step, (parameter, &shape), gradient, moments),
                };
                self.optimizer.memories.insert(id.val(), Memory { steps: step, moments });
                let tensor = Tensor::from_inner(parameter.reshape(shape)).require_grad();
                Param::from_mapped_value(id, tensor, mapper)
            }
        }

        module.map(&mut Change { optimizer: self, gradients, rates: [rate, factor] })
    }
}

/// The number in a tensor of one.
pub(crate) fn number<B: Backend>(tensor: Tensor<B, 1>) -> f64 {
    tensor.into_scalar().elem::<f64>()
}
