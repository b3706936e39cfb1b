use std::path::Path;

use bild_core::Token;
use serde_json::Value;

use crate::error::{LoadError, Result};

/// The non-linearity of the feed-forward layers (`feed_forward_proj`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `relu`: wo · relu(wi · x), T5 1.0.
    Relu,
    /// `gated-gelu`: wo · (gelu(wi_0 · x) ⊙ wi_1 · x) with the tanh form of gelu, T5 1.1, FLAN-T5 and mT5.
    GatedGelu,
}

/// The shape of a T5, from a `config.json` as transformers writes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct T5Config {
    /// Tokens that the head scores.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of one attention head; `num_heads · d_kv` need not be `d_model`.
    pub d_kv: usize,
    /// Width inside the feed-forward layers.
    pub d_ff: usize,
    /// Attention heads of every layer.
    pub num_heads: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Buckets of relative positions.
    pub position_buckets: usize,
    /// The distance from which all relative positions share the last bucket.
    pub max_distance: usize,
    /// What is added to the mean square before its root is divided by.
    pub layer_norm_epsilon: f64,
    /// The non-linearity of the feed-forward layers.
    pub activation: Activation,
    /// Whether the head is the embedding where the weights hold both.
    pub tied_head: bool,
    /// Whether the head cannot be the embedding, so that nothing can be decoded unless the weights hold one.
    pub own_head: bool,
    /// Whether hidden states are scaled by d_model^-0.5 before the head.
    pub scaled_head: bool,
    /// The token a decoder starts from.
    pub start: Token,
    /// The tokens that end a sequence.
    pub end: Vec<Token>,
}

const SUPPORTED: &str = "T5 1.0, T5 1.1, FLAN-T5 and mT5 are";

/// A JSON object and the file it came from.
struct Fields<'a> {
    path: &'a Path,
    values: &'a Value,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, expected: impl Into<String>) -> LoadError {
        let found = self.values.get(field).map_or("missing".into(), Value::to_string);
        LoadError::Field { path: self.path.into(), field: field.into(), found, expected: expected.into() }
    }

    /// The value of a field, with null as absent.
    fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }

    fn size(&self, field: &str, default: Option<usize>, least: usize) -> Result<usize> {
        const MOST: usize = 1 << 24;
        let size = match (self.get(field), default) {
            (Some(value), _) => value.as_u64().and_then(|n| usize::try_from(n).ok()),
            (None, default) => default,
        };
        size.filter(|size| (least..=MOST).contains(size))
            .ok_or_else(|| self.wrong(field, format!("a whole number from {least} to {MOST}")))
    }

    fn flag(&self, field: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(field, "true or false"));
        self.get(field).map(flag).transpose()
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(Value::as_str)
    }

    /// One token or a list of them.
    fn tokens(&self, field: &str, vocab_size: usize) -> Result<Option<Vec<Token>>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let token = |value: &Value| {
            let token = value.as_u64().filter(|&token| token < vocab_size as u64);
            token.map(|token| token as Token).ok_or_else(|| self.wrong(field, format!("tokens below {vocab_size}")))
        };
        match value {
            Value::Array(list) => list.iter().map(token).collect::<Result<Vec<_>>>().map(Some),
            single => Ok(Some(vec![token(single)?])),
        }
    }
}

impl T5Config {
    /// How many weights a pass of the decoder reads: six matrices of attention (keys and values of the source are there),
    /// those of the feed-forward layers, and the head.
    #[cfg(feature = "flex")]
    pub(crate) fn decoder_weights(&self) -> usize {
        let feed_forward = match self.activation {
            Activation::Relu => 2,
            Activation::GatedGelu => 3,
        };
        let layer = 6 * self.num_heads * self.d_kv + feed_forward * self.d_ff;
        self.d_model * (self.decoder_layers * layer + self.vocab_size)
    }

    /// Reads a `config.json` and, if there is one, a `generation_config.json`, whose tokens come first.
    pub(crate) fn from_json(config: (&Path, &Value), generation: Option<(&Path, &Value)>) -> Result<Self> {
        let fields = Fields { path: config.0, values: config.1 };
        check_model(&fields)?;
        let vocab_size = fields.size("vocab_size", None, 1)?;
        let d_model = fields.size("d_model", None, 1)?;
        let encoder_layers = fields.size("num_layers", None, 1)?;
        let position_buckets = fields.size("relative_attention_num_buckets", Some(32), 4)?;
        let max_distance = fields.size("relative_attention_max_distance", Some(128), position_buckets / 2 + 1)?;
        let activation = match fields.text("feed_forward_proj").unwrap_or("relu") {
            "relu" => Activation::Relu,
            "gated-gelu" => Activation::GatedGelu,
            _ => return Err(fields.wrong("feed_forward_proj", "\"relu\" or \"gated-gelu\"")),
        };
        let layer_norm_epsilon = match fields.get("layer_norm_epsilon") {
            None => 1e-6,
            Some(value) => value
                .as_f64()
                .filter(|epsilon| (0.0..1.0).contains(epsilon))
                .ok_or_else(|| fields.wrong("layer_norm_epsilon", "a number in [0, 1)"))?,
        };
        // transformers before 5 scales before a tied head and not before one of its own. From 5 on it always writes
        // `tie_word_embeddings: true` and keeps the scaling apart.
        let tied = fields.flag("tie_word_embeddings")?.unwrap_or(true);
        let scaled = fields.flag("scale_decoder_outputs")?;

        let empty = Value::Null;
        let (path, values) = generation.unwrap_or((config.0, &empty));
        let generation = Fields { path, values };
        let tokens = |field: &str| match generation.tokens(field, vocab_size)? {
            Some(tokens) => Ok::<_, LoadError>(Some(tokens)),
            None => fields.tokens(field, vocab_size),
        };
        let start = match tokens("decoder_start_token_id")? {
            Some(start) => Some(start),
            None => tokens("pad_token_id")?,
        };
        Ok(Self {
            vocab_size,
            d_model,
            d_kv: fields.size("d_kv", None, 1)?,
            d_ff: fields.size("d_ff", None, 1)?,
            num_heads: fields.size("num_heads", None, 1)?,
            encoder_layers,
            decoder_layers: fields.size("num_decoder_layers", Some(encoder_layers), 1)?,
            position_buckets,
            max_distance,
            layer_norm_epsilon,
            activation,
            tied_head: tied && scaled.is_none(),
            own_head: !tied,
            scaled_head: scaled.unwrap_or(tied),
            start: start.and_then(|start| start.first().copied()).unwrap_or(0),
            end: tokens("eos_token_id")?.unwrap_or_else(|| vec![1]),
        })
    }
}

/// Refuses, by name, what is not a T5 that this crate decodes.
fn check_model(fields: &Fields<'_>) -> Result<()> {
    let refused = |model: String| Err(LoadError::Unsupported { path: fields.path.into(), model, supported: SUPPORTED });
    match fields.text("model_type") {
        Some("t5" | "mt5") => {}
        Some(other) => {
            let name = match other {
                "longt5" => "LongT5",
                "umt5" => "UMT5",
                "byt5" => "ByT5",
                "switch_transformers" => "Switch Transformers",
                "bart" => "BART",
                "mbart" => "mBART",
                "marian" => "Marian",
                "pegasus" => "Pegasus",
                "m2m_100" => "M2M-100",
                other => return refused(format!("a model of type \"{other}\"")),
            };
            return refused(name.into());
        }
        None => return Err(fields.wrong("model_type", "\"t5\" or \"mt5\"")),
    }
    if fields.text("tokenizer_class").is_some_and(|class| class.starts_with("ByT5")) {
        return refused("ByT5".into());
    }
    if fields.flag("is_encoder_decoder")? == Some(false) {
        return refused("a T5 without a decoder".into());
    }
    if let Some(Value::Array(architectures)) = fields.get("architectures") {
        let names: Vec<_> = architectures.iter().filter_map(Value::as_str).collect();
        let decodes = |name: &&str| name.contains("ConditionalGeneration") || name.contains("LMHead");
        if !names.is_empty() && !names.iter().any(decodes) {
            return refused(format!("{}, a T5 without a language model head", names.join(" and ")));
        }
    }
    Ok(())
}
