//! What the tensors of a checkpoint are called: which prefix a wrapper left before their names, which of them a T5 reads,
//! and which belong to something else.

use std::collections::BTreeMap;

/// A tensor that every T5 has, once: whatever stands before its name stands before all of the model's.
const ANCHOR: &str = "encoder.final_layer_norm.weight";

/// What PEFT puts into the name of a weight that an adapter is laid over.
const BASE_LAYER: &str = ".base_layer.";

/// The stored name of every tensor by the name it has in a T5 of transformers: without the prefix that a wrapper put before
/// all of them (`module.`, `_orig_mod.`, `base_model.model.`, the name of a field or of a dictionary). What does not begin
/// with it, and is no name of a T5's without it, keeps its name.
///
/// # Errors
///
/// If there are several models in one checkpoint, or two tensors would have one name.
pub(crate) fn by_usual_name<'n>(stored: impl Iterator<Item = &'n str>) -> Result<BTreeMap<String, String>, String> {
    let stored: Vec<&str> = stored.collect();
    let prefixes: Vec<&str> = stored.iter().filter_map(|name| name.strip_suffix(ANCHOR)).collect();
    let prefix = match prefixes[..] {
        _ if prefixes.contains(&"") => "",
        [] => "",
        [prefix] => prefix,
        [one, other, ..] => {
            return Err(format!(
                "it holds the tensors of {} models, among them `{one}{ANCHOR}` and `{other}{ANCHOR}`: save one alone",
                prefixes.len()
            ));
        }
    };
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for name in stored {
        let usual = name.strip_prefix(prefix).unwrap_or(name).replace(BASE_LAYER, ".");
        if let Some(other) = names.insert(usual.clone(), name.to_owned()) {
            return Err(format!("its tensors `{other}` and `{name}` are both a T5's `{usual}`"));
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
pub(crate) fn warnings<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let (adapters, others): (Vec<&str>, Vec<&str>) =
        names.filter(|name| !is_read(name)).partition(|name| is_adapter(name));
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
        warnings.push(format!("{}: no T5 has such", tensors(&others)));
    }
    warnings
}

fn is_adapter(name: &str) -> bool {
    ["lora_", "adapter", "prompt_encoder.", "ia3_", "modules_to_save.", "original_module."]
        .iter()
        .any(|part| name.contains(part))
}

/// Whether a T5 has a tensor of this name, in one of its versions. A layer it does not have is an error elsewhere.
pub(crate) fn is_read(name: &str) -> bool {
    if ["shared.weight", "lm_head.weight"].contains(&name) {
        return true;
    }
    let Some((stack @ ("encoder" | "decoder"), name)) = name.split_once('.') else { return false };
    let Some(block) = name.strip_prefix("block.") else {
        return ["embed_tokens.weight", "final_layer_norm.weight"].contains(&name);
    };
    let parts: Vec<&str> = block.split('.').collect();
    let [_, "layer", layer, rest @ ..] = &parts[..] else { return false };
    let kind = match (stack, *layer) {
        (_, "0") => "SelfAttention",
        ("encoder", "1") | ("decoder", "2") => "DenseReluDense",
        ("decoder", "1") => "EncDecAttention",
        _ => return false,
    };
    match rest {
        ["layer_norm", "weight"] => true,
        [found, part, "weight"] if *found == kind => match kind {
            "DenseReluDense" => ["wi", "wi_0", "wi_1", "wo"].contains(part),
            // That of the first decoder layer's cross-attention is a leftover in T5 1.0, which nobody reads.
            _ => ["q", "k", "v", "o", "relative_attention_bias"].contains(part),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(names: &[&str]) -> Result<Vec<String>, String> {
        by_usual_name(names.iter().copied()).map(|names| names.into_keys().collect())
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
        assert!(twice.unwrap_err().contains("`m.shared.weight` and `shared.weight` are both a T5's `shared.weight`"));
    }

    #[test]
    fn what_nobody_reads_is_counted() {
        let read = [
            "shared.weight",
            "decoder.embed_tokens.weight",
            "decoder.block.11.layer.2.DenseReluDense.wi_1.weight",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.block.3.layer.1.layer_norm.weight",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ];
        assert!(warnings(read.into_iter()).is_empty());
        let unread = [
            "encoder.block.0.layer.0.SelfAttention.q.bias",
            "decoder.block.0.layer.1.SelfAttention.q.weight",
            "classifier.weight",
            "encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight",
            "decoder.block.0.layer.3.layer_norm.weight",
        ];
        let found = warnings(read.into_iter().chain(unread));
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("1 tensor is not read, `encoder.block.0.layer.0.SelfAttention.q.lora_A"));
        assert!(
            found[1]
                .starts_with("4 tensors are not read, the first is `encoder.block.0.layer.0.SelfAttention.q.bias`: no")
        );
    }

    #[test]
    fn parts_of_quantized_weights_are_known() {
        assert_eq!(quantized("encoder.block.0.layer.0.SelfAttention.q.SCB"), Some("bitsandbytes"));
        assert_eq!(quantized("lm_head.weight.quant_state.bitsandbytes__nf4"), Some("bitsandbytes"));
        assert_eq!(quantized("q.qweight"), Some("GPTQ or AWQ"));
        assert_eq!(quantized("shared.weight"), None);
    }
}
