//! What a prediction costs, and what it is measured by.

use bild::decode::Token;
use burn::{Tensor, tensor::backend::Backend};
use serde::{Deserialize, Serialize};

use crate::compute;

/// What is made small. Each is a function of the logits of a row and of its target; what is trained is the mean over all tokens that
/// are no padding. With q for the softmax of the logits and p for the teacher's probabilities, of which the largest are kept:
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// (1 − ε) · −ln q(target) + ε · the mean of −ln q over the vocabulary, with ε for `smoothing`.
    CrossEntropy {
        /// From 0, for none, to below 1.
        smoothing: f32,
    },
    /// Σ p · (ln p − ln q): the divergence of the teacher from the model.
    KullbackLeibler {
        /// What becomes of the tokens that were not kept.
        rest: Rest,
    },
    /// ½ Σ |p − q|: one minus the rate at which speculative sampling accepts the model's drafts.
    TotalVariation {
        /// What becomes of the tokens that were not kept.
        rest: Rest,
    },
}

/// What becomes of the tokens that a teacher's distribution does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// They add nothing: the sum is over the kept tokens, whose probabilities stay as they are.
    Ignored,
    /// They are one more token, which has the probability that the kept leave.
    Bucket,
}

impl Loss {
    /// Cross-entropy without smoothing.
    pub fn cross_entropy() -> Self {
        Self::CrossEntropy { smoothing: 0.0 }
    }

    /// Whether it needs a teacher's distributions.
    pub fn needs_teacher(self) -> bool {
        !matches!(self, Self::CrossEntropy { .. })
    }

    /// The mean over rows of logits, `[rows, vocab]`, of which each has its target, on any backend. (What trains computes head and loss
    /// as one, in parts.)
    ///
    /// # Panics
    ///
    /// If there are not as many targets as rows, or no teacher where one is needed.
    pub fn of_logits<B: Backend>(self, logits: Tensor<B, 2>, targets: &Targets) -> Tensor<B, 1> {
        let rows = logits.dims()[0];
        assert_eq!(targets.tokens.len(), rows, "one target a row");
        assert!(!self.needs_teacher() || targets.best > 0, "a teacher's distribution a row");
        compute::loss_of_logits(logits, targets, self).div_scalar(rows as f32)
    }
}

/// What rows should predict.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// Which rows of the decoder's output count: those that are no padding.
    pub(crate) rows: Vec<usize>,
    /// A token for each of them.
    pub(crate) tokens: Vec<Token>,
    /// How many tokens of a teacher's distribution are kept; 0 without a teacher.
    pub(crate) best: usize,
    /// `[rows, best]`
    pub(crate) teacher_tokens: Vec<Token>,
    /// `[rows, best]`
    pub(crate) teacher_log_probs: Vec<f32>,
}

impl Targets {
    /// A token for each of the rows.
    pub fn of_tokens(tokens: Vec<Token>) -> Self {
        Self { rows: (0..tokens.len()).collect(), tokens, ..Self::default() }
    }

    /// A token and a teacher's distribution for each of the rows.
    ///
    /// # Panics
    ///
    /// If they are not of as many rows.
    pub fn with_teacher(tokens: Vec<Token>, teacher: &Teacher) -> Self {
        let rows = tokens.len();
        assert!(teacher.tokens.len() == rows * teacher.best && teacher.log_probs.len() == rows * teacher.best);
        Self {
            best: teacher.best,
            teacher_tokens: teacher.tokens.clone(),
            teacher_log_probs: teacher.log_probs.clone(),
            ..Self::of_tokens(tokens)
        }
    }
}

/// The most likely tokens of a teacher, for each position of a target: 16 to 64 of them are nearly all of a distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Teacher {
    /// How many there are for a position.
    pub best: usize,
    /// `[positions, best]`, no token twice at one position.
    pub tokens: Vec<Token>,
    /// The natural logarithms of their probabilities, `[positions, best]`.
    pub log_probs: Vec<f32>,
}

/// What a model did on targets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// The sum of the losses.
    pub loss: f64,
    /// How often the most likely token was the target.
    pub agreed: usize,
    /// The number of tokens.
    pub tokens: usize,
}

impl Score {
    /// The loss of a token.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.tokens.max(1) as f64
    }

    /// How often, from 0 to 1, the most likely token is the target.
    pub fn agreement(&self) -> f64 {
        self.agreed as f64 / self.tokens.max(1) as f64
    }

    /// Of both.
    pub fn and(self, other: Self) -> Self {
        Self { loss: self.loss + other.loss, agreed: self.agreed + other.agreed, tokens: self.tokens + other.tokens }
    }
}
