#!/usr/bin/env python3
"""What other engines make of a checkpoint, beside its folder: CTranslate2's folders and GGUF files for candle and llama.cpp.

    python benches/peers/convert.py DIRECTORY [DIRECTORY ...]
"""
import json, os, re, sys

TYPES = {"ctranslate2": ["float32", "int8"], "candle": ["q8_0", "q4_0"], "llama": ["f32", "q8_0", "q4_0"]}


def ctranslate2(directory, kind):
    """CTranslate2 wants a tokenizer only to list the vocabulary: this one's tokens are the ids."""
    from ctranslate2.converters import TransformersConverter

    size = json.load(open(f"{directory}/config.json"))["vocab_size"]

    class Ids:
        unk_token, pad_token, eos_token, bos_token = "2", "0", "1", None
        unk_token_id, pad_token_id, eos_token_id = 2, 0, 1

        def get_vocab(self):
            return {str(i): i for i in range(size)}

        def convert_ids_to_tokens(self, ids):
            return str(ids) if isinstance(ids, int) else [str(i) for i in ids]

        def __len__(self):
            return size

    class Converter(TransformersConverter):
        def load_tokenizer(self, *_, **__):
            return Ids()

    quantization = None if kind == "float32" else kind
    Converter(directory).convert(f"{directory}.ctranslate2-{kind}", quantization=quantization, force=True)


def llama_name(name):
    """The name of a tensor in llama.cpp's T5, or nothing if it has none."""
    if name == "shared.weight":
        return "token_embd.weight"
    if name == "lm_head.weight":
        return "output.weight"
    if found := re.fullmatch(r"(encoder|decoder)\.final_layer_norm\.weight", name):
        return f"{found[1][:3]}.output_norm.weight"
    found = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(.+)\.weight", name)
    if not found:
        return None
    stack, block, layer, part = found[1][:3], found[2], int(found[3]), found[4]
    last = 2 if stack == "dec" else 1
    if part == "layer_norm":
        part = "ffn_norm" if layer == last else ["attn_norm", "cross_attn_norm"][layer]
    elif part.endswith("relative_attention_bias"):
        part = "attn_rel_b"
    elif layer == last:
        part = {"wi": "ffn_up", "wi_0": "ffn_gate", "wi_1": "ffn_up", "wo": "ffn_down"}[part.split(".")[1]]
    else:
        part = ("cross_attn_" if part.startswith("EncDec") else "attn_") + part.split(".")[1]
    return f"{stack}.blk.{block}.{part}.weight"


def gguf(directory, kind, flavour):
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.load(open(f"{directory}/config.json"))
    writer = gguf.GGUFWriter(f"{directory}.{flavour}-{kind}.gguf", "t5")
    writer.add_name(os.path.basename(directory))
    writer.add_context_length(512)
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_decoder_block_count(config.get("num_decoder_layers") or config["num_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    for name, values in load_file(f"{directory}/model.safetensors").items():
        name = llama_name(name) if flavour == "llama" else name
        if name is None:
            continue
        values = numpy.ascontiguousarray(values, dtype=numpy.float32)
        if kind != "f32" and values.ndim == 2 and "rel" not in name:
            # As llama.cpp's own program keeps embedding and head in more bits than layers; 6 are its choice, which gguf does not write.
            outside = name.split(".")[0] in ("token_embd", "output", "shared", "lm_head")
            quantization = gguf.GGMLQuantizationType["Q8_0" if outside else kind.upper()]
            writer.add_tensor(name, gguf.quants.quantize(values, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for directory in (path.rstrip("/") for path in sys.argv[1:]):
        for kind in TYPES["ctranslate2"]:
            ctranslate2(directory, kind)
        for flavour in ("candle", "llama"):
            for kind in TYPES[flavour]:
                gguf(directory, kind, flavour)
        print(directory, flush=True)
