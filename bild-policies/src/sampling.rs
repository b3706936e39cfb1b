use std::num::NonZeroUsize;

use bild_core::{Context, Draft, Drafted, Error, Policy, PolicyState, Result, Row, Start, Then, Verdict, Want, Wants};
use serde::{Deserialize, Serialize};

use crate::{
    Deferral, FallbackRule, LowProbability,
    bild::expected,
    distribution::Distribution,
    random::{Generator, of_source},
};

/// Speculative sampling: what is written is distributed exactly as if the big model alone were sampled at this temperature,
/// top-k and top-p, whatever the little one drafts (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv
/// 2302.01318). The seed of the settings and the source decide the outcome.
///
/// Both models' distributions are shaped alike. A draft x drawn from q stands with the probability min(1, p(x) / q(x)); the
/// token in place of a refused one is drawn from max(0, p − q), scaled to 1. At temperature 0 it is
/// [`Lossless`](crate::Lossless). It needs whole rows of logits of both models.
///
/// ```
/// use bild::policies::Sampling;
///
/// let policy = Sampling::new(0.8)?.with_top_k(50)?.with_top_p(0.95)?;
/// let json = r#"{"temperature":0.8,"top_k":50,"top_p":0.95,"lenience":1.0,"fallback":null,"max_draft":5}"#;
/// assert_eq!(serde_json::to_string(&policy)?, json);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Fields")]
pub struct Sampling {
    temperature: f32,
    top_k: Option<NonZeroUsize>,
    top_p: f32,
    lenience: f32,
    /// **Lossy if there is one**: a draft is judged as by a speculative cascade (Narasimhan et al., ICLR 2025), distributed as the draft
    /// model writes where the verifier is not surer by that rule (before temperature, top-k and top-p, which shape what is sampled alone),
    /// and as the verifier elsewhere. What follows the last draft is the verifier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferral: Option<Deferral>,
    /// When the draft model hands over early. It looks at a distribution before a token is drawn from it, so what is
    /// written keeps its distribution.
    pub fallback: Option<LowProbability>,
    /// The most tokens to draft before the verifier is called, or no limit.
    pub max_draft: Option<NonZeroUsize>,
}

/// What is read from a file, before its ranges are checked.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    temperature: f32,
    top_k: Option<NonZeroUsize>,
    top_p: f32,
    lenience: f32,
    deferral: Option<Deferral>,
    fallback: Option<LowProbability>,
    max_draft: Option<NonZeroUsize>,
}

impl Default for Fields {
    fn default() -> Self {
        let Sampling { temperature, top_k, top_p, lenience, deferral, fallback, max_draft } = Sampling::default();
        Self { temperature, top_k, top_p, lenience, deferral, fallback, max_draft }
    }
}

impl TryFrom<Fields> for Sampling {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        let policy = Self::new(fields.temperature)?.with_top_p(fields.top_p)?.with_lenience(fields.lenience)?;
        let Fields { top_k, deferral, fallback, max_draft, .. } = fields;
        Ok(Self { top_k, deferral, fallback, max_draft, ..policy })
    }
}

/// Temperature 1, the whole distribution, at most 5 drafts.
impl Default for Sampling {
    fn default() -> Self {
        let max_draft = NonZeroUsize::new(5);
        Self { temperature: 1.0, top_k: None, top_p: 1.0, lenience: 1.0, deferral: None, fallback: None, max_draft }
    }
}

fn checked(name: &'static str, value: f32, holds: bool, expected: &'static str) -> Result<f32> {
    if holds { Ok(value) } else { Err(Error::Setting { name, found: value.to_string(), expected }) }
}

impl Sampling {
    /// Sampling at a temperature, of the whole distribution, with at most 5 drafts.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `temperature` is negative, infinite or NaN.
    pub fn new(temperature: f32) -> Result<Self> {
        let holds = temperature >= 0.0 && temperature.is_finite();
        let temperature = checked("the temperature", temperature, holds, "a number, at least 0")?;
        Ok(Self { temperature, ..Self::default() })
    }

    /// Keeps the `k` most likely tokens only, and equals of the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `k` is 0.
    pub fn with_top_k(mut self, k: usize) -> Result<Self> {
        let error = || Error::Setting { name: "top_k", found: "0".into(), expected: "at least 1" };
        self.top_k = Some(k.try_into().map_err(|_| error())?);
        Ok(self)
    }

    /// Keeps the fewest tokens only that together have the probability `p`.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `p` is not in (0, 1].
    pub fn with_top_p(mut self, p: f32) -> Result<Self> {
        self.top_p = checked("top_p", p, p > 0.0 && p <= 1.0, "a probability in (0, 1]")?;
        Ok(self)
    }

    /// **Lossy below 1**: lets a draft stand with the probability min(1, p / (lenience · q)), so more of them do, and the output is
    /// no longer distributed as the verifier's (Leviathan et al., appendix A.5).
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `lenience` is not in (0, 1].
    pub fn with_lenience(mut self, lenience: f32) -> Result<Self> {
        self.lenience = checked("lenience", lenience, lenience > 0.0 && lenience <= 1.0, "a number in (0, 1]")?;
        Ok(self)
    }

    /// **Lossy**: sets by which rule the draft model writes instead of the verifier.
    pub fn with_deferral(mut self, rule: impl Into<Option<Deferral>>) -> Self {
        self.deferral = rule.into();
        self
    }

    /// Sets the probability of the most likely token below which the draft model hands over, in [0, 1].
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if it is outside that range or NaN.
    pub fn with_fallback(mut self, alpha: f32) -> Result<Self> {
        self.fallback = Some(LowProbability::new(alpha)?);
        Ok(self)
    }

    /// Sets the most tokens to draft before the verifier is called, or no limit.
    pub fn with_max_draft(mut self, tokens: impl Into<Option<NonZeroUsize>>) -> Self {
        self.max_draft = tokens.into();
        self
    }

    /// A row's distribution as it is sampled. A row without logits, as of a look-up, is its one token.
    fn shape(&self, row: &Row) -> Distribution {
        match &row.logits {
            Some(logits) if self.temperature > 0.0 => {
                Distribution::of(logits, self.temperature, self.top_k, self.top_p)
            }
            _ => Distribution::point(row.argmax),
        }
    }
}

impl Policy for Sampling {
    fn wants(&self) -> Wants {
        let is_one_token = self.temperature == 0.0 && self.deferral.is_none();
        let want = if is_one_token { Want::default() } else { Want::default().with_logits() };
        Wants { draft: want, verifier: want }
    }

    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(State {
            policy: *self,
            random: Generator::new(of_source(start.seed, start.source)),
            drafts: Vec::new(),
        })
    }
}

struct State {
    policy: Sampling,
    random: Generator,
    /// What each waiting draft was drawn from.
    drafts: Vec<Distribution>,
}

impl PolicyState for State {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        if self.policy.fallback.is_some_and(|rule| rule.falls_back(at, row)) {
            return Draft::FallBack;
        }
        let distribution = self.policy.shape(row);
        let token = distribution.at(self.random.uniform());
        self.drafts.push(distribution);
        let last = self.policy.max_draft.is_some_and(|max| self.drafts.len() >= max.get());
        if last { Draft::KeepLast(token) } else { Draft::Keep(token) }
    }

    fn expected_drafts(&self, at: &Context<'_>) -> usize {
        expected(at, self.policy.max_draft, self.policy.fallback.is_some())
    }

    fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        let lenience = f64::from(self.policy.lenience);
        let mut distributions = std::mem::take(&mut self.drafts).into_iter();
        for (accepted, (draft, row)) in drafts.iter().zip(rows).enumerate() {
            let (p, q) =
                (self.policy.shape(row), distributions.next().unwrap_or_else(|| Distribution::point(draft.token)));
            let deferral = self.policy.deferral.filter(|_| draft.row.logits.is_some());
            if deferral.is_some_and(|rule| !rule.defers(&draft.row, row, p.variation(&q))) {
                continue; // it is drawn from what is to be written
            }
            let least = self.random.uniform() * lenience * q.probability(draft.token);
            if least >= p.probability(draft.token) {
                let next = p.without(&q).at(self.random.uniform());
                return Verdict { accepted, next, then: Then::Draft };
            }
        }
        let next = self.policy.shape(&rows[drafts.len()]).at(self.random.uniform());
        Verdict { accepted: drafts.len(), next, then: Then::Draft }
    }
}
