use bild_core::Token;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Activation, Checkpoint, Digest,
    checkpoint::Fields,
    error::{LoadError, Result},
    nn::Buckets,
};

impl Activation {
    /// By the name that transformers gives it.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "relu" => Self::Relu,
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Self::GeluTanh,
            "silu" | "swish" => Self::Silu,
            _ => return None,
        })
    }
}

/// The shape of a T5, from a `config.json` as transformers means it.
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
    /// Whether it gates a second product: wo · (f(wi_0 · x) ⊙ wi_1 · x), or else wo · f(wi · x).
    pub gated: bool,
    /// Where the head is.
    pub head: Head,
    /// Whether hidden states are scaled by d_model^-0.5 before the head.
    pub scaled_head: bool,
    /// The token a decoder starts from.
    pub start: Token,
    /// The tokens that end a sequence; none if nothing but a limit does.
    pub end: Vec<Token>,
}

/// Where the matrix is that scores the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is the embedding, whatever else is stored.
    Embedding,
    /// It is `lm_head.weight`: without one nothing can be decoded.
    Own,
    /// It is `lm_head.weight` where that is stored, or else the embedding.
    Stored,
}

/// What a field is where it is left out, for T5 and for mT5.
struct Defaults {
    vocab_size: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    feed_forward_proj: &'static str,
    /// Whether the head is the embedding. Where it is not, transformers 5 never scales.
    tied: bool,
    start: Option<Token>,
}

const T5: Defaults = Defaults {
    vocab_size: 32128,
    d_ff: 2048,
    num_layers: 6,
    num_heads: 8,
    feed_forward_proj: "relu",
    tied: true,
    start: None,
};

const MT5: Defaults = Defaults {
    vocab_size: 250_112,
    d_ff: 1024,
    num_layers: 8,
    num_heads: 6,
    feed_forward_proj: "gated-gelu",
    tied: false,
    start: Some(0),
};

/// Names that stand for another field, and come before it where both are there.
const ALIASES: [(&str, &str); 4] = [
    ("d_model", "hidden_size"),
    ("num_heads", "num_attention_heads"),
    ("num_layers", "num_hidden_layers"),
    ("d_kv", "head_dim"),
];

const SUPPORTED: &str = "T5 1.0, T5 1.1, FLAN-T5, UL2 and mT5 are";

const ACTIVATIONS: &str = "relu, gelu, gelu_new or silu (or gated-relu … in `feed_forward_proj`)";

/// The field that only a draft decoder on a big model's encoder has.
const SHARED_ENCODER: &str = "bild_shared_encoder";

/// The field that only an early exit has.
const EARLY_EXIT: &str = "bild_early_exit";

/// What it says.
#[derive(Deserialize)]
struct ExitOf {
    /// The digest of the big model.
    big: String,
    /// After how many of its decoder layers the exit is.
    layers: usize,
    /// Of the adapter.
    rank: usize,
}

/// What a draft decoder says.
#[derive(Deserialize)]
struct MadeFrom {
    /// The digest of the big model.
    big: String,
    /// Of which of its decoder layers the draft decoder was made.
    layers: Vec<usize>,
}

/// A size, by its own name or by the other one.
fn size(fields: &Fields<'_>, field: &str, default: usize, least: usize) -> Result<usize> {
    let alias = ALIASES.iter().find(|(name, _)| *name == field).map(|(_, alias)| *alias);
    fields.number(alias.filter(|alias| fields.get(alias).is_some()).unwrap_or(field), default, least)
}

/// Refuses what was made for another big model than that of this digest.
fn check_made_for(fields: &Fields<'_>, what: &str, made_for: &str, digest: Digest) -> Result<()> {
    if made_for == digest.to_string() {
        return Ok(());
    }
    let problem = format!(
        "{what} that was made for another big model: for one whose weights have the digest {made_for}, and this one's have {digest}"
    );
    Err(LoadError::Drafter { path: fields.path.into(), problem })
}

impl T5Config {
    /// Reads a checkpoint's `config.json` and, if there is one, its `generation_config.json`, which alone says then where a
    /// sequence begins and ends.
    ///
    /// # Errors
    ///
    /// If it is of another model than a T5 that can be decoded, or a field makes no sense.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let (fields, generation) = checkpoint.config();
        for (field, problem) in [
            (
                SHARED_ENCODER,
                "a draft decoder that has no encoder of its own: it is loaded beside its big model, by \
                 `SharedEncoder::load` or --shared-encoder",
            ),
            (
                EARLY_EXIT,
                "an early exit that has no layers of its own: it is loaded beside its big model, by `EarlyExit::load` or \
                 --early-exit",
            ),
        ] {
            if fields.get(field).is_some() {
                return Err(LoadError::Drafter { path: fields.path.into(), problem: problem.into() });
            }
        }
        Self::read(&fields, |vocab_size, default| match generation {
            None => Ok((fields.start(vocab_size, default)?, fields.end(vocab_size, &[1])?)),
            Some(generation) => Ok((generation.start(vocab_size, None)?, generation.end(vocab_size, &[])?)),
        })
    }

    /// The shape of a draft decoder that is stored for the big model of this configuration and digest, with all that it shares.
    pub(super) fn of_draft(checkpoint: &Checkpoint, big: &Self, digest: Digest) -> Result<Self> {
        let (fields, _) = checkpoint.config();
        let made_from = fields.get(SHARED_ENCODER).cloned().and_then(|value| serde_json::from_value(value).ok());
        let Some(MadeFrom { big: made_for, layers }) = made_from.filter(|made: &MadeFrom| !made.layers.is_empty())
        else {
            let expected = "the digest of its big model and the layers it was made of, as in \
                            {\"big\": \"0123456789abcdef\", \"layers\": [0]}";
            return Err(fields.wrong(SHARED_ENCODER, expected));
        };
        check_made_for(&fields, "a draft decoder", &made_for, digest)?;
        if let Some(layer) = layers.iter().find(|&&layer| layer >= big.decoder_layers) {
            let all = big.decoder_layers;
            let problem = format!(
                "a draft decoder that was made of layer {layer} of a big model that has {all} decoder layers, from 0"
            );
            return Err(LoadError::Drafter { path: fields.path.into(), problem });
        }
        let own = Self::read(&fields, |_, _| Ok((big.start, big.end.clone())))?;
        for (field, found, expected, why) in [
            ("num_decoder_layers", own.decoder_layers, layers.len(), "the number of layers that it was made of"),
            ("d_model", own.d_model, big.d_model, "that of its big model"),
        ] {
            if found != expected {
                return Err(fields.wrong(field, format!("{expected}, {why}")));
            }
        }
        let Self { vocab_size, encoder_layers, head, scaled_head, .. } = *big;
        Ok(Self { vocab_size, encoder_layers, head, scaled_head, ..own })
    }

    /// After how many decoder layers of the big model of this configuration and digest an early exit is that is stored for it, and
    /// the rank of its adapter.
    pub(super) fn of_exit(checkpoint: &Checkpoint, big: &Self, digest: Digest) -> Result<(usize, usize)> {
        let (fields, _) = checkpoint.config();
        let made_for = fields.get(EARLY_EXIT).cloned().and_then(|value| serde_json::from_value(value).ok());
        let widest = big.d_model;
        let Some(ExitOf { big: made_for, layers, rank }) =
            made_for.filter(|exit: &ExitOf| exit.layers > 0 && (1..=widest).contains(&exit.rank))
        else {
            let expected = format!(
                "the digest of its big model, after how many layers it is, and the rank of its adapter, at most {widest} here, \
                 as in {{\"big\": \"0123456789abcdef\", \"layers\": 1, \"rank\": 64}}"
            );
            return Err(fields.wrong(EARLY_EXIT, expected));
        };
        check_made_for(&fields, "an early exit", &made_for, digest)?;
        Ok((layers, rank))
    }

    /// Reads all but where a sequence begins and ends, which `tokens` says, of a vocabulary and the start token where none is named.
    fn read(
        fields: &Fields<'_>,
        tokens: impl FnOnce(usize, Option<Token>) -> Result<(Token, Vec<Token>)>,
    ) -> Result<Self> {
        let defaults = check_model(fields)?;
        let vocab_size = size(fields, "vocab_size", defaults.vocab_size, 1)?;
        let encoder_layers = size(fields, "num_layers", defaults.num_layers, 1)?;
        // transformers fills the layers of the decoder in before it looks at the other name of `num_layers`.
        let decoder_layers = match fields.get("num_decoder_layers") {
            None | Some(Value::Null) => fields.number("num_layers", defaults.num_layers, 1)?,
            Some(_) => fields.number("num_decoder_layers", 0, 1)?,
        };
        let position_buckets = size(fields, "relative_attention_num_buckets", 32, 4)?;
        let max_distance = size(fields, "relative_attention_max_distance", 128, position_buckets / 2 + 1)?;
        let layer_norm_epsilon = match fields.get("layer_norm_epsilon") {
            None => 1e-6,
            Some(value) => value
                .as_f64()
                .filter(|epsilon| (0.0..1.0).contains(epsilon))
                .ok_or_else(|| fields.wrong("layer_norm_epsilon", "a number in [0, 1)"))?,
        };
        let (activation, gated) = activation(fields, defaults)?;
        let (head, scaled_head) = head(fields, defaults)?;
        let (start, end) = tokens(vocab_size, defaults.start)?;
        Ok(Self {
            vocab_size,
            d_model: size(fields, "d_model", 512, 1)?,
            d_kv: size(fields, "d_kv", 64, 1)?,
            d_ff: size(fields, "d_ff", defaults.d_ff, 1)?,
            num_heads: size(fields, "num_heads", defaults.num_heads, 1)?,
            encoder_layers,
            decoder_layers,
            position_buckets,
            max_distance,
            layer_norm_epsilon,
            activation,
            gated,
            head,
            scaled_head,
            start,
            end,
        })
    }

    /// The bucket of relative positions, of which each has a row of the bias, for a key that stands `ahead` of its query (negative:
    /// behind it). An encoder looks both ways and halves the buckets between them; a decoder looks back alone.
    pub fn position_bucket(&self, ahead: isize, is_encoder: bool) -> usize {
        self.buckets(is_encoder).of(ahead)
    }

    pub(super) fn buckets(&self, is_encoder: bool) -> Buckets {
        Buckets { count: self.position_buckets, max_distance: self.max_distance, bidirectional: is_encoder }
    }
}

/// The non-linearity and whether it gates, which `dense_act_fn` and `is_gated_act` decide where they stand.
fn activation(fields: &Fields<'_>, defaults: &Defaults) -> Result<(Activation, bool)> {
    let projection = match fields.get("feed_forward_proj") {
        None => defaults.feed_forward_proj,
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let (gated, name) = match projection.strip_prefix("gated-") {
        Some(name) => (true, name),
        None => (false, projection),
    };
    if name.is_empty() || name.contains('-') {
        return Err(fields.wrong("feed_forward_proj", ACTIVATIONS));
    }
    let (field, name) = match fields.get("dense_act_fn") {
        Some(value) => ("dense_act_fn", value.as_str().unwrap_or_default()),
        None if projection == "gated-gelu" => ("feed_forward_proj", "gelu_new"),
        None => ("feed_forward_proj", name),
    };
    let activation = Activation::named(name).ok_or_else(|| fields.wrong(field, ACTIVATIONS))?;
    Ok((activation, fields.flag("is_gated_act")?.unwrap_or(gated)))
}

/// Where the head is and whether hidden states are scaled before it, as the version means it that wrote the file: before 5,
/// `tie_word_embeddings` says both. From 5 on it says of a T5 that is not false that it scales, unless
/// `scale_decoder_outputs` does, and a stored head is the head.
fn head(fields: &Fields<'_>, defaults: &Defaults) -> Result<(Head, bool)> {
    let tied = fields.flag("tie_word_embeddings")?;
    let scaled = fields.flag("scale_decoder_outputs")?;
    if fields.is_of_5().unwrap_or(scaled.is_some()) {
        let not_false = fields.get("tie_word_embeddings") != Some(&Value::Bool(false));
        return Ok((Head::Stored, defaults.tied && scaled.unwrap_or(not_false)));
    }
    let tied = tied.unwrap_or(defaults.tied);
    Ok((if tied { Head::Embedding } else { Head::Own }, tied))
}

/// Refuses, by name, what is not a T5 that this crate decodes; returns what its fields are where they are left out.
fn check_model(fields: &Fields<'_>) -> Result<&'static Defaults> {
    let refused = |model: String| Err(LoadError::Unsupported { path: fields.path.into(), model, supported: SUPPORTED });
    let defaults = match fields.text("model_type") {
        Some("t5") => &T5,
        Some("mt5") => &MT5,
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
    };
    if fields.text("tokenizer_class").is_some_and(|class| class.starts_with("ByT5")) {
        return refused("ByT5".into());
    }
    if fields.flag("is_encoder_decoder")? == Some(false) {
        return refused("a T5 without a decoder".into());
    }
    Ok(defaults)
}
