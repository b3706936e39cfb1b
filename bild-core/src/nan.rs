//! Log-probabilities that may be NaN, where a model gave none: `null` in JSON, which has no NaN.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn known(log_prob: f32) -> Option<f32> {
    (!log_prob.is_nan()).then_some(log_prob)
}

pub(crate) fn serialize<S: Serializer>(log_prob: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    known(*log_prob).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

pub(crate) mod all {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(log_probs: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(log_probs.iter().copied().map(known))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let log_probs = Vec::<Option<f32>>::deserialize(deserializer)?;
        Ok(log_probs.into_iter().map(|log_prob| log_prob.unwrap_or(f32::NAN)).collect())
    }
}
