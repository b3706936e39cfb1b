use std::num::NonZeroUsize;

use bild_core::{Context, Draft, Drafted, Policy, PolicyState, Result, Role, Row, Start, Then, Verdict, Wants};
use serde::{Deserialize, Serialize};

use crate::{FallbackRule, HighCrossEntropy, LowProbability, RollbackRule};

/// Whose decoding a [`Bild`] policy follows where the paper and its authors' program differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Variant {
    /// Algorithm 1 of the paper: the draft model speaks first and again after every verifier pass, and a refused draft is
    /// replaced by the verifier's most likely token even if that is the same one.
    #[default]
    Paper,
    /// The program its authors released: the verifier speaks first; a refused draft that is the verifier's most likely
    /// token stands, and so do all after it; after a rollback the verifier makes one more pass, and only then is
    /// end-of-sequence looked for.
    Released,
}

/// The policy of Big Little Decoder (arXiv 2302.07863): the draft model falls back by one rule, the verifier rolls back
/// by another. With the paper's rules their thresholds are α_FB and α_RB.
///
/// Drafts that no verifier pass has judged when the draft model ends the sequence stay in the output, so the output may
/// differ from the big model's own; [`Lossless`](crate::Lossless) never does.
///
/// ```
/// use bild::{Bild, policies::Variant};
///
/// let policy = Bild::new(0.6, 2.0)?.with_variant(Variant::Released);
/// let json = serde_json::to_string(&policy)?;
/// assert_eq!(json, r#"{"variant":"released","fallback":0.6,"rollback":2.0,"max_draft":10}"#);
/// assert_eq!(serde_json::from_str::<Bild>(&json)?, policy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bild<F = LowProbability, R = HighCrossEntropy> {
    /// The paper's decoding or its authors' program's.
    #[serde(default)]
    pub variant: Variant,
    /// Which model speaks first; as the variant has it if unset (an ablation of the paper).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Role>,
    /// When the draft model hands over.
    #[serde(default)]
    pub fallback: F,
    /// Which drafts are taken back.
    #[serde(default)]
    pub rollback: R,
    /// The most tokens to draft before the verifier is called (10 in the authors' program), or no limit.
    #[serde(default = "ten")]
    pub max_draft: Option<NonZeroUsize>,
}

fn ten() -> Option<NonZeroUsize> {
    NonZeroUsize::new(10)
}

impl Bild {
    /// The paper's policy with the thresholds `fallback` (α_FB in [0, 1]) and `rollback` (α_RB in [0, ∞]), drafting at
    /// most 10 tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`](bild_core::Error::Setting) if a threshold is outside its range or NaN.
    pub fn new(fallback: f32, rollback: f32) -> Result<Self> {
        Ok(Self::with_rules(LowProbability::new(fallback)?, HighCrossEntropy::new(rollback)?))
    }
}

/// α_FB 0.5 and α_RB 2: half of the verifier passes of decoding with the big model alone, for less than one BLEU, on
/// the German→English pair of the repository.
impl Default for Bild {
    fn default() -> Self {
        Self::with_rules(LowProbability::default(), HighCrossEntropy::default())
    }
}

impl<F: FallbackRule, R: RollbackRule> Bild<F, R> {
    /// The policy that falls back and rolls back by these rules, drafting at most 10 tokens.
    pub fn with_rules(fallback: F, rollback: R) -> Self {
        Self { variant: Variant::Paper, first: None, fallback, rollback, max_draft: ten() }
    }

    /// Sets the variant.
    pub fn with_variant(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self
    }

    /// Sets which model speaks first.
    pub fn with_first(mut self, role: Role) -> Self {
        self.first = Some(role);
        self
    }

    /// Sets the most tokens to draft before the verifier is called, or no limit.
    pub fn with_max_draft(mut self, tokens: impl Into<Option<NonZeroUsize>>) -> Self {
        self.max_draft = tokens.into();
        self
    }
}

impl<F, R> Policy for Bild<F, R>
where
    F: FallbackRule + Clone + 'static,
    R: RollbackRule + Clone + 'static,
{
    fn wants(&self) -> Wants {
        Wants { draft: self.fallback.want().and(self.rollback.want_of_draft()), verifier: self.rollback.want() }
    }

    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(self.clone())
    }
}

/// The policy is its own state: everything it decides on is in the [`Context`].
impl<F: FallbackRule, R: RollbackRule> PolicyState for Bild<F, R> {
    fn first(&self) -> Role {
        self.first.unwrap_or(match self.variant {
            Variant::Paper => Role::Draft,
            Variant::Released => Role::Verifier,
        })
    }

    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        if self.fallback.falls_back(at, row) { Draft::FallBack } else { keep(at, row, self.max_draft) }
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        expected(at, self.max_draft, true)
    }

    fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let verdict = Verdict::first_refused(drafts, rows, |draft, row| self.rollback.refuses(draft, row));
        match (self.variant, drafts.get(verdict.accepted)) {
            (Variant::Released, Some(refused)) if refused.token == verdict.next => {
                Verdict { accepted: drafts.len(), next: rows[drafts.len()].argmax, ..verdict }
            }
            (Variant::Released, Some(_)) => Verdict { then: Then::VerifyPastEnd, ..verdict },
            _ => verdict,
        }
    }

    fn verify_before_end(&self) -> bool {
        false
    }
}

/// Keeps the most likely token, as the last of the draft if that makes `max_draft`.
pub(crate) fn keep(at: &Context<'_>, row: &Row, max_draft: Option<NonZeroUsize>) -> Draft {
    if max_draft.is_some_and(|max| at.drafts.len() + 1 >= max.get()) {
        Draft::KeepLast(row.argmax)
    } else {
        Draft::Keep(row.argmax)
    }
}

/// How many more drafts there is room for, at least 1; if drafts also end early, no more than is usual.
pub(crate) fn expected(at: &Context<'_>, max_draft: Option<NonZeroUsize>, end_early: bool) -> usize {
    let room = max_draft.map_or(usize::MAX, |max| max.get().saturating_sub(at.drafts.len()).max(1));
    if end_early { room.min(usual(at.statistics.judged, at.statistics.verifier_calls)) } else { room }
}

/// How many drafts a pass of the verifier usually has, after so many in so many passes: rounded up and at least 1, at first a few.
pub(crate) fn usual(drafts: usize, passes: usize) -> usize {
    if passes == 0 { 4 } else { drafts.div_ceil(passes).max(1) }
}
