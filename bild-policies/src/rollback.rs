use std::marker::PhantomData;

use bild_core::{Drafted, Error, Result, Row, Want};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, value::MapAccessDeserializer},
};

use crate::{
    distribution::{Distribution, log_softmax},
    threshold::{NamedRule, RuleVisitor, threshold},
};

/// Which drafts the big model takes back: the rollback of a policy.
pub trait RollbackRule: Send + Sync {
    /// What the rule needs to know of a verifier's row.
    fn want(&self) -> Want {
        Want::default()
    }

    /// What the rule needs to know of the draft model's row.
    fn want_of_draft(&self) -> Want {
        Want::default()
    }

    /// Whether `draft` is refused; `row` is the verifier's distribution where it stands.
    fn refuses(&self, draft: &Drafted, row: &Row) -> bool;
}

/// Refuses a draft whose cross-entropy under the verifier, −ln p(draft), is above α_RB, strictly (section 3.3 of the
/// paper).
///
/// In JSON the threshold is a number, or `"inf"` for ∞.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Threshold", try_from = "AnyRollback")]
pub struct HighCrossEntropy(f32);

impl HighCrossEntropy {
    /// A rule with the threshold `alpha` in [0, ∞], in nats: 0 keeps only what is certain, ∞ refuses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `alpha` is negative or NaN.
    pub fn new(alpha: f32) -> Result<Self> {
        if alpha >= 0.0 {
            Ok(Self(alpha))
        } else {
            let expected = "a number of nats in [0, inf]";
            Err(Error::Setting { name: "the rollback threshold", found: alpha.to_string(), expected })
        }
    }

    /// The threshold α_RB.
    pub fn alpha(self) -> f32 {
        self.0
    }
}

impl RollbackRule for HighCrossEntropy {
    fn want(&self) -> Want {
        Want::default().with_cross_entropy()
    }

    fn refuses(&self, _draft: &Drafted, row: &Row) -> bool {
        row.cross_entropy.is_some_and(|cross_entropy| cross_entropy > self.0)
    }
}

/// α_RB 2.
impl Default for HighCrossEntropy {
    fn default() -> Self {
        Self(2.0)
    }
}

/// JSON has no number for ∞.
#[derive(Serialize)]
#[serde(untagged)]
enum Threshold {
    Finite(f32),
    Infinite(&'static str),
}

impl From<HighCrossEntropy> for Threshold {
    fn from(rule: HighCrossEntropy) -> Self {
        if rule.0.is_finite() { Self::Finite(rule.0) } else { Self::Infinite("inf") }
    }
}

/// Read by its name too, as where there are others beside it.
impl TryFrom<AnyRollback> for HighCrossEntropy {
    type Error = Error;

    fn try_from(rule: AnyRollback) -> Result<Self> {
        match rule {
            AnyRollback::CrossEntropy(rule) => Ok(rule),
            other => {
                let expected = "a cross-entropy, the only rule there is for it here";
                Err(Error::Setting { name: "the rollback", found: format!("{other:?}"), expected })
            }
        }
    }
}

threshold! {
    /// Refuses a draft whose probability under the verifier is below a threshold, strictly: the paper's rule said in
    /// probabilities, −ln of which is its threshold in nats.
    LowVerifierProbability, "the probability of a rollback", (0.0..=1.0), "a probability in [0, 1]"
}

impl RollbackRule for LowVerifierProbability {
    fn want(&self) -> Want {
        Want::default().with_cross_entropy()
    }

    fn refuses(&self, _draft: &Drafted, row: &Row) -> bool {
        row.cross_entropy.is_some_and(|cross_entropy| (-cross_entropy).exp() < self.0)
    }
}

/// Refuses a draft that is not among the verifier's k most likely tokens; of equals, the lower token comes first. With k = 1
/// a draft stands where greedy decoding of the verifier would write it. It needs whole rows of logits if k is above 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LowRank(std::num::NonZeroUsize);

impl LowRank {
    /// A rule that keeps the `k` most likely tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `k` is 0.
    pub fn new(k: usize) -> Result<Self> {
        let error = || Error::Setting { name: "the rank of a rollback", found: "0".into(), expected: "at least 1" };
        k.try_into().map(Self).map_err(|_| error())
    }
}

impl RollbackRule for LowRank {
    fn want(&self) -> Want {
        if self.0.get() == 1 { Want::default() } else { Want::default().with_logits() }
    }

    fn refuses(&self, draft: &Drafted, row: &Row) -> bool {
        let Some(logits) = row.logits.as_deref().filter(|_| self.0.get() > 1) else {
            return draft.token != row.argmax;
        };
        let token = draft.token as usize;
        let Some(&own) = logits.get(token) else { return true };
        let above = |(other, &logit): (usize, &f32)| logit > own || logit == own && other < token;
        logits.iter().enumerate().filter(|entry| above(*entry)).count() >= self.0.get()
    }
}

threshold! {
    /// Refuses a draft where the two models' distributions diverge by more than a threshold, strictly: by
    /// KL(draft ‖ verifier) = Σ q ln(q / p) over the whole vocabulary. For a draft without a distribution that is the
    /// cross-entropy of the paper's rule. It needs whole rows of logits of both models.
    HighDivergence, "the divergence of a rollback", (0.0..=f32::MAX), "a number of nats, at least 0"
}

impl RollbackRule for HighDivergence {
    fn want(&self) -> Want {
        Want::default().with_cross_entropy().with_logits()
    }

    fn want_of_draft(&self) -> Want {
        Want::default().with_logits()
    }

    fn refuses(&self, draft: &Drafted, row: &Row) -> bool {
        let divergence = match (&draft.row.logits, &row.logits) {
            (Some(q), Some(p)) => {
                // By logarithms, which stay numbers where a probability is too small to be one.
                let term = |(q, p): (f64, f64)| if q > f64::NEG_INFINITY { q.exp() * (q - p) } else { 0.0 };
                log_softmax(q).zip(log_softmax(p)).map(term).sum::<f64>() as f32
            }
            _ => row.cross_entropy.unwrap_or(0.0),
        };
        divergence > self.0
    }
}

threshold! {
    /// Refuses a draft that is not the verifier's most likely token where the verifier is surer of its own than the draft model is of its:
    /// max q < max p − alpha · ½ Σ |p − q|, strictly, the optimal deferral of a speculative cascade (Narasimhan et al., ICLR 2025, arXiv
    /// 2405.19261, "OPT"). The larger alpha is, the fewer drafts are refused. A draft without a distribution stands only where it is the
    /// verifier's most likely token. It needs whole rows of logits of both models.
    Deferral, "the cost of deferral of a rollback", (0.0..=f32::MAX), "a number, at least 0"
}

impl RollbackRule for Deferral {
    fn want(&self) -> Want {
        Want::default().with_logits()
    }

    fn want_of_draft(&self) -> Want {
        Want::default().with_logits()
    }

    fn refuses(&self, draft: &Drafted, row: &Row) -> bool {
        if draft.token == row.argmax {
            return false;
        }
        let (Some(q), Some(p)) = (&draft.row.logits, &row.logits) else { return true };
        let [q, p] = [q, p].map(|logits| Distribution::of(logits, 1.0, None, 1.0));
        self.defers(&draft.row, row, p.variation(&q))
    }
}

impl Deferral {
    /// Whether the verifier writes, not the draft model, where ½ Σ |p − q| of what they would sample from is `variation`.
    pub(crate) fn defers(self, draft: &Row, verifier: &Row, variation: f64) -> bool {
        f64::from(draft.probability) < f64::from(verifier.probability) - f64::from(self.0) * variation
    }
}

/// Refuses a draft that is not typical of the verifier: its probability is below `min(epsilon, delta · e^−H)`, where H is
/// the entropy of the verifier's distribution, so that more is let through where the verifier hesitates itself (typical
/// acceptance of Medusa, Cai et al. 2024, arXiv 2401.10774, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Typical")]
pub struct Atypical {
    epsilon: f32,
    delta: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typical {
    epsilon: Option<f32>,
    delta: Option<f32>,
}

impl TryFrom<Typical> for Atypical {
    type Error = Error;

    fn try_from(typical: Typical) -> Result<Self> {
        let missing = |name| Error::Setting { name, found: "missing".into(), expected: "a number in [0, 1]" };
        Self::new(
            typical.epsilon.ok_or_else(|| missing("`epsilon` of the rule `typical`"))?,
            typical.delta.ok_or_else(|| missing("`delta` of the rule `typical`"))?,
        )
    }
}

impl Atypical {
    /// A rule with the hard limit `epsilon` and the factor `delta`, both in [0, 1] (0.09 and 0.3 in Medusa).
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if one is outside that range or NaN.
    pub fn new(epsilon: f32, delta: f32) -> Result<Self> {
        for (name, value) in
            [("the epsilon of typical acceptance", epsilon), ("the delta of typical acceptance", delta)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Setting { name, found: value.to_string(), expected: "a number in [0, 1]" });
            }
        }
        Ok(Self { epsilon, delta })
    }
}

impl RollbackRule for Atypical {
    fn want(&self) -> Want {
        Want::default().with_cross_entropy().with_entropy()
    }

    fn refuses(&self, _draft: &Drafted, row: &Row) -> bool {
        let (Some(cross_entropy), Some(entropy)) = (row.cross_entropy, row.entropy) else { return false };
        (-cross_entropy).exp() < self.epsilon.min(self.delta * (-entropy).exp())
    }
}

/// Any of the rollback rules, as a file names it: `{"rank": 3}`. A number alone, or `"inf"`, is the threshold of the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "Self")]
#[non_exhaustive]
pub enum AnyRollback {
    /// The paper's; `"inf"` never rolls back.
    CrossEntropy(HighCrossEntropy),
    /// By the draft's probability under the verifier.
    Probability(LowVerifierProbability),
    /// By its rank.
    Rank(LowRank),
    /// By the divergence of the two distributions.
    Divergence(HighDivergence),
    /// By typical acceptance.
    Typical(Atypical),
    /// As a speculative cascade defers.
    Deferral(Deferral),
}

impl Default for AnyRollback {
    fn default() -> Self {
        Self::CrossEntropy(HighCrossEntropy::default())
    }
}

impl NamedRule for AnyRollback {
    const EXPECTED: &'static str = "a number of nats, \"inf\", or a rule by name as {\"rank\": 3}";

    fn papers(alpha: f32) -> Result<Self> {
        HighCrossEntropy::new(alpha).map(Self::CrossEntropy)
    }

    fn named<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for AnyRollback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor(PhantomData))
    }
}

impl Serialize for AnyRollback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl AnyRollback {
    fn rule(&self) -> &dyn RollbackRule {
        match self {
            Self::CrossEntropy(rule) => rule,
            Self::Probability(rule) => rule,
            Self::Rank(rule) => rule,
            Self::Divergence(rule) => rule,
            Self::Typical(rule) => rule,
            Self::Deferral(rule) => rule,
        }
    }
}

impl RollbackRule for AnyRollback {
    fn want(&self) -> Want {
        self.rule().want()
    }

    fn want_of_draft(&self) -> Want {
        self.rule().want_of_draft()
    }

    fn refuses(&self, draft: &Drafted, row: &Row) -> bool {
        self.rule().refuses(draft, row)
    }
}
