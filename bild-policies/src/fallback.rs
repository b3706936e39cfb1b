use std::marker::PhantomData;

use bild_core::{Context, Error, Result, Row, Want};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, value::MapAccessDeserializer},
};

use crate::{
    random::{of_source, uniform},
    threshold::{NamedRule, RuleVisitor, threshold},
};

/// When the little model hands over instead of keeping its token: the fallback of a policy.
pub trait FallbackRule: Send + Sync {
    /// What the rule needs to know of a row.
    fn want(&self) -> Want {
        Want::default()
    }

    /// Whether the token that `row` predicts is discarded and the big model asked instead.
    fn falls_back(&self, at: &Context<'_>, row: &Row) -> bool;
}

threshold! {
    /// Falls back where the probability of the most likely token is below α_FB, strictly (section 3.2 of the paper). 0 never
    /// falls back, 1 keeps only what is certain.
    LowProbability read as "AnyFallback", "the fallback threshold", (0.0..=1.0), "a probability in [0, 1]"
}

/// α_FB 0.5.
impl Default for LowProbability {
    fn default() -> Self {
        Self(0.5)
    }
}

/// Read by its name too, as where there are others beside it.
impl TryFrom<AnyFallback> for LowProbability {
    type Error = Error;

    fn try_from(rule: AnyFallback) -> Result<Self> {
        match rule {
            AnyFallback::Probability(rule) => Ok(rule),
            other => {
                let expected = "a probability, the only rule there is for it here";
                Err(Error::Setting { name: "the fallback", found: format!("{other:?}"), expected })
            }
        }
    }
}

impl FallbackRule for LowProbability {
    fn falls_back(&self, _at: &Context<'_>, row: &Row) -> bool {
        row.probability < self.0
    }
}

threshold! {
    /// Falls back where the entropy of the draft model's distribution is above a threshold, strictly. Entropy sees
    /// hesitation between many tokens that the highest probability alone does not tell from hesitation between two.
    HighEntropy, "the entropy of a fallback", (0.0..=f32::MAX), "a number of nats, at least 0"
}

impl FallbackRule for HighEntropy {
    fn want(&self) -> Want {
        Want::default().with_entropy()
    }

    fn falls_back(&self, _at: &Context<'_>, row: &Row) -> bool {
        row.entropy.is_some_and(|entropy| entropy > self.0)
    }
}

threshold! {
    /// Falls back where the two most likely tokens are less than a threshold apart in probability, strictly. It needs whole
    /// rows of logits.
    SmallMargin, "the margin of a fallback", (0.0..=1.0), "a difference of probabilities in [0, 1]"
}

impl FallbackRule for SmallMargin {
    fn want(&self) -> Want {
        Want::default().with_logits()
    }

    fn falls_back(&self, _at: &Context<'_>, row: &Row) -> bool {
        // A draft without a distribution has no second best.
        let Some(logits) = &row.logits else { return false };
        let others = logits.iter().enumerate().filter(|(token, _)| *token != row.argmax as usize);
        let second = others.fold(f32::NEG_INFINITY, |second, (_, &logit)| second.max(logit));
        let Some(best) = logits.get(row.argmax as usize) else { return true };
        let ratio = (second - best).exp();
        row.probability * (1.0 - ratio) < self.0
    }
}

threshold! {
    /// Falls back once the draft as a whole, the product of the probabilities of all its tokens and the next one, is less
    /// likely than a threshold, strictly: confidence that is lost little by little counts too.
    LowAccumulated, "the accumulated probability of a fallback", (0.0..=1.0), "a probability in [0, 1]"
}

impl FallbackRule for LowAccumulated {
    fn falls_back(&self, at: &Context<'_>, row: &Row) -> bool {
        let before: f32 = at.drafts.iter().map(|draft| draft.row.probability).product();
        before * row.probability < self.0
    }
}

threshold! {
    /// Falls back where a draft would be accepted with less than this probability, strictly, by a bound that the entropy H of the draft
    /// model's distribution gives: 1 − √(0.2 · H), or 0 where that is negative (AdaEDL, Agrawal et al. 2024, arXiv 2410.18351). It is
    /// [`HighEntropy`] in other numbers, which mean the same whatever the vocabulary.
    LowAcceptance, "the acceptance of a fallback", (0.0..=1.0), "a probability in [0, 1]"
}

impl FallbackRule for LowAcceptance {
    fn want(&self) -> Want {
        Want::default().with_entropy()
    }

    fn falls_back(&self, _at: &Context<'_>, row: &Row) -> bool {
        row.entropy.is_some_and(|entropy| (1.0 - (0.2 * entropy).sqrt()).max(0.0) < self.0)
    }
}

threshold! {
    /// Falls back at random, with this probability at each position: the paper's control for what a fallback is worth that
    /// looks at nothing. The same seed, source and position decide the same.
    RandomFallback, "the probability of a random fallback", (0.0..=1.0), "a probability in [0, 1]"
}

impl FallbackRule for RandomFallback {
    fn falls_back(&self, at: &Context<'_>, _row: &Row) -> bool {
        uniform(of_source(at.seed, at.source), at.tokens.len() as u64) < self.0
    }
}

/// Any of the fallback rules, as a file names it: `{"entropy": 1.5}`. A number alone is the threshold of the paper's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "Self")]
#[non_exhaustive]
pub enum AnyFallback {
    /// The paper's.
    Probability(LowProbability),
    /// By entropy.
    Entropy(HighEntropy),
    /// By the margin of the two most likely.
    Margin(SmallMargin),
    /// By the probability of the draft as a whole.
    Accumulated(LowAccumulated),
    /// By a bound on acceptance.
    Acceptance(LowAcceptance),
    /// At random.
    Random(RandomFallback),
}

impl Default for AnyFallback {
    fn default() -> Self {
        Self::Probability(LowProbability::default())
    }
}

impl NamedRule for AnyFallback {
    const EXPECTED: &'static str = "a probability, or a rule by name as {\"entropy\": 1.5}";

    fn papers(alpha: f32) -> Result<Self> {
        LowProbability::new(alpha).map(Self::Probability)
    }

    fn named<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for AnyFallback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor(PhantomData))
    }
}

impl Serialize for AnyFallback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl AnyFallback {
    fn rule(&self) -> &dyn FallbackRule {
        match self {
            Self::Probability(rule) => rule,
            Self::Entropy(rule) => rule,
            Self::Margin(rule) => rule,
            Self::Accumulated(rule) => rule,
            Self::Acceptance(rule) => rule,
            Self::Random(rule) => rule,
        }
    }
}

impl FallbackRule for AnyFallback {
    fn want(&self) -> Want {
        self.rule().want()
    }

    fn falls_back(&self, at: &Context<'_>, row: &Row) -> bool {
        self.rule().falls_back(at, row)
    }
}
