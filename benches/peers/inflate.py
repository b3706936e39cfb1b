#!/usr/bin/env python3
"""Models of a larger shape that write the same text: their cost is the larger shape's, their acceptance that of the trained pair.

    python benches/peers/inflate.py model MODEL OUT SHAPE
    python benches/peers/inflate.py draft DRAFT BIG OUT [--layers N]

`model` makes a T5 wider, deeper or both; SHAPE is small, base or large (of T5 1.1) or five numbers, as 1024,2816,16,64,24:
d_model, d_ff, num_heads, d_kv and the layers of each stack. `draft` makes a draft decoder (`bild translate --shared-encoder`)
as wide as its big model was made, for BIG, the folder of that. With `--layers N` it gets layers of BIG that add nothing until it
has N: with one of three layers and one of these it costs 2 of 24, with seven of these 8 of 24, as one of three does.

New widths and heads are zeros, and new layers add zeros to what goes through them. Norms are scaled, because the mean of squares
that they divide by runs over more entries. Needs numpy and safetensors.
"""
import argparse, json, math, os, re, shutil

import numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

SHAPES = {"small": (512, 1024, 6, 64, 8), "base": (768, 2048, 12, 64, 12), "large": (1024, 2816, 16, 64, 24)}
SIZES = ("d_model", "d_ff", "num_heads", "d_kv")
RUNS, RUN = 8, 32


def sample(values):
    """The values of a tensor or, of a longer one, eight runs of them from its first value to its last."""
    values = values.reshape(-1)
    if len(values) <= RUNS * RUN:
        return values
    begins = [i * (len(values) - RUN) // (RUNS - 1) for i in range(RUNS)]
    return numpy.concatenate([values[begin : begin + RUN] for begin in begins])


def digest(directory):
    """What a draft decoder knows its big model by: FNV-1a of 64 bits over the name, the shape and a sample of every tensor. For a
    folder that holds what transformers saves today, in one file."""
    found = 0xCBF29CE484222325
    with safe_open(f"{directory}/model.safetensors", "numpy") as file:
        for name in sorted(file.keys()):
            values = file.get_tensor(name)
            for byte in f"{name} {list(values.shape)}\n".encode() + sample(values).astype("<f4").tobytes():
                found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def configuration(directory):
    with open(f"{directory}/config.json") as file:
        return json.load(file)


def padded(values, shape):
    wide = numpy.zeros(shape, numpy.float32)
    wide[tuple(slice(size) for size in values.shape)] = values
    return wide


def widened(name, values, old, new):
    """A tensor of a model of one configuration in another."""
    width, inner, heads, each = (new[size] for size in SIZES)
    if name.endswith("layer_norm.weight"):
        # Before a head that is the embedding, states are divided by the root of the width: the two scalings cancel.
        scaled = old.get("scale_decoder_outputs", old.get("tie_word_embeddings", old["model_type"] == "t5"))
        cancels = name == "decoder.final_layer_norm.weight" and scaled
        return padded(values if cancels else values * math.sqrt(old["d_model"] / width), [width])
    if name.endswith("relative_attention_bias.weight"):
        return padded(values, [len(values), heads])
    if re.search(r"Attention\.[qkv]\.weight$", name):
        values = values.reshape(old["num_heads"], old["d_kv"], -1)
        return padded(values, [heads, each, width]).reshape(heads * each, width)
    if name.endswith("Attention.o.weight"):
        values = values.reshape(-1, old["num_heads"], old["d_kv"])
        return padded(values, [width, heads, each]).reshape(width, heads * each)
    if name.endswith("DenseReluDense.wo.weight"):
        return padded(values, [width, inner])
    if ".DenseReluDense.wi" in name:
        return padded(values, [inner, width])
    return padded(values, [len(values), width])  # the embedding and the head


def is_output(name):
    return name.endswith((".o.weight", ".wo.weight"))


def inflate_model(model, out, shape):
    *sizes, layers = SHAPES.get(shape) or map(int, shape.split(","))
    old = configuration(model)
    new = old | dict(zip(SIZES, sizes)) | {"num_layers": layers, "num_decoder_layers": layers}
    new["layer_norm_epsilon"] = old.get("layer_norm_epsilon", 1e-6) * old["d_model"] / new["d_model"]
    tensors = {name: widened(name, values, old, new) for name, values in load_file(f"{model}/model.safetensors").items()}
    random = numpy.random.default_rng(0)
    for name, values in list(tensors.items()):
        found = re.fullmatch(r"((?:en|de)coder\.block\.)0\.(.*)", name)
        if not found or "relative_attention_bias" in name:
            continue
        for layer in range(layers):
            added = f"{found[1]}{layer}.{found[2]}"
            if added in tensors:
                continue
            if values.ndim == 1:
                tensors[added] = numpy.ones_like(values)
            elif is_output(name):
                tensors[added] = numpy.zeros_like(values)
            else:
                tensors[added] = random.standard_normal(values.shape, numpy.float32) * numpy.float32(0.02)
    save(out, new, tensors)
    for file in os.listdir(model):
        if file.endswith((".json", "spiece.model")) and file != "config.json":
            shutil.copy(f"{model}/{file}", out)


def inflate_draft(draft, big, out, layers):
    old, new = configuration(draft), configuration(big)
    taken = list(old["bild_shared_encoder"]["layers"])
    tensors = load_file(f"{draft}/model.safetensors")
    tensors = {name: widened(name, values, old, new) for name, values in tensors.items() if name.startswith("decoder.")}
    with safe_open(f"{big}/model.safetensors", "numpy") as file:
        of = lambda layer: [name for name in file.keys() if name.startswith(f"decoder.block.{layer}.")]
        adds = lambda layer: any(file.get_tensor(name).any() for name in of(layer) if is_output(name))
        adding_nothing = (layer for layer in range(new["num_decoder_layers"]) if not adds(layer))
        while len(taken) < layers:
            layer = next(adding_nothing, None)
            if layer is None:
                raise SystemExit(f"{big} has too few layers that add nothing")
            for name in of(layer):
                tensors[name.replace(f".{layer}.", f".{len(taken)}.", 1)] = file.get_tensor(name)
            taken.append(layer)
    made_of = {"big": digest(big), "layers": taken}
    save(out, new | {"num_decoder_layers": len(taken), "bild_shared_encoder": made_of}, tensors)


def save(out, config, tensors):
    os.makedirs(out, exist_ok=True)
    save_file(tensors, f"{out}/model.safetensors", {"format": "pt"})
    with open(f"{out}/config.json", "w") as file:
        json.dump(config, file, indent=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    model = commands.add_parser("model")
    draft = commands.add_parser("draft")
    for command, names in [(model, ("model", "out", "shape")), (draft, ("draft", "big", "out"))]:
        for name in names:
            command.add_argument(name)
    draft.add_argument("--layers", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    if arguments.command == "model":
        inflate_model(arguments.model, arguments.out, arguments.shape)
    else:
        inflate_draft(arguments.draft, arguments.big, arguments.out, arguments.layers)
