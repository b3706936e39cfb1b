use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the rate changes: a function of the step, so that nothing is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub rate: f64,
    /// Steps in which it rises in equal parts to the highest.
    #[serde(default)]
    pub warm_up: usize,
    /// What it does then.
    pub decay: Decay,
}

/// How the rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Decay {
    /// Not at all.
    Constant,
    /// As half a cosine, to `floor` of the highest at the last step.
    Cosine {
        /// All steps, those of the warm-up among them.
        steps: usize,
        /// From 0 to 1.
        floor: f64,
    },
    /// As the inverse root of the step.
    InverseSquareRoot,
}

impl Schedule {
    /// Always the same.
    pub fn constant(rate: f64) -> Self {
        Self { rate, warm_up: 0, decay: Decay::Constant }
    }

    /// The rate of a step, from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let share = match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine { steps, floor } => {
                let all = steps.saturating_sub(self.warm_up).max(1) as f64;
                let passed = ((step - self.warm_up) as f64 / all).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * passed).cos())
            }
            Decay::InverseSquareRoot => (self.warm_up.max(1) as f64 / (step + 1) as f64).sqrt().min(1.0),
        };
        self.rate * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let of = |decay, step| Schedule { rate: 2.0, warm_up: 4, decay }.rate(step);
        assert_eq!([0, 1, 3, 4, 400].map(|step| of(Decay::Constant, step)), [0.5, 1.0, 2.0, 2.0, 2.0]);
        let cosine = Decay::Cosine { steps: 14, floor: 0.1 };
        assert_eq!((of(cosine, 3), of(cosine, 4)), (2.0, 2.0));
        assert!((of(cosine, 9) - 1.1).abs() < 1e-12 && (of(cosine, 14) - 0.2).abs() < 1e-12);
        assert_eq!(of(cosine, 1000), of(cosine, 14));
        assert_eq!([3, 15, 63].map(|step| of(Decay::InverseSquareRoot, step)), [2.0, 1.0, 0.5]);
        let cold = Schedule { rate: 2.0, warm_up: 0, decay: Decay::InverseSquareRoot };
        assert_eq!([0, 3].map(|step| cold.rate(step)), [2.0, 1.0]);
    }
}
