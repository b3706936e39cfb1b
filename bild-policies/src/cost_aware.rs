use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bild_core::{
    Context, Draft, Drafted, Error, Policy, PolicyState, Result, Role, Row, Start, Statistics, Then, Verdict, Wants,
};
use serde::{Deserialize, Serialize};

use crate::{
    Lossless,
    bild::usual,
    costs::{Costs, Shared},
};

/// Another policy that drafts as much as pays, and nothing while nothing pays: it maximises the expected tokens a second from
/// the measured costs of both models and from how often drafts of each confidence have stood.
///
/// A draft goes on while its next token is worth its time: while the chance that it and all before it stand, over the time that
/// drafting and verifying it takes, is above the rate of tokens a second that is reached anyway (the rule of optimal stopping
/// for a renewal process: no other rule has a higher rate in the long run). Where the first token of a draft is not worth it,
/// the verifier goes on alone, and a small share of the time is spent on trying again.
///
/// Drafts that are certain, as those of a look-up, are priced apart from the steps of a model, so that copying goes on for what
/// copies cost ([`DraftModel::or`](bild_core::DraftModel::or)); prices that are given count for both.
///
/// Among many generations at once ([`Batch`](bild_core::Batch)) it goes by its even share of what a pass for all of them takes: a
/// draft costs what one more row for each of them adds, which is little while the pass waits for memory and much once it waits for
/// arithmetic.
///
/// The time in which the draft model reads the source is told apart where the verifier has spoken before: the second generation begins so. From then
/// on a source is read for drafts where these gain more than that in as many passes as a text usually takes.
///
/// What it learns it keeps for all generations of all its clones, so concurrent ones learn from each other in any order.
/// It only ends drafts earlier than the other policy would, or leaves them out, so it is lossless if that is; a lossy
/// policy's output comes to depend on timing.
///
/// ```
/// use bild::{Lossless, policies::CostAware};
///
/// let policy = CostAware::new(Lossless::without_limit());
/// assert_eq!(policy, CostAware::default());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostAware<P = Lossless> {
    /// What decides everything else.
    pub of: P,
    /// What passes cost, if that is not to be measured while decoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
    /// What was learned is not part of the policy's value.
    #[serde(skip)]
    learned: Learned,
}

/// What passes cost, in any one unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Fields")]
pub struct Prices {
    draft: f64,
    verify: f64,
    verify_draft: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    draft: Option<f64>,
    verify: Option<f64>,
    verify_draft: Option<f64>,
}

const PRICE: &str = "a number from 0 to 1e12";

impl TryFrom<Fields> for Prices {
    type Error = Error;

    fn try_from(Fields { draft, verify, verify_draft }: Fields) -> Result<Self> {
        let missing = |name| move || Error::Setting { name, found: "missing".into(), expected: PRICE };
        Self::new(
            draft.ok_or_else(missing("`draft` of the `prices` of the policy `cost_aware`"))?,
            verify.ok_or_else(missing("`verify` of the `prices` of the policy `cost_aware`"))?,
            verify_draft.ok_or_else(missing("`verify_draft` of the `prices` of the policy `cost_aware`"))?,
        )
    }
}

impl Prices {
    /// Of a step of the draft model, of a pass of the verifier without drafts, and what each draft adds to such a pass; none
    /// below 0.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if one is negative, above 1e12 or NaN.
    pub fn new(draft: f64, verify: f64, verify_draft: f64) -> Result<Self> {
        for price in [draft, verify, verify_draft] {
            // Sums and ratios of larger ones would overflow.
            if !(0.0..=1e12).contains(&price) {
                return Err(Error::Setting { name: "the price of a pass", found: price.to_string(), expected: PRICE });
            }
        }
        Ok(Self { draft, verify, verify_draft })
    }

    /// In a unit of which the highest price is about one: what is learned from them does not depend on theirs. A power of two, so that
    /// nothing is rounded.
    fn scaled(self) -> Self {
        let Self { draft, verify, verify_draft } = self;
        let highest = draft.max(verify).max(verify_draft);
        let unit = if highest.is_normal() { highest.log2().floor().exp2() } else { 1.0 };
        Self { draft: draft / unit, verify: verify / unit, verify_draft: verify_draft / unit }
    }
}

#[derive(Clone, Debug, Default)]
struct Learned(Arc<Mutex<Costs>>);

impl PartialEq for Learned {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Learned {
    fn lock(&self) -> MutexGuard<'_, Costs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lossless, drafting as much as pays: nothing else limits a draft.
impl Default for CostAware {
    fn default() -> Self {
        Self::new(Lossless::without_limit())
    }
}

impl<P: Policy> CostAware<P> {
    /// Lets `policy` draft as much as pays. Give it no limit of its own, or a high one.
    pub fn new(policy: P) -> Self {
        Self { of: policy, prices: None, learned: Learned::default() }
    }

    /// Takes what passes cost as given, so that it depends on the outcome of drafts alone, not on the clock.
    pub fn with_prices(mut self, prices: Prices) -> Self {
        self.prices = Some(prices);
        self
    }
}

impl<P: Policy> Policy for CostAware<P> {
    fn wants(&self) -> Wants {
        self.of.wants()
    }

    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
        let drafts = self.learned.lock().begins(self.prices.is_none());
        let policy = self.of.begin(start);
        let (seen, prices) = (Statistics::default(), self.prices.map(Prices::scaled));
        Box::new(State {
            policy,
            prices,
            learned: self.learned.clone(),
            drafts,
            seen,
            chance: 1.0,
            steps: 0,
            rounds: 0,
            drafts_made: 0,
        })
    }
}

struct State {
    policy: Box<dyn PolicyState>,
    prices: Option<Prices>,
    learned: Learned,
    /// Whether the generation begins with a draft.
    drafts: bool,
    /// The statistics when this was last asked: what has come since is the pass just made.
    seen: Statistics,
    /// The chance that all waiting drafts stand.
    chance: f64,
    /// Draft steps since the verifier last spoke.
    steps: usize,
    /// Passes of the verifier that judged drafts, and those drafts.
    rounds: usize,
    drafts_made: usize,
}

impl State {
    /// Whether this is asked for the first time: a generation that waits in a queue, and may never begin, is not counted before.
    fn is_new(&self) -> bool {
        self.seen.draft_steps + self.seen.verifier_calls == 0
    }
}

impl PolicyState for State {
    fn first(&self) -> Role {
        if self.drafts { self.policy.first() } else { Role::Verifier }
    }

    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        let decided = self.policy.drafted(at, row); // while others may learn
        let mut costs = self.learned.lock();
        if self.is_new() {
            costs.begun();
        }
        // Before the verifier has spoken, the time to begin is that of both models.
        if at.statistics.verifier_calls > 0 && self.prices.is_none() {
            let time = at.statistics.encode_time.saturating_sub(self.seen.encode_time).as_secs_f64();
            costs.prepared(time, self.seen.draft_steps == 0);
        }
        let time = at.statistics.draft_time.saturating_sub(self.seen.draft_time).as_secs_f64();
        let certainty = confidence(row, row.argmax);
        let pass = match self.prices {
            Some(prices) => Shared { time: prices.draft, size: 1 },
            None => Shared { time, size: at.batch_size },
        };
        costs.drafted(pass, certainty);
        self.seen = at.statistics.clone();
        self.steps += 1;
        match decided {
            Draft::Keep(token) => {
                self.chance *= costs.chance(confidence(row, token));
                if costs.next_pays(self.chance, certainty, pass.size) {
                    Draft::Keep(token)
                } else {
                    Draft::KeepLast(token)
                }
            }
            draft => draft,
        }
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        self.policy.expected_drafts(at).min(usual(self.drafts_made, self.rounds))
    }

    fn verified(&mut self, at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let verdict = self.policy.verified(at, drafts, rows);
        let mut costs = self.learned.lock();
        if self.is_new() {
            costs.begun();
        }
        let time = at.statistics.verifier_time.saturating_sub(self.seen.verifier_time).as_secs_f64();
        let time = self.prices.map_or(time, |prices| prices.verify + prices.verify_draft * drafts.len() as f64);
        let judged = drafts.iter().take(verdict.accepted + 1).enumerate();
        for (i, draft) in judged {
            costs.judged(confidence(&draft.row, draft.token), i < verdict.accepted);
        }
        let (pass, rows) = match self.prices {
            Some(_) => (Shared { time, size: 1 }, drafts.len() + 1),
            None => (Shared { time, size: at.batch_size }, at.batch_rows),
        };
        costs.verified(pass, rows, self.steps, verdict.accepted);
        self.seen = at.statistics.clone();
        (self.chance, self.steps) = (1.0, 0);
        self.rounds += usize::from(!drafts.is_empty());
        self.drafts_made += drafts.len();
        match verdict.then {
            Then::Draft
                if !costs.begins_draft((at.statistics.draft_steps == 0).then_some(at.statistics.verifier_calls)) =>
            {
                Verdict { then: Then::Verify, ..verdict }
            }
            _ => verdict,
        }
    }

    fn verify_before_end(&self) -> bool {
        self.policy.verify_before_end()
    }
}

/// The draft model's probability of the token it wrote.
fn confidence(row: &Row, token: bild_core::Token) -> f64 {
    let log_prob = f64::from(row.log_prob(token));
    if log_prob.is_nan() { 0.5 } else { log_prob.exp() }
}
