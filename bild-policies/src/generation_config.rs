use std::{collections::HashSet, ops::RangeInclusive, time::Duration};

use bild_core::{Error, LogitsProcessor, MOST_TOKENS, Prefix, Result, Settings, Token, Vocabulary};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny},
};

use crate::{Sampling, processors};

/// What a checkpoint says of generating: the fields of transformers' `generation_config.json` that change what is written.
///
/// A value that no generation can mean is refused when it is read, whether it would be used or not.
///
/// It becomes [`Settings`] ([`settings`](Self::settings)) and, where it asks to sample, a policy
/// ([`sampling`](Self::sampling)); what it asks for and is not done is named by [`warnings`](Self::warnings). Where a decoder
/// starts and what ends a sequence is not among it: a model knows that.
///
/// ```
/// use bild::{Settings, policies::GenerationConfig};
///
/// let json = r#"{"max_new_tokens":60,"no_repeat_ngram_size":3,"num_beams":4,"transformers_version":"4.57.6"}"#;
/// let generation: GenerationConfig = serde_json::from_str(json)?;
/// let settings = generation.settings(Settings::default())?;
/// assert_eq!((settings.max_new_tokens, settings.processors.len()), (60, 1));
/// assert_eq!(generation.warnings(), ["`num_beams` is 4, but there is no beam search: one text is written, greedily"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, remote = "Self")]
pub struct GenerationConfig {
    transformers_version: Option<String>,
    max_length: Option<usize>,
    max_new_tokens: Option<usize>,
    min_length: Option<usize>,
    min_new_tokens: Option<usize>,
    max_time: Option<f64>,
    stop_strings: Option<OneOrMany<String>>,

    do_sample: Option<bool>,
    temperature: Option<f32>,
    /// Null is another thing than nothing.
    #[serde(deserialize_with = "present")]
    top_k: Option<Option<usize>>,
    top_p: Option<f32>,

    sequence_bias: Option<Vec<(Vec<Token>, f32)>>,
    encoder_repetition_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    encoder_no_repeat_ngram_size: Option<usize>,
    bad_words_ids: Option<Vec<Vec<Token>>>,
    forced_bos_token_id: Option<Token>,
    forced_eos_token_id: Option<OneOrMany<Token>>,
    exponential_decay_length_penalty: Option<(usize, f32)>,
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,

    // What is named in a warning alone.
    num_beams: Option<usize>,
    num_return_sequences: Option<usize>,
    constraints: Option<IgnoredAny>,
    force_words_ids: Option<IgnoredAny>,
    forced_decoder_ids: Option<IgnoredAny>,
    penalty_alpha: Option<f32>,
    dola_layers: Option<IgnoredAny>,
    guidance_scale: Option<f32>,
    watermarking_config: Option<IgnoredAny>,
    token_healing: Option<bool>,
    remove_invalid_values: Option<bool>,
    min_p: Option<f32>,
    top_h: Option<f32>,
    typical_p: Option<f32>,
    epsilon_cutoff: Option<f32>,
    eta_cutoff: Option<f32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected one or a list of them")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Clone> OneOrMany<T> {
    fn to_vec(&self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// As derived (`remote` makes that a function of the type), with values that are checked.
impl<'de> Deserialize<'de> for GenerationConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl GenerationConfig {
    /// Refuses what no generation can mean: the one place that says what is legal. Whole numbers are at least 0 by their
    /// type.
    fn check(&self) -> Result<()> {
        const ANY: RangeInclusive<f32> = f32::MIN..=f32::MAX;
        const SHARE: RangeInclusive<f32> = 0.0..=1.0;
        let max_length = self.max_length.filter(|_| self.max_new_tokens.is_none());
        let whole_numbers = [
            ("`max_new_tokens`", self.max_new_tokens, 1..=usize::MAX, "a whole number, at least 1"),
            ("`max_length`", max_length, 2..=usize::MAX, "a whole number, at least 2, the start token counted"),
            ("`num_beams`", self.num_beams, 1..=usize::MAX, "a whole number, at least 1"),
            ("`num_return_sequences`", self.num_return_sequences, 1..=usize::MAX, "a whole number, at least 1"),
        ];
        for (name, value, range, expected) in whole_numbers {
            check_range(name, value, &range, expected)?;
        }
        let penalties = (processors::PENALTIES, processors::A_PENALTY);
        let numbers = [
            ("`temperature`", self.temperature, 0.0..=f32::MAX, "a number, at least 0"),
            ("`top_p`", self.top_p, SHARE, "a probability in [0, 1]"),
            ("`repetition_penalty`", self.repetition_penalty, penalties.0.clone(), penalties.1),
            ("`encoder_repetition_penalty`", self.encoder_repetition_penalty, penalties.0, penalties.1),
            ("`penalty_alpha`", self.penalty_alpha, ANY, "a number"),
            ("`guidance_scale`", self.guidance_scale, ANY, "a number"),
            ("`min_p`", self.min_p, SHARE, "a probability in [0, 1]"),
            ("`top_h`", self.top_h, SHARE, "a number in [0, 1]"),
            ("`typical_p`", self.typical_p, SHARE, "a probability in [0, 1]"),
            ("`epsilon_cutoff`", self.epsilon_cutoff, SHARE, "a probability in [0, 1]"),
            ("`eta_cutoff`", self.eta_cutoff, SHARE, "a probability in [0, 1]"),
        ];
        for (name, value, range, expected) in numbers {
            check_range(name, value, &range, expected)?;
        }
        check_range("`max_time`", self.max_time, &(0.0..=1e12), "a number of seconds from 0 to 1e12")?;
        let is_sampled = self.do_sample == Some(true);
        let temperature = self.temperature.filter(|&temperature| is_sampled && temperature == 0.0);
        refuse("`temperature`", temperature, "a number above 0 where `do_sample` is true")?;
        let decay = self.exponential_decay_length_penalty.filter(|(_, factor)| !(*factor > 0.0 && factor.is_finite()));
        let expected = "a list of a whole number and a number above 0";
        refuse("`exponential_decay_length_penalty`", decay.map(|decay| format!("{decay:?}")), expected)?;
        let bias = self.sequence_bias.iter().flatten().find(|(tokens, bias)| tokens.is_empty() || !bias.is_finite());
        let expected = "a list of pairs of a list of at least one token and a number";
        refuse("`sequence_bias`", bias.map(|bias| format!("one with {bias:?}")), expected)?;
        let empty = self.bad_words_ids.iter().flatten().find(|word| word.is_empty());
        let expected = "a list of lists of at least one token";
        refuse("`bad_words_ids`", empty.map(|_| "one with an empty list"), expected)?;
        self.check_forced()
    }

    /// Refuses what forces a token and suppresses it, as transformers 5 does: there would be nothing to write.
    fn check_forced(&self) -> Result<()> {
        let suppressed = suppressed(self.suppress_tokens.as_deref().unwrap_or_default());
        let suppressed: HashSet<Token> = suppressed.into_iter().collect();
        let first = self.forced_bos_token_id.map(|token| vec![token]);
        let last = self.forced_eos_token_id.as_ref().map(OneOrMany::to_vec);
        for (name, tokens) in [("`forced_bos_token_id`", first), ("`forced_eos_token_id`", last)] {
            let all = |tokens: &Vec<Token>| !tokens.is_empty() && tokens.iter().all(|token| suppressed.contains(token));
            let expected = "a token that `suppress_tokens` does not name";
            refuse(name, tokens.filter(all).map(|tokens| format!("{tokens:?}")), expected)?;
        }
        Ok(())
    }

    /// These settings with what the checkpoint says of lengths and time in place of their own, and its processors after those
    /// there are, in the order of transformers. What it does not say stays as it is; change afterwards what you want otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if a value makes no sense.
    pub fn settings(&self, mut settings: Settings) -> Result<Settings> {
        if let Some(tokens) = self.new_tokens() {
            settings.max_new_tokens = tokens.min(MOST_TOKENS);
        }
        if let Some(seconds) = self.max_time {
            settings.deadline = Some(Duration::from_secs_f64(seconds));
        }
        self.with_processors(settings)
    }

    fn with_processors(&self, mut settings: Settings) -> Result<Settings> {
        let with_sequences = |settings: Settings, sequences| {
            let bias = processors::SequenceBias(sequences);
            if self.is_of_5() { settings.with_processor(bias) } else { settings.with_processor(AfterStart(bias)) }
        };
        if let Some(biases) = &self.sequence_bias {
            // Of those for the same sequence the last one holds.
            let last = |(i, (sequence, _)): &(usize, &(Vec<Token>, f32))| {
                biases[i + 1..].iter().all(|(later, _)| later != sequence)
            };
            let kept = biases.iter().enumerate().filter(last).map(|(_, bias)| bias.clone());
            settings = with_sequences(settings, kept.collect());
        }
        if let Some(bonus) = self.encoder_repetition_penalty.filter(|&bonus| bonus != 1.0) {
            settings = settings.with_processor(processors::SourceBonus::new(bonus)?);
        }
        if let Some(penalty) = self.repetition_penalty.filter(|&penalty| penalty != 1.0) {
            settings = settings.with_processor(processors::RepetitionPenalty::new(penalty)?);
        }
        if let Some(size) = self.no_repeat_ngram_size.filter(|&size| size > 0) {
            settings = settings.with_processor(processors::NoRepeatNgram::new(size)?);
        }
        if let Some(size) = self.encoder_no_repeat_ngram_size.filter(|&size| size > 0) {
            settings = settings.with_processor(processors::NoSourceNgram::new(size)?);
        }
        if let Some(words) = self.bad_words_ids.clone() {
            // A longer one may well end in end-of-sequence: no text ends after what stands before it.
            let (single, longer): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.len() < 2);
            if !longer.is_empty() {
                let never = |word| (word, f32::NEG_INFINITY);
                settings = with_sequences(settings, longer.into_iter().map(never).collect());
            }
            if !single.is_empty() {
                settings = settings.with_processor(processors::BadWords(single));
            }
        }
        // `min_length` counts the start token; `min_new_tokens` comes before it.
        let least = self.min_new_tokens.or(self.min_length.map(|length| length.saturating_sub(1)));
        if let Some(least) = least.filter(|&least| least > 0) {
            settings = settings.with_processor(processors::MinLength(least));
        }
        if let Some(token) = self.forced_bos_token_id {
            settings = settings.with_processor(processors::ForcedFirst(token));
        }
        if let Some(tokens) = &self.forced_eos_token_id {
            settings = settings.with_processor(processors::ForcedLast(tokens.to_vec()));
        }
        if let Some((after, factor)) = self.exponential_decay_length_penalty {
            settings = settings.with_processor(processors::LengthDecay { after, factor });
        }
        if let Some(tokens) = &self.suppress_tokens {
            settings = settings.with_processor(processors::Suppress(suppressed(tokens)));
        }
        if let Some(tokens) = &self.begin_suppress_tokens {
            let at = usize::from(self.forced_bos_token_id.is_some());
            settings = settings.with_processor(processors::SuppressAt { at, tokens: suppressed(tokens) });
        }
        Ok(settings)
    }

    /// How many tokens are written at most. `max_length` counts the start token, but 20, the default of transformers before 5,
    /// did not mean to there.
    fn new_tokens(&self) -> Option<usize> {
        let of_length = |length: usize| {
            let default = length == 20 && !self.is_of_5();
            if default { length } else { length.saturating_sub(1) }
        };
        self.max_new_tokens.or(self.max_length.map(of_length))
    }

    /// Whether a transformers 5 or later wrote it.
    fn is_of_5(&self) -> bool {
        let version = self.transformers_version.as_deref().unwrap_or_default();
        version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 5)
    }

    /// The policy that it asks for where it asks to sample (`do_sample`): temperature, top-k (50 unless it says otherwise) and
    /// top-p; none if it asks for greedy decoding.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if one of them makes no sense.
    pub fn sampling(&self) -> Result<Option<Sampling>> {
        if self.do_sample != Some(true) {
            return Ok(None);
        }
        // The most likely token stays at a top_p of 0.
        let top_p = self.top_p.unwrap_or(1.0).max(f32::MIN_POSITIVE);
        let sampling = Sampling::new(self.temperature.unwrap_or(1.0))?.with_top_p(top_p)?;
        // From transformers 5 on null is the default.
        let default = if self.top_k.is_none() || self.is_of_5() { 50 } else { 0 };
        Ok(Some(match self.top_k.flatten().unwrap_or(default) {
            0 => sampling,
            k => sampling.with_top_k(k)?,
        }))
    }

    /// Strings that end a text where they are written, for
    /// [`TextGenerator::with_stop_strings`](https://docs.rs/bild-models/latest/bild_models/struct.TextGenerator.html#method.with_stop_strings).
    pub fn stop_strings(&self) -> Vec<String> {
        self.stop_strings.as_ref().map(OneOrMany::to_vec).unwrap_or_default()
    }

    /// What it asks for that changes what is written, and that is not done here: a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let samples = self.do_sample == Some(true);
        if let Some(beams) = self.num_beams.filter(|&beams| beams > 1) {
            let how = if samples { "sampled" } else { "greedily" };
            warnings.push(format!("`num_beams` is {beams}, but there is no beam search: one text is written, {how}"));
        } else if !samples
            && let Some(alpha) = self.penalty_alpha.filter(|&alpha| alpha > 0.0)
            && self.top_k.flatten().unwrap_or(50) > 1
        {
            warnings.push(format!(
                "`penalty_alpha` is {alpha}, but there is no contrastive search: text is written greedily"
            ));
        }
        if let Some(count) = self.num_return_sequences.filter(|&count| count > 1) {
            warnings.push(format!("`num_return_sequences` is {count}, but one text is written for each source"));
        }
        if let Some(tokens) = self.new_tokens().filter(|&tokens| tokens > MOST_TOKENS) {
            let field = if self.max_new_tokens.is_some() { "max_new_tokens" } else { "max_length" };
            warnings.push(format!("`{field}` asks for {tokens} tokens at most, and is cut to {MOST_TOKENS}"));
        }
        let least = match (self.min_new_tokens, self.min_length) {
            (Some(tokens), _) => Some(("min_new_tokens", tokens, tokens)),
            (None, length) => length.map(|length| ("min_length", length, length.saturating_sub(1))),
        };
        let most = self.new_tokens().unwrap_or(Settings::default().max_new_tokens);
        if let Some((field, value, _)) = least.filter(|(_, _, tokens)| *tokens > most) {
            warnings.push(format!(
                "`{field}` is {value}, but at most {most} tokens are written if no other limit is set: no text ends by itself"
            ));
        }
        let mut ignored = |field: &str, asked: bool| {
            if asked {
                warnings.push(format!("`{field}` is not done here: text is written without it"));
            }
        };
        ignored("constraints", self.constraints.is_some());
        ignored("force_words_ids", self.force_words_ids.is_some());
        ignored("forced_decoder_ids", self.forced_decoder_ids.is_some());
        ignored("dola_layers", self.dola_layers.is_some());
        ignored("guidance_scale", self.guidance_scale.is_some_and(|scale| scale != 1.0));
        ignored("watermarking_config", self.watermarking_config.is_some());
        ignored("token_healing", self.token_healing == Some(true));
        // Else it changes nothing: rows that are no numbers are errors.
        let decays = self.exponential_decay_length_penalty.is_some();
        ignored("remove_invalid_values", self.remove_invalid_values == Some(true) && decays);
        let cut = |value: Option<f32>| samples && value.is_some_and(|value| value > 0.0 && value < 1.0);
        ignored("min_p", samples && self.min_p.is_some_and(|p| p > 0.0));
        ignored("top_h", samples && self.top_h.is_some());
        ignored("typical_p", samples && self.typical_p.is_some_and(|p| p < 1.0));
        ignored("epsilon_cutoff", cut(self.epsilon_cutoff));
        ignored("eta_cutoff", cut(self.eta_cutoff));
        warnings
    }
}

/// As version 4 takes sequences of tokens: none begins with the start token.
#[derive(Clone, Debug)]
struct AfterStart(processors::SequenceBias);

impl LogitsProcessor for AfterStart {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        let mut prefix = *prefix;
        prefix.start = Token::MAX; // no token
        self.0.process(&prefix, logits);
    }

    fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        self.0.check(vocabulary)
    }
}

/// Those that are tokens: −1 stands for none in some files.
fn suppressed(tokens: &[i64]) -> Vec<Token> {
    tokens.iter().filter_map(|&token| Token::try_from(token).ok()).collect()
}

fn check_range<T: PartialOrd + ToString>(
    name: &'static str,
    value: Option<T>,
    range: &RangeInclusive<T>,
    expected: &'static str,
) -> Result<()> {
    refuse(name, value.filter(|value| !range.contains(value)), expected)
}

/// Refuses a value, if there is one.
fn refuse(name: &'static str, value: Option<impl ToString>, expected: &'static str) -> Result<()> {
    value.map_or(Ok(()), |value| Err(Error::Setting { name, found: value.to_string(), expected }))
}
