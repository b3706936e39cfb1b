use std::num::NonZeroUsize;

use bild_core::{Context, Draft, Policy, PolicyState, Result, Row, Start};
use serde::{Deserialize, Serialize};

use crate::{
    FallbackRule, LowProbability,
    bild::{expected, keep},
};

/// Speculative greedy decoding: token for token what the big model alone gives, whatever the little one drafts
/// (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0).
///
/// A draft stands if it is the verifier's most likely token. Drafts are verified before the sequence ends on one, and
/// nothing is written past the limit. How fast it is depends on the fallback and the draft length; what it writes does
/// not.
///
/// The promise is as good as the verifier's: it holds bit for bit where a row of a pass does not depend on the others (a
/// T5 on the backend `flex`), and up to ties within rounding elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lossless {
    /// When the draft model hands over early; `None`: only the draft length decides.
    pub fallback: Option<LowProbability>,
    /// The most tokens to draft before the verifier is called, or no limit.
    pub max_draft: Option<NonZeroUsize>,
}

/// At most 10 tokens, handing over below a probability of 0.2.
impl Default for Lossless {
    fn default() -> Self {
        Self { fallback: LowProbability::new(0.2).ok(), max_draft: NonZeroUsize::new(10) }
    }
}

impl Lossless {
    /// With nothing that ends a draft, for a policy over this one that does.
    pub fn without_limit() -> Self {
        Self { fallback: None, max_draft: None }
    }

    /// Sets the probability below which the draft model hands over, in [0, 1].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`](bild_core::Error::Setting) if it is outside that range or NaN.
    pub fn with_fallback(mut self, alpha: f32) -> Result<Self> {
        self.fallback = Some(LowProbability::new(alpha)?);
        Ok(self)
    }

    /// Sets the most tokens to draft before the verifier is called, or no limit.
    pub fn with_max_draft(mut self, tokens: impl Into<Option<NonZeroUsize>>) -> Self {
        self.max_draft = tokens.into();
        self
    }
}

impl Policy for Lossless {
    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(*self)
    }
}

/// Verification is the trait's own, which is the lossless one.
impl PolicyState for Lossless {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        if self.fallback.is_some_and(|rule| rule.falls_back(at, row)) {
            Draft::FallBack
        } else {
            keep(at, row, self.max_draft)
        }
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        expected(at, self.max_draft, self.fallback.is_some())
    }
}
