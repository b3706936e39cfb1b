//! What the tensors of a T5 are called.

use crate::checkpoint::Family;

/// Of a T5 whose feed-forward layers gate, or do not.
pub(super) fn family(gated: bool) -> Family {
    let is_read = if gated { is_read::<true> } else { is_read::<false> };
    Family { name: "T5", anchor: "encoder.final_layer_norm.weight", is_read }
}

/// That of a draft decoder, of which nothing else is read.
pub(super) fn draft_family(gated: bool) -> Family {
    Family { anchor: "decoder.final_layer_norm.weight", ..family(gated) }
}

/// That of an early exit: the norm, and the adapter after it.
pub(super) const EXIT_FAMILY: Family =
    Family { name: "T5", anchor: EXIT_NORM, is_read: |name| name == EXIT_NORM || EXIT_ADAPTER.contains(&name) };

/// The norm of an early exit.
pub const EXIT_NORM: &str = "decoder.final_layer_norm.weight";

/// The two matrices of an early exit's adapter, down and up.
pub const EXIT_ADAPTER: [&str; 2] = ["adapter.down.weight", "adapter.up.weight"];

/// Whether a tensor is one that T5 1.0 was stored with and that nobody reads.
pub(super) fn is_leftover(name: &str) -> bool {
    name.ends_with(".EncDecAttention.relative_attention_bias.weight")
}

/// Whether a T5 has a tensor of this name, in one of its versions. A layer it does not have is an error elsewhere.
fn is_read<const GATED: bool>(name: &str) -> bool {
    if ["shared.weight", "lm_head.weight"].contains(&name) {
        return true;
    }
    let Some((stack @ ("encoder" | "decoder"), name)) = name.split_once('.') else { return false };
    let Some(block) = name.strip_prefix("block.") else {
        return ["embed_tokens.weight", "final_layer_norm.weight"].contains(&name);
    };
    let parts: Vec<&str> = block.split('.').collect();
    let [number, "layer", layer, rest @ ..] = &parts[..] else { return false };
    let kind = match (stack, *layer) {
        (_, "0") => "SelfAttention",
        ("encoder", "1") | ("decoder", "2") => "DenseReluDense",
        ("decoder", "1") => "EncDecAttention",
        _ => return false,
    };
    match rest {
        ["layer_norm", "weight"] => true,
        [found, part, "weight"] if *found == kind => match kind {
            "DenseReluDense" if GATED => ["wi_0", "wi_1", "wo"].contains(part),
            "DenseReluDense" => ["wi", "wo"].contains(part),
            // All blocks add that of the first; that of cross-attention is a leftover.
            _ if *part == "relative_attention_bias" => *number == "0",
            _ => ["q", "k", "v", "o"].contains(part),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::warnings;

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
        assert!(warnings(read.into_iter(), family(true)).is_empty());
        let unread = [
            "encoder.block.0.layer.0.SelfAttention.q.bias",
            "decoder.block.0.layer.1.SelfAttention.q.weight",
            "classifier.weight",
            "encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight",
            "decoder.block.0.layer.3.layer_norm.weight",
            "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
            "decoder.block.11.layer.2.DenseReluDense.wi.weight",
        ];
        let found = warnings(read.into_iter().chain(unread), family(true));
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("1 tensor is not read, `encoder.block.0.layer.0.SelfAttention.q.lora_A"));
        assert!(
            found[1]
                .starts_with("6 tensors are not read, the first is `encoder.block.0.layer.0.SelfAttention.q.bias`: no")
        );
        let both = ["wi", "wi_1"].map(|part| format!("encoder.block.0.layer.1.DenseReluDense.{part}.weight"));
        for (gated, unread) in [(true, &both[0]), (false, &both[1])] {
            let found = warnings(both.iter().map(String::as_str), family(gated));
            assert_eq!(found, [format!("1 tensor is not read, `{unread}`: no T5 has such")]);
        }
    }
}
