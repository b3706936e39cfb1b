use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{CancelToken, Error, LogitsProcessor, Result, Token, Vocabulary, plain_words};

/// What to do with a source over its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// Refuse it: [`Error::SourceTooLong`].
    #[default]
    Error,
    /// Cut it to the limit, keeping a closing end-of-sequence token.
    Truncate,
}

/// The limits of a generation. Start from [`Settings::default`] and change what you need:
///
/// ```
/// use bild::Settings;
///
/// let settings = Settings::default().with_max_new_tokens(64).with_trace(true);
/// assert_eq!(settings.max_source_tokens, 2048);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct Settings {
    /// The most tokens to generate, end-of-sequence included; from 1 to 65,536, 128 by default.
    pub max_new_tokens: usize,
    /// The most tokens a source may have; from 1 to 65,536, 2048 by default.
    pub max_source_tokens: usize,
    /// What happens to a longer source.
    pub overflow: Overflow,
    /// The tokens that end a sequence, in place of the model's own; empty: nothing but a limit ends it.
    pub end_tokens: Option<Vec<Token>>,
    /// Further tokens that end the generation when they are committed.
    pub stop_tokens: Vec<Token>,
    /// How long after its beginning a generation ends, looked at between steps and between the layers of an encoder; in
    /// seconds in JSON.
    #[serde(with = "crate::seconds::optional")]
    pub deadline: Option<Duration>,
    /// Ends the generation from outside, looked at as the deadline is.
    #[serde(skip)]
    pub cancel: Option<CancelToken>,
    /// The seed of a policy that draws random numbers. Of many sources the one at index i has this seed plus i.
    pub seed: u64,
    /// Whether [`Output::events`](crate::Output::events) is kept.
    pub trace: bool,
    /// What changes the logits of both models, in this order.
    #[serde(skip)]
    pub processors: Vec<Arc<dyn LogitsProcessor>>,
}

/// As derived (`remote` makes that a function of the type), with errors in plain words.
impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer).map_err(|error| D::Error::custom(plain_words(error)))
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            max_source_tokens: 2048,
            overflow: Overflow::Error,
            end_tokens: None,
            stop_tokens: Vec::new(),
            deadline: None,
            cancel: None,
            seed: 0,
            trace: false,
            processors: Vec::new(),
        }
    }
}

impl Settings {
    /// Sets the most tokens to generate.
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens;
        self
    }

    /// Sets the most tokens a source may have, and what happens to a longer one.
    pub fn with_max_source_tokens(mut self, tokens: usize, overflow: Overflow) -> Self {
        (self.max_source_tokens, self.overflow) = (tokens, overflow);
        self
    }

    /// Sets the tokens that end a sequence, in place of the model's own.
    pub fn with_end_tokens(mut self, tokens: impl Into<Vec<Token>>) -> Self {
        self.end_tokens = Some(tokens.into());
        self
    }

    /// Sets further tokens that end the generation.
    pub fn with_stop_tokens(mut self, tokens: impl Into<Vec<Token>>) -> Self {
        self.stop_tokens = tokens.into();
        self
    }

    /// Sets how long after its beginning a generation ends.
    pub fn with_deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Sets the token by which a generation is ended from outside.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// Sets the seed of a policy that draws random numbers.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets whether the output keeps its events.
    pub fn with_trace(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Adds a processor of logits after those there are.
    pub fn with_processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.processors.push(Arc::new(processor));
        self
    }

    /// Refuses what makes no sense, or no sense to a model of this vocabulary.
    pub(crate) fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        for (name, tokens) in [("max_new_tokens", self.max_new_tokens), ("max_source_tokens", self.max_source_tokens)] {
            if !(1..=MOST_TOKENS).contains(&tokens) {
                return Err(Error::Setting {
                    name,
                    found: tokens.to_string(),
                    expected: "at least 1 and at most 65536",
                });
            }
        }
        let lists =
            [("end_tokens", self.end_tokens.as_deref().unwrap_or_default()), ("stop_tokens", &self.stop_tokens)];
        for (name, tokens) in lists {
            for &token in tokens {
                vocabulary.check(token, || format!("of the setting `{name}`"))?;
            }
        }
        // Processors see what ends a sequence here.
        let end = self.end_tokens.as_ref().unwrap_or(&vocabulary.end).clone();
        let vocabulary = Vocabulary { end, ..vocabulary.clone() };
        self.processors.iter().try_for_each(|processor| processor.check(&vocabulary))
    }
}

/// The most tokens of a source and of an output; far beyond what a T5 can read or write sensibly.
pub const MOST_TOKENS: usize = 65_536;
