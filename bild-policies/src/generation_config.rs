use std::time::Duration;

use bild_core::{Error, Result, Settings, Token};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::{Sampling, processors};

/// What a checkpoint says of generating: the fields of transformers' `generation_config.json` that change what is written.
///
/// It becomes [`Settings`] ([`settings`](Self::settings)) and, where it asks to sample, a policy
/// ([`sampling`](Self::sampling)); what it asks for and is not done is named by [`warnings`](Self::warnings). Where a decoder
/// starts and what ends a sequence is not among it: a model knows that.
///
/// ```
/// use bild_core::Settings;
/// use bild_policies::GenerationConfig;
///
/// let json = r#"{"max_new_tokens":60,"no_repeat_ngram_size":3,"num_beams":4,"transformers_version":"4.57.6"}"#;
/// let generation: GenerationConfig = serde_json::from_str(json)?;
/// let settings = generation.settings(Settings::default())?;
/// assert_eq!((settings.max_new_tokens, settings.processors.len()), (60, 1));
/// assert_eq!(generation.warnings(), ["`num_beams` is 4, but there is no beam search: one text is written, greedily"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
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
    penalty_alpha: Option<f32>,
    dola_layers: Option<IgnoredAny>,
    guidance_scale: Option<f32>,
    watermarking_config: Option<IgnoredAny>,
    token_healing: Option<bool>,
    min_p: Option<f32>,
    top_h: Option<f32>,
    typical_p: Option<f32>,
    epsilon_cutoff: Option<f32>,
    eta_cutoff: Option<f32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
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

impl GenerationConfig {
    /// These settings with what the checkpoint says of lengths and time in place of their own, and its processors after those
    /// there are, in the order of transformers. What it does not say stays as it is; change afterwards what you want otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if a value makes no sense.
    pub fn settings(&self, mut settings: Settings) -> Result<Settings> {
        if let Some(tokens) = self.new_tokens() {
            settings.max_new_tokens = tokens;
        }
        if let Some(seconds) = self.max_time {
            let error = |_| Error::Setting { name: "max_time", found: seconds.to_string(), expected: "seconds" };
            settings.deadline = Some(Duration::try_from_secs_f64(seconds).map_err(error)?);
        }
        self.with_processors(settings)
    }

    fn with_processors(&self, mut settings: Settings) -> Result<Settings> {
        if let Some(bias) = self.sequence_bias.clone() {
            settings = settings.with_processor(processors::SequenceBias(bias));
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
                settings = settings.with_processor(processors::SequenceBias(longer.into_iter().map(never).collect()));
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
        let temperature = self.temperature.unwrap_or(1.0);
        if temperature <= 0.0 {
            let (found, expected) = (temperature.to_string(), "a number above 0 where `do_sample` is true");
            return Err(Error::Setting { name: "the temperature", found, expected });
        }
        let sampling = Sampling::new(temperature)?.top_p(self.top_p.unwrap_or(1.0).min(1.0))?;
        // From transformers 5 on null is the default.
        let default = if self.top_k.is_none() || self.is_of_5() { 50 } else { 0 };
        Ok(Some(match self.top_k.flatten().unwrap_or(default) {
            0 => sampling,
            k => sampling.top_k(k)?,
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
        let mut ignored = |field: &str, asked: bool| {
            if asked {
                warnings.push(format!("`{field}` is not done here: text is written without it"));
            }
        };
        ignored("constraints", self.constraints.is_some());
        ignored("force_words_ids", self.force_words_ids.is_some());
        ignored("dola_layers", self.dola_layers.is_some());
        ignored("guidance_scale", self.guidance_scale.is_some_and(|scale| scale != 1.0));
        ignored("watermarking_config", self.watermarking_config.is_some());
        ignored("token_healing", self.token_healing == Some(true));
        let cut = |value: Option<f32>| samples && value.is_some_and(|value| value > 0.0 && value < 1.0);
        ignored("min_p", samples && self.min_p.is_some_and(|p| p > 0.0));
        ignored("top_h", samples && self.top_h.is_some());
        ignored("typical_p", cut(self.typical_p));
        ignored("epsilon_cutoff", cut(self.epsilon_cutoff));
        ignored("eta_cutoff", cut(self.eta_cutoff));
        warnings
    }
}

/// Those that are tokens: −1 stands for none in some files.
fn suppressed(tokens: &[i64]) -> Vec<Token> {
    tokens.iter().filter_map(|&token| Token::try_from(token).ok()).collect()
}
