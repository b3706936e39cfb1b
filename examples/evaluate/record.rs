//! What was found for each sentence.

use std::iter::Sum;

use bild::Statistics;
use serde::{Deserialize, Serialize};

/// One sentence by one policy, or the sums over many.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) text: String,
    pub(crate) seconds: f64,
    pub(crate) tokens: usize,
    pub(crate) verifier_tokens: usize,
    pub(crate) draft_steps: usize,
    pub(crate) verifier_calls: usize,
    pub(crate) judged: usize,
    pub(crate) accepted: usize,
    pub(crate) fallbacks: usize,
    pub(crate) rollbacks: usize,
}

impl Record {
    pub(crate) fn new(text: String, statistics: &Statistics) -> Self {
        Self {
            text,
            seconds: statistics.total_time.as_secs_f64(),
            tokens: statistics.tokens,
            verifier_tokens: statistics.verifier_tokens,
            draft_steps: statistics.draft_steps,
            verifier_calls: statistics.verifier_calls,
            judged: statistics.judged,
            accepted: statistics.accepted,
            fallbacks: statistics.fallbacks,
            rollbacks: statistics.rollbacks,
        }
    }
}

/// All but the text.
impl<'a> Sum<&'a Record> for Record {
    fn sum<I: Iterator<Item = &'a Record>>(records: I) -> Self {
        records.fold(Self::default(), |sum, record| Self {
            text: String::new(),
            seconds: sum.seconds + record.seconds,
            tokens: sum.tokens + record.tokens,
            verifier_tokens: sum.verifier_tokens + record.verifier_tokens,
            draft_steps: sum.draft_steps + record.draft_steps,
            verifier_calls: sum.verifier_calls + record.verifier_calls,
            judged: sum.judged + record.judged,
            accepted: sum.accepted + record.accepted,
            fallbacks: sum.fallbacks + record.fallbacks,
            rollbacks: sum.rollbacks + record.rollbacks,
        })
    }
}
