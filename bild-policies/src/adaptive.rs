use std::num::NonZeroUsize;

use bild_core::{Context, Draft, Drafted, Policy, PolicyState, Role, Row, Start, Verdict, Wants};
use serde::{Deserialize, Serialize};

use crate::Lossless;

/// Another policy with a draft length that follows recent acceptance: two more after a draft that stood whole, one fewer after
/// one that did not (the heuristic of transformers' assisted generation). Every generation begins with `start` again, so what is
/// written does not depend on what was written before.
///
/// It only ends drafts earlier than the other policy would, so it is lossless if that is.
///
/// ```
/// use bild::{Lossless, policies::AdaptiveLength};
///
/// let policy = AdaptiveLength::new(Lossless::without_limit());
/// assert_eq!(policy.start.get(), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveLength<P = Lossless> {
    /// What decides everything else.
    pub of: P,
    /// The draft length that a generation begins with.
    #[serde(default = "five")]
    pub start: NonZeroUsize,
}

fn five() -> NonZeroUsize {
    NonZeroUsize::new(5).expect("it is not 0")
}

/// Lossless, with no other limit on a draft.
impl Default for AdaptiveLength {
    fn default() -> Self {
        Self::new(Lossless::without_limit())
    }
}

impl<P: Policy> AdaptiveLength<P> {
    /// Lets the draft length of `policy` follow acceptance, from 5 on.
    pub fn new(policy: P) -> Self {
        Self { of: policy, start: five() }
    }

    /// Sets the draft length that a generation begins with.
    pub fn with_start(mut self, tokens: NonZeroUsize) -> Self {
        self.start = tokens;
        self
    }
}

impl<P: Policy> Policy for AdaptiveLength<P> {
    fn wants(&self) -> Wants {
        self.of.wants()
    }

    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(State { policy: self.of.begin(start), length: self.start.get() })
    }
}

struct State {
    policy: Box<dyn PolicyState>,
    length: usize,
}

impl PolicyState for State {
    fn first(&self) -> Role {
        self.policy.first()
    }

    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        match self.policy.drafted(at, row) {
            Draft::Keep(token) if at.drafts.len() + 1 >= self.length => Draft::KeepLast(token),
            draft => draft,
        }
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        self.policy.expected_drafts(at).min(self.length.saturating_sub(at.drafts.len()))
    }

    fn verified(&mut self, at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let verdict = self.policy.verified(at, drafts, rows);
        if verdict.accepted < drafts.len() {
            self.length = self.length.saturating_sub(1).max(1);
        } else if drafts.len() >= self.length {
            self.length += 2;
        }
        verdict
    }

    fn verify_before_end(&self) -> bool {
        self.policy.verify_before_end()
    }
}
