//! How a model is trained.

use std::path::PathBuf;

use bild_train::{Adafactor, AdamW, Decay, Loss, Rest, Rule, Run, Schedule, Settings};
use clap::{Args, ValueEnum};

use super::{number, whole};
use crate::streams::say;

/// The options of `align` and `train`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrainingArgs {
    /// The folder of the model that is made
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The folder of what is under way [default: --out with .work after it]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// The steps of the training
    #[arg(long, value_name = "N", default_value = "2000", value_parser = whole(1..=100_000_000))]
    pub(crate) steps: usize,
    /// What is made small [default: kl to a big model, cross-entropy to texts]
    #[arg(long, value_enum)]
    pub(crate) loss: Option<LossArg>,
    /// How much labels are smoothed, for cross-entropy [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = number(0.0, 0.999))]
    pub(crate) smoothing: Option<f64>,
    /// The rule by which weights change
    #[arg(long, value_enum, default_value = "adamw")]
    pub(crate) optimizer: OptimizerArg,
    /// How fast they change at most
    #[arg(long, value_name = "RATE", default_value = "0.001", value_parser = number(0.0, 10.0))]
    pub(crate) learning_rate: f64,
    /// Over how many steps that is reached [default: a twentieth]
    #[arg(long, value_name = "N", value_parser = whole(0..=100_000_000))]
    pub(crate) warm_up: Option<usize>,
    /// How it falls after that
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) decay: DecayArg,
    /// How many tokens the sources of a batch have at most, and its targets
    #[arg(long, value_name = "N", default_value = "4096", value_parser = whole(1..=10_000_000))]
    pub(crate) batch_tokens: usize,
    /// Batches that make one step
    #[arg(long, value_name = "N", default_value = "1", value_parser = whole(1..=100_000))]
    pub(crate) accumulate: usize,
    /// The probability that a number is dropped
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number(0.0, 0.999))]
    pub(crate) dropout: f64,
    /// The seed of the order of the data and of what is dropped
    #[arg(long, value_name = "N", default_value = "0", value_parser = whole(0..=u64::MAX))]
    pub(crate) training_seed: usize,
}

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossArg {
    /// The divergence from the big model's distributions
    Kl,
    /// Of the tokens that are written
    CrossEntropy,
    /// The total variation from the big model's distributions
    Tv,
}

/// A rule by which weights change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OptimizerArg {
    /// Adam with decoupled weight decay
    Adamw,
    /// With less memory, as T5 was trained
    Adafactor,
}

/// How a rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecayArg {
    /// To nothing at the last step, by half a wave
    Cosine,
    /// With the inverse of the square root of the steps
    InverseSqrt,
    /// It does not
    Constant,
}

impl TrainingArgs {
    /// The folder of what is under way.
    pub(crate) fn work(&self) -> PathBuf {
        self.work.clone().unwrap_or_else(|| {
            // Without a slash at its end.
            let mut name = self.out.components().collect::<PathBuf>().into_os_string();
            name.push(".work");
            name.into()
        })
    }

    /// Says how a training goes on that was stopped; not all that was asked for was done.
    pub(crate) fn stopped(&self) -> bool {
        say(format_args!("stopped: the same command goes on from {}", self.work().display()));
        false
    }

    /// What of it has no effect.
    pub(crate) fn warning(&self, default: LossArg) -> Option<String> {
        let ignored = self.smoothing.is_some() && self.loss.unwrap_or(default) != LossArg::CrossEntropy;
        ignored.then(|| "--smoothing has no effect: the loss is not cross-entropy".into())
    }

    /// The training that is meant.
    pub(crate) fn run(&self, default: LossArg) -> Run {
        Run::new(self.settings(default), self.steps)
    }

    fn settings(&self, default: LossArg) -> Settings {
        let rest = Rest::Bucket;
        Settings {
            loss: match self.loss.unwrap_or(default) {
                LossArg::Kl => Loss::KullbackLeibler { rest },
                LossArg::Tv => Loss::TotalVariation { rest },
                LossArg::CrossEntropy => Loss::CrossEntropy { smoothing: self.smoothing.unwrap_or(0.0) as f32 },
            },
            rule: match self.optimizer {
                OptimizerArg::Adamw => Rule::AdamW(AdamW::default()),
                OptimizerArg::Adafactor => Rule::Adafactor(Adafactor::default()),
            },
            schedule: Schedule {
                rate: self.learning_rate,
                warm_up: self.warm_up.unwrap_or(self.steps / 20),
                decay: match self.decay {
                    DecayArg::Cosine => Decay::Cosine { steps: self.steps, floor: 0.0 },
                    DecayArg::InverseSqrt => Decay::InverseSquareRoot,
                    DecayArg::Constant => Decay::Constant,
                },
            },
            accumulate: self.accumulate,
            tokens: self.batch_tokens,
            dropout: self.dropout as f32,
            seed: self.training_seed as u64,
            ..Settings::default()
        }
    }
}
