//! What a checkpoint says of generating, and in which of its files.

use std::path::{Path, PathBuf};

use bild_core::plain_words;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    error::{LoadError, Result},
    files::Folder,
};

/// `generation_config.json`, or else the fields of `config.json`.
#[derive(Debug)]
pub(crate) struct Generation {
    path: PathBuf,
    values: Value,
    /// Whether there is a file of its own.
    own: bool,
}

impl Generation {
    pub(crate) fn open(folder: &Folder, config: (&Path, &Value)) -> Result<Self> {
        let file = folder.file("generation_config.json");
        if file.exists() {
            let values = file.json()?;
            if !is_overruled(&values, config.1) {
                return Ok(Self { path: file.path().into(), values, own: true });
            }
        }
        let mut values = config.1.clone();
        if let Some(fields) = values.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(Self { path: config.0.into(), values, own: false })
    }

    /// The file of its own, if there is one.
    pub(crate) fn own_file(&self) -> Option<(&Path, &Value)> {
        self.own.then_some((&*self.path, &self.values))
    }

    /// What it says, as a type that refuses what makes no sense to it, of a model of so many tokens.
    pub(crate) fn read<T: DeserializeOwned>(&self, vocab_size: usize) -> Result<T> {
        let read = T::deserialize(&self.values).map_err(|error| {
            let reason = error.to_string();
            // serde does not say which field it is: the one that alone is an error, or that is named first.
            let is_wrong = |(field, value): &(&String, &Value)| {
                T::deserialize(Value::from_iter([((*field).clone(), (*value).clone())])).is_err()
            };
            let named = |(field, _): &(&String, &Value)| reason.starts_with(&format!("`{field}` is "));
            let reason = plain_words(&reason);
            match self.fields().find(is_wrong).or_else(|| self.fields().find(named)) {
                Some((field, value)) => self.wrong(field, value, reason.rsplit("expected ").next().unwrap_or_default()),
                None => LoadError::Broken { path: self.path.clone(), reason },
            }
        })?;
        let written = self.fields().filter(|(field, _)| WRITTEN.contains(&&***field));
        for (field, value) in written {
            if tokens(value).any(|token| !is_token(token, vocab_size)) {
                return Err(self.wrong(
                    field,
                    value,
                    &format!("tokens below {vocab_size}, the size of the vocabulary"),
                ));
            }
        }
        Ok(read)
    }

    /// A sentence about each field that names tokens that no text has: they have no effect.
    pub(crate) fn warnings(&self, vocab_size: usize) -> Vec<String> {
        let file = self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let named = self.fields().filter(|(field, _)| NAMED.contains(&&***field));
        let outside = named.filter_map(|(field, value)| {
            // −1 stands for none in some files.
            let token = tokens(value).find(|&token| token != -1 && !is_token(token, vocab_size))?;
            Some((field, token))
        });
        outside
            .map(|(field, token)| {
                format!(
                    "{file}: `{field}` names the token {token}, which has no effect: expected tokens below {vocab_size}, \
                     the size of the vocabulary"
                )
            })
            .collect()
    }

    fn fields(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.values.as_object().into_iter().flatten()
    }

    fn wrong(&self, field: &str, found: &Value, expected: &str) -> LoadError {
        let path = self.path.clone();
        LoadError::Field { path, field: field.into(), found: found.to_string(), expected: expected.into() }
    }
}

/// The fields whose tokens are written or looked for: transformers fails where one is not of the vocabulary.
const WRITTEN: [&str; 4] = ["forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "sequence_bias"];

/// The fields whose tokens are only compared: transformers goes on where one is not of the vocabulary.
const NAMED: [&str; 4] = ["eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"];

/// The whole numbers of a token, of lists of them, and of a bias of such lists, whose other numbers are not tokens.
fn tokens(value: &Value) -> Box<dyn Iterator<Item = i64> + '_> {
    match value.as_array() {
        Some(pair) if matches!(&pair[..], [Value::Array(_), Value::Number(_)]) => tokens(&pair[0]),
        Some(list) => Box::new(list.iter().flat_map(tokens)),
        None => Box::new(value.as_i64().into_iter()),
    }
}

fn is_token(token: i64, vocab_size: usize) -> bool {
    usize::try_from(token).is_ok_and(|token| token < vocab_size)
}

/// Whether a `generation_config.json` only repeats what `config.json` said once, and that says something else by now: before
/// version 5, transformers then takes `config.json`.
fn is_overruled(generation: &Value, config: &Value) -> bool {
    let version = generation.get("transformers_version").and_then(Value::as_str).unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if generation.get("_from_model_config") != Some(&Value::Bool(true)) || major.is_some_and(|major| major >= 5) {
        return false;
    }
    let defaults = json!({
        "max_length": 20, "min_length": 0, "do_sample": false, "early_stopping": false, "num_beams": 1, "temperature": 1.0,
        "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
        "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": null, "num_return_sequences": 1,
        "output_scores": false, "return_dict_in_generate": false, "forced_bos_token_id": null, "forced_eos_token_id": null,
        "remove_invalid_values": false, "exponential_decay_length_penalty": null, "suppress_tokens": null,
        "begin_suppress_tokens": null, "num_beam_groups": 1, "diversity_penalty": 0.0
    });
    let says = |(field, default): (&String, &Value)| match config.get(field) {
        None | Some(Value::Null) => false,
        // 1 and 1.0 are the same.
        Some(value) => value != default && (value.as_f64().is_none() || value.as_f64() != default.as_f64()),
    };
    defaults.as_object().is_some_and(|defaults| defaults.iter().any(says))
}
