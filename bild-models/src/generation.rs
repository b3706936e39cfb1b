//! What a checkpoint says of generating, and in which of its files.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    checkpoint::{is_there, read_json},
    error::{LoadError, Result},
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
    pub(crate) fn open(directory: &Path, config: (&Path, &Value)) -> Result<Self> {
        let path = directory.join("generation_config.json");
        if is_there(&path) {
            let values = read_json(&path)?;
            if !is_overruled(&values, config.1) {
                return Ok(Self { path, values, own: true });
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

    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.values).map_err(|error| {
            let reason = error.to_string();
            // serde does not say which field it is: the one that alone is an error.
            let is_wrong = |(field, value): &(&String, &Value)| {
                T::deserialize(Value::from_iter([((*field).clone(), (*value).clone())])).is_err()
            };
            let path = self.path.clone();
            match self.values.as_object().and_then(|values| values.iter().find(is_wrong)) {
                Some((field, value)) => LoadError::Field {
                    path,
                    field: field.clone(),
                    found: value.to_string(),
                    expected: reason.rsplit("expected ").next().unwrap_or_default().into(),
                },
                None => LoadError::Broken { path, reason },
            }
        })
    }
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
