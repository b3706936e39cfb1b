use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What the two models did in one generation. In JSON the durations are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Tokens in the output.
    pub tokens: usize,
    /// Tokens in the output that the verifier wrote; the others are drafts that stood.
    pub verifier_tokens: usize,
    /// Passes of the draft model, those whose token was not kept included.
    pub draft_steps: usize,
    /// Passes of the verifier.
    pub verifier_calls: usize,
    /// Drafts that the verifier judged or that fell with a refused one.
    pub judged: usize,
    /// Of those, the drafts that stood.
    pub accepted: usize,
    /// Times the draft model handed over instead of keeping its token.
    pub fallbacks: usize,
    /// Times drafts were taken back.
    pub rollbacks: usize,
    /// Drafts that were taken back.
    pub rolled_back: usize,
    /// Time to begin: both encoders.
    #[serde(rename = "encode_seconds", with = "crate::seconds")]
    pub encode_time: Duration,
    /// Time in the draft model, its encoder left out.
    #[serde(rename = "draft_seconds", with = "crate::seconds")]
    pub draft_time: Duration,
    /// Time in the verifier, its encoder left out.
    #[serde(rename = "verifier_seconds", with = "crate::seconds")]
    pub verifier_time: Duration,
    /// Time from the beginning to the last event.
    #[serde(rename = "total_seconds", with = "crate::seconds")]
    pub total_time: Duration,
}

impl Statistics {
    /// Tokens committed per verifier call, or `None` if there was no call. 1 is what the big model alone does.
    pub fn block_efficiency(&self) -> Option<f64> {
        ratio(self.tokens, self.verifier_calls)
    }

    /// The share of the tokens that the verifier wrote, or `None` if there are none.
    pub fn verifier_share(&self) -> Option<f64> {
        ratio(self.verifier_tokens, self.tokens)
    }

    /// Fallbacks a token of the output, or `None` if there is none.
    pub fn fallback_rate(&self) -> Option<f64> {
        ratio(self.fallbacks, self.tokens)
    }

    /// Rollbacks a verifier call, or `None` if there was no call.
    pub fn rollback_rate(&self) -> Option<f64> {
        ratio(self.rollbacks, self.verifier_calls)
    }

    /// The share of verified drafts that stood, or `None` if there was no draft to verify.
    pub fn acceptance_rate(&self) -> Option<f64> {
        ratio(self.accepted, self.judged)
    }
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Adds the counts and times of two generations.
impl std::ops::AddAssign<&Statistics> for Statistics {
    fn add_assign(&mut self, other: &Statistics) {
        self.tokens += other.tokens;
        self.verifier_tokens += other.verifier_tokens;
        self.draft_steps += other.draft_steps;
        self.verifier_calls += other.verifier_calls;
        self.judged += other.judged;
        self.accepted += other.accepted;
        self.fallbacks += other.fallbacks;
        self.rollbacks += other.rollbacks;
        self.rolled_back += other.rolled_back;
        self.encode_time += other.encode_time;
        self.draft_time += other.draft_time;
        self.verifier_time += other.verifier_time;
        self.total_time += other.total_time;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let little = self.tokens - self.verifier_tokens;
        write!(
            f,
            "{} token{}: {little} by the little model, {} by the big one in {} pass{}; {} fallback{}, {} rollback{}",
            self.tokens,
            plural(self.tokens),
            self.verifier_tokens,
            self.verifier_calls,
            if self.verifier_calls == 1 { "" } else { "es" },
            self.fallbacks,
            plural(self.fallbacks),
            self.rollbacks,
            plural(self.rollbacks),
        )?;
        match self.rolled_back {
            0 => Ok(()),
            count => write!(f, " of {count} token{}", plural(count)),
        }
    }
}
