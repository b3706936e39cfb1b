#!/usr/bin/env python3
"""Writes what the fuzzer begins with, from the checkpoints of the repository: fuzz/seeds.py FOLDER. The first byte of each says which
file it is (targets/files.rs)."""
import glob, json, os, sys, zipfile

KINDS = ["config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "data.pkl",
         "spiece.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "policy", "shortlist"]
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
count = 0


def seed(kind, contents):
    global count
    count += 1
    with open(f"{out}/{count:03}-{kind}", "wb") as file:
        file.write(bytes([KINDS.index(kind)]) + contents)


def files(name):
    for folder in ["models", "bild-models/tests/fixtures"]:
        yield from sorted(glob.glob(f"{root}/{folder}/**/{name}", recursive=True))


for kind in ["config.json", "generation_config.json", "model.safetensors.index.json", "pytorch_model.bin", "spiece.model", "tokenizer_config.json"]:
    for path in files(kind):
        contents = open(path, "rb").read()
        # One long model is enough, and it is the slowest.
        if len(contents) < 1_000_000:
            seed(kind, contents)
for path in files("*.safetensors"):
    with open(path, "rb") as file:
        seed("model.safetensors", file.read(int.from_bytes(file.read(8), "little")))
for path in files("pytorch_model.bin"):
    archive = zipfile.ZipFile(path)
    for name in archive.namelist():
        if name.endswith("data.pkl"):
            seed("data.pkl", archive.read(name))
# A tokenizer.json of few pieces for each kind of normalizer that there is.
for normalizer in [{"type": "Precompiled", "precompiled_charsmap": ""}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
                   {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True}]}]:
    seed("tokenizer.json", json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": normalizer,
        "added_tokens": [{"id": 0, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False,
                  "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0], ["▁a", -3.0], ["n", -3.5], ["wort", -4.0]]},
    }).encode())
seed("added_tokens.json", b'{"<extra>": 300, "neu": 301}')
for policy in ['{"policy":"bild","variant":"paper","fallback":{"probability":0.5},"rollback":{"cross_entropy":2.0},"max_draft":10}',
               '{"policy":"sampling","temperature":0.75,"top_k":50,"top_p":0.875,"lenience":1.0,"fallback":0.5,"max_draft":5}',
               '{"policy":"cost_aware","of":{"policy":"adaptive_length","of":{"policy":"lossless"},"start":1},"prices":{"draft":0.25,"verify":1.0,"verify_draft":0.125}}',
               '{"policy":"target_rollback","of":{"variant":"released","fallback":0.5,"rollback":{"rank":1},"max_draft":10},"rate":0.0,"step":1.0}']:
    seed("policy", policy.encode())
seed("shortlist", b'{"frequent": [3, 7], "beside": {"12": [40, 41]}}')
print(f"{count} inputs in {out}")
