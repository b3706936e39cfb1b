//! The tensors of a checkpoint by the names that its family has for them: without what a wrapper left before them; which of them
//! are read, and which belong to something else.

use std::{collections::BTreeMap, path::Path};

use super::{Checkpoint, Weights, weights::WeightsFile};
use crate::error::{LoadError, Result};

/// What a family knows of the names of its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// As in "T5".
    pub(crate) name: &'static str,
    /// A tensor that every model of the family has, once: whatever stands before its name stands before all of the model's.
    pub(crate) anchor: &'static str,
    /// Whether the family has a tensor of this name, in one of its versions.
    pub(crate) is_read: fn(&str) -> bool,
}

/// The tensors of a checkpoint for a family.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    weights: Weights,
    family: Family,
    /// The stored name of each.
    names: BTreeMap<String, String>,
}

impl<'a> Tensors<'a> {
    pub(crate) fn of(checkpoint: &'a Checkpoint, family: Family) -> Result<Self> {
        let weights = checkpoint.open_weights()?;
        let names = by_usual_name(weights.tensors.keys().map(String::as_str), family.anchor);
        let broken = |reason| LoadError::Broken { path: weights.file.path().into(), reason };
        Ok(Self { checkpoint, family, names: names.map_err(broken)?, weights })
    }

    /// What has no effect, a sentence each: tensors that the family does not read.
    pub(crate) fn warnings(&self) -> Vec<String> {
        warnings(self.names(), self.family)
    }

    /// The name of every tensor.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The names of those that the family has.
    pub(crate) fn read_names(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| (self.family.is_read)(name))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// The path of the checkpoint's directory.
    pub(crate) fn directory(&self) -> &Path {
        self.checkpoint.directory()
    }

    /// The shape of a tensor, if there is one of that name that can be read.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.names.get(name).and_then(|stored| self.file_of(stored).shape(stored))
    }

    /// The path of the file that holds a tensor, or of the first of all.
    pub(crate) fn path_of(&self, name: &str) -> &Path {
        self.file_of(self.stored(name)).path()
    }

    /// The values of a tensor of this shape, row-major.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stored = self.stored(name);
        self.file_of(stored).read(stored, shape)
    }

    /// The shape of a tensor, and a [sample](WeightsFile::sample) of its values.
    pub(crate) fn sample(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let stored = self.stored(name);
        self.file_of(stored).sample(stored)
    }

    /// Whether two tensors have the same shape and values.
    pub(crate) fn equal(&self, one: &str, other: &str) -> Result<bool> {
        let (one, other) = (self.stored(one), self.stored(other));
        self.file_of(one).equal(one, self.file_of(other), other)
    }

    /// As [`read`](Self::read), in order and in parts of `length` values.
    #[cfg(feature = "flex")]
    pub(crate) fn read_parts(
        &self,
        name: &str,
        shape: &[usize],
        length: usize,
        take: impl FnMut(&[f32]),
    ) -> Result<()> {
        let stored = self.stored(name);
        self.file_of(stored).read_parts(stored, shape, length, take)
    }

    /// The file that holds a tensor, or the first of all.
    fn file_of(&self, stored: &str) -> &WeightsFile {
        &self.weights.files[self.weights.tensors.get(stored).copied().unwrap_or_default()]
    }

    fn stored<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

/// What PEFT puts into the name of a weight that an adapter is laid over.
const BASE_LAYER: &str = ".base_layer.";

/// The stored name of every tensor by the name it has in the family: without the prefix that a wrapper put before
/// all of them (`module.`, `_orig_mod.`, `base_model.model.`, the name of a field or of a dictionary). What does not begin
/// with it keeps its name.
///
/// `anchor` is a tensor that every model of the family has, once: whatever stands before its name stands before all of the
/// model's.
///
/// # Errors
///
/// If there are several models in one checkpoint, or two tensors would have one name.
fn by_usual_name<'n>(stored: impl Iterator<Item = &'n str>, anchor: &str) -> Result<BTreeMap<String, String>, String> {
    let stored: Vec<&str> = stored.collect();
    let prefixes: Vec<&str> = stored.iter().filter_map(|name| name.strip_suffix(anchor)).collect();
    let prefix = match prefixes[..] {
        _ if prefixes.contains(&"") => "",
        [] => "",
        [prefix] => prefix,
        [one, other, ..] => {
            return Err(format!(
                "it holds the tensors of {} models, among them `{one}{anchor}` and `{other}{anchor}`: save one alone",
                prefixes.len()
            ));
        }
    };
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for name in stored {
        let usual = name.strip_prefix(prefix).unwrap_or(name).replace(BASE_LAYER, ".");
        if let Some(other) = names.insert(usual.clone(), name.to_owned()) {
            return Err(format!("its tensors `{other}` and `{name}` are both `{usual}`"));
        }
    }
    Ok(names)
}

/// The endings of tensors that only quantized weights have, and by what they are quantized.
const QUANTIZED: [(&str, &str); 9] = [
    (".SCB", "bitsandbytes"),
    (".weight_format", "bitsandbytes"),
    (".absmax", "bitsandbytes"),
    (".quant_map", "bitsandbytes"),
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".g_idx", "GPTQ"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale", "8 bits or fewer"),
];

/// By what the weight of which a tensor of this name is a part is quantized.
pub(crate) fn quantized(name: &str) -> Option<&'static str> {
    let part_of = |(ending, by): &(&str, &'static str)| name.ends_with(ending).then_some(*by);
    let state = name.contains(".quant_state.").then_some("bitsandbytes");
    state.or_else(|| QUANTIZED.iter().find_map(part_of))
}

/// A sentence about the tensors that nothing reads, one about those of adapters and one about all others.
pub(crate) fn warnings<'n>(names: impl Iterator<Item = &'n str>, family: Family) -> Vec<String> {
    let (adapters, others): (Vec<&str>, Vec<&str>) =
        names.filter(|name| !(family.is_read)(name)).partition(|name| is_adapter(name));
    let tensors = |names: &[&str]| match names {
        [one] => format!("1 tensor is not read, `{one}`"),
        names => format!("{} tensors are not read, the first is `{}`", names.len(), names[0]),
    };
    let mut warnings = Vec::new();
    if !adapters.is_empty() {
        warnings.push(format!(
            "{}: an adapter (LoRA) that is not merged; what is decoded is the model without it (PEFT's \
             `merge_and_unload` merges it)",
            tensors(&adapters)
        ));
    }
    if !others.is_empty() {
        warnings.push(format!("{}: no {} has such", tensors(&others), family.name));
    }
    warnings
}

fn is_adapter(name: &str) -> bool {
    ["lora_", "adapter", "prompt_encoder.", "ia3_", "modules_to_save.", "original_module."]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(names: &[&str]) -> Result<Vec<String>, String> {
        by_usual_name(names.iter().copied(), "encoder.final_layer_norm.weight").map(|names| names.into_keys().collect())
    }

    #[test]
    fn a_prefix_before_all_names_goes() {
        let names = ["encoder.final_layer_norm.weight", "lm_head.weight", "shared.weight"];
        for prefix in ["", "module.", "_orig_mod.module.", "base_model.model.", "state_dict.model.", "net.t5."] {
            let stored = names.map(|name| format!("{prefix}{name}"));
            assert_eq!(usual(&stored.each_ref().map(|name| &**name)).unwrap(), names, "{prefix}");
        }
        // A head outside of the wrapped model, a copy beside the model, and no T5 at all.
        let outside = ["lm_head.weight", "transformer.encoder.final_layer_norm.weight", "transformer.shared.weight"];
        assert_eq!(usual(&outside).unwrap(), names);
        let copy = ["ema.encoder.final_layer_norm.weight", "encoder.final_layer_norm.weight"];
        assert_eq!(usual(&copy).unwrap(), copy);
        assert_eq!(usual(&["fc.weight"]).unwrap(), ["fc.weight"]);
        assert_eq!(
            usual(&["q.base_layer.weight", "q.lora_A.default.weight"]).unwrap(),
            ["q.lora_A.default.weight", "q.weight"]
        );

        let two = usual(&["student.encoder.final_layer_norm.weight", "teacher.encoder.final_layer_norm.weight"]);
        assert!(two.unwrap_err().contains("tensors of 2 models, among them `student.encoder"));
        let twice = usual(&["m.encoder.final_layer_norm.weight", "m.shared.weight", "shared.weight"]);
        assert!(twice.unwrap_err().contains("`m.shared.weight` and `shared.weight` are both `shared.weight`"));
    }

    #[test]
    fn parts_of_quantized_weights_are_known() {
        assert_eq!(quantized("encoder.block.0.layer.0.SelfAttention.q.SCB"), Some("bitsandbytes"));
        assert_eq!(quantized("lm_head.weight.quant_state.bitsandbytes__nf4"), Some("bitsandbytes"));
        assert_eq!(quantized("q.qweight"), Some("GPTQ or AWQ"));
        assert_eq!(quantized("shared.weight"), None);
    }
}
