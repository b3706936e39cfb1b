use crate::{Role, Row, Source, Statistics, Token, Want};

/// When to hand over and when to take back.
///
/// A policy is a value with named thresholds; what one generation must remember lives in the [`PolicyState`] it makes.
/// It is handed facts and decides; it never touches a model or a cache. Every method of the state has a default, and the
/// defaults together are lossless greedy decoding: draft without end, let stand what the verifier would have written.
///
/// This policy hands over after every third draft, and stays lossless:
///
/// ```
/// use bild::decode::{Context, Draft, Policy, PolicyState, Row, Start};
///
/// #[derive(Clone)]
/// struct Threes;
///
/// impl Policy for Threes {
///     fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
///         Box::new(self.clone())
///     }
/// }
///
/// impl PolicyState for Threes {
///     fn drafted(&mut self, at: &Context, row: &Row) -> Draft {
///         if at.drafts.len() < 2 { Draft::Keep(row.argmax) } else { Draft::KeepLast(row.argmax) }
///     }
/// }
/// ```
pub trait Policy: Send + Sync {
    /// What the policy wants to know of the rows of each model.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// The state of one generation.
    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState>;
}

/// One generation's state of a [`Policy`].
pub trait PolicyState: Send {
    /// Which model speaks first; the draft model unless said otherwise.
    fn first(&self) -> Role {
        Role::Draft
    }

    /// The draft model proposed `row`: keep a token, or hand over.
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        let _ = at;
        Draft::Keep(row.argmax)
    }

    /// The verifier scored `drafts`: `rows[i]` is its distribution where `drafts[i]` stands, and the last row is what
    /// comes after all of them, so there is one row more than drafts.
    fn verified(&mut self, at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let _ = at;
        Verdict::first_refused(drafts, rows, |draft, row| draft.token != row.argmax)
    }

    /// How many drafts it will probably keep from here on before it hands over. A draft model that makes several in one pass is asked
    /// for so many, at most: those after the last that is kept were made in vain, and those that were not asked for cost another pass.
    /// It is asked before a pass of such a draft model only.
    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        let _ = at;
        1
    }

    /// Whether drafts are verified before the generation ends on one (end-of-sequence, a stop token, the limit). What is
    /// lossless must. Those that no model has proposed ([`Row::certain`]) always are.
    fn verify_before_end(&self) -> bool {
        true
    }
}

/// What a policy wants to know of the rows of each model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Of the draft model's rows.
    pub draft: Want,
    /// Of the verifier's rows.
    pub verifier: Want,
}

/// What a generation begins with when its policy is asked for a state.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Start<'a> {
    /// What the generation starts from.
    pub source: &'a Source,
    /// The seed of the generation ([`Settings::seed`](crate::Settings::seed)).
    pub seed: u64,
    /// The most tokens that are generated.
    pub max_new_tokens: usize,
}

impl<'a> Start<'a> {
    /// A start as the loop makes it, for a policy's tests: it has no limit.
    pub fn new(source: &'a Source, seed: u64) -> Self {
        Self { source, seed, max_new_tokens: usize::MAX }
    }
}

/// Where a generation stands when its policy is asked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Context<'a> {
    /// What the generation started from.
    pub source: &'a Source,
    /// The tokens generated so far, the drafts that wait for the verifier last.
    pub tokens: &'a [Token],
    /// The drafts that wait for the verifier.
    pub drafts: &'a [Drafted],
    /// What the two models have done so far, the pass just made included.
    pub statistics: &'a Statistics,
    /// The seed of the generation.
    pub seed: u64,
    /// For how many generations the pass just made was made; their share of its time is in the statistics of each.
    pub batch_size: usize,
    /// How many tokens it took in for all of them.
    pub batch_rows: usize,
}

/// A draft that waits for the verifier.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Drafted {
    /// The token that was kept.
    pub token: Token,
    /// The draft model's distribution it was taken from.
    pub row: Row,
}

impl Drafted {
    /// A draft as the loop makes it, for a policy's tests.
    pub fn new(token: Token, row: Row) -> Self {
        Self { token, row }
    }
}

/// What becomes of a draft model's proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draft {
    /// Keep this token and draft on.
    Keep(Token),
    /// Keep this token and hand over: the draft is long enough.
    KeepLast(Token),
    /// Keep nothing and hand over.
    FallBack,
}

/// What becomes of the drafts that a verifier scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many of the drafts stand; those after them are rolled back.
    pub accepted: usize,
    /// The token that comes next. It is left out where the generation ends on the last accepted draft.
    pub next: Token,
    /// Who speaks then.
    pub then: Then,
}

/// Who speaks after a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The draft model.
    Draft,
    /// The verifier, without drafts.
    Verify,
    /// The verifier, without drafts, even if [`Verdict::next`] is an end-of-sequence or stop token (as in the program of
    /// the paper's authors, after a rollback).
    VerifyPastEnd,
}

impl Verdict {
    /// Lets the drafts before the first refused one stand and continues with the verifier's most likely token there, or
    /// after all of them if none is refused. The draft model speaks next.
    pub fn first_refused(drafts: &[Drafted], rows: &[Row], refuse: impl Fn(&Drafted, &Row) -> bool) -> Self {
        let accepted = drafts.iter().zip(rows).position(|(draft, row)| refuse(draft, row)).unwrap_or(drafts.len());
        Self { accepted, next: rows[accepted].argmax, then: Then::Draft }
    }
}
