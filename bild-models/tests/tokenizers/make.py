"""Records how transformers cuts and writes odd texts, for tests/tokenizers.rs: `python make.py [compare]` beside this file.

`spiece.json` is of the slow T5Tokenizer, so it needs transformers 4 (recorded with 4.57.6) and sentencepiece.
`json.json` is of the fast tokenizers of the same version; what another version has otherwise, `compare` prints and writes nothing.
"""
import json, os, random, shutil, sys, tempfile
import transformers
from transformers import AutoTokenizer

transformers.logging.set_verbosity_error()
here = os.path.dirname(os.path.abspath(__file__))

TEXTS = """
Tom hat keine Zeit.
Das <extra_id_0> ist <extra_id_1> gut
<extra_id_0>Tom<extra_id_1>
  <extra_id_0>  leading and trailing  
a</s>b
the end </s>
a </s> b <pad> c<unk>d <s> e
Tom <sep> und<sep>Tom <sep>
x [W] y [W]z x[W] y
a <l> b  <l>c <r> d  <r>e
<l><r> <r><l> <sep><l>
<extra_id_4><extra_id_5><extra_id_99><extra_id_100>
tab\there\t and   spaces
ＡＢＣ ﬁne ½ … ™ Straße
😀 é 天气
▁under▁score ▁▁x
don't do n't I 'm it 's . , ! ?
nbsp\u00a0<l>\u00a0thin\u2009<r>\u3000x

   
<eos> Tom<eos>
""".strip("\n").split("\n")

token = lambda content, **kw: dict(dict(content=content, lstrip=False, rstrip=False, single_word=False, normalized=False, special=False), **kw)
added = {"700": token("<sep>"), "701": token("<l>", lstrip=True), "702": token("<r>", rstrip=True), "703": token("[W]", single_word=True, normalized=True)}
sentinels = [f"<extra_id_{i}>" for i in range(100)]
T, S, A = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
SPIECE = {
    "alone": ("sentencepiece", {}),
    "no sentinels": ("sentencepiece", {T: dict(extra_ids=0)}),
    "five sentinels": ("sentencepiece", {T: dict(extra_ids=5, additional_special_tokens=None)}),
    "added_tokens.json": ("sentencepiece", {A: {"<sep>": 700, "<l>": 701}}),
    "special by special_tokens_map.json": ("sentencepiece", {S: dict(additional_special_tokens=sentinels + ["<sep>"], eos_token=dict(token("</s>"), lstrip=True)), A: {"<sep>": 700, "<l>": 701}}),
    "flags": ("sentencepiece", {T: dict(added_tokens_decoder={**added, "702": token("<r>", rstrip=True, special=True)}, additional_special_tokens=sentinels + ["<r>"])}),
    "flags, not legacy": ("sentencepiece", {T: dict(added_tokens_decoder=added, legacy=False)}),
    "not legacy": ("sentencepiece", {T: dict(legacy=False)}),
    "not legacy, no prefix": ("sentencepiece", {T: dict(legacy=False, add_prefix_space=False)}),
    "special tokens are text": ("sentencepiece", {T: dict(split_special_tokens=True)}),
    "clean-up": ("sentencepiece", {T: dict(clean_up_tokenization_spaces=True)}),
    "clean-up and flags": ("sentencepiece", {T: dict(clean_up_tokenization_spaces=True, added_tokens_decoder=added)}),
    "additional without sentinels": ("sentencepiece", {T: dict(additional_special_tokens=["<sep>"])}),
    "another end": ("sentencepiece", {T: dict(eos_token="<eos>", added_tokens_decoder={"5": token("<eos>", special=True)})}),
    "a role of one's own": ("sentencepiece", {T: dict(extra_special_tokens=dict(topic_token="<sep>"), added_tokens_decoder={"700": token("<sep>", special=True)})}),
    "a sentinel's place": ("sentencepiece", {T: dict(added_tokens_decoder={"600": token("<sep>"), "640": token("<extra_id_59>")})}),
    "spaces kept": ("sentencepiece-user", {}),
    "spaces kept, not legacy": ("sentencepiece-user", {T: dict(legacy=False)}),
}


def unigram():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    signs = list("▁abcdefghijklmnopqrstuvwxyzTDWEM[]<>_/0123459.,!?'’")
    words = ["▁Tom", "▁und", "▁do", "▁I", "▁it", "n't", "'m", "'s", "▁a", "▁."]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(s, -4.0) for s in signs] + [(w, -3.0) for w in words] + [("<extra_id_1>", 0.0), ("<extra_id_0>", 0.0)]
    t = Tokenizer(models.Unigram(vocab, unk_id=2))
    t.pre_tokenizer = pre_tokenizers.Metaspace(); t.decoder = decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)])
    return t


def byte_level():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {s: i for i, s in enumerate(["<pad>", "</s>", "<unk>"] + alphabet + ["an", "Ġ" + "d", "er"])}
    t = Tokenizer(models.BPE(vocab, [("a", "n"), ("Ġ", "d"), ("e", "r")], unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False); t.decoder = decoders.ByteLevel()
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)])
    t.add_special_tokens([AddedToken("<pad>"), AddedToken("</s>"), AddedToken("<unk>")])
    return t


BASES = {"unigram": unigram, "byte-level": byte_level}
added_json = {"300": token("<sep>"), "301": token("<l>", lstrip=True), "302": token("<r>", rstrip=True, special=True), "303": token("[W]", single_word=True, normalized=True)}
JSON = {
    "T5's by default": ("unigram", {T: dict(extra_ids=2)}),
    "another class": ("unigram", {T: dict(tokenizer_class="PreTrainedTokenizerFast")}),
    "another class, named": ("unigram", {T: dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="</s>"), S: dict(pad_token="<pad>", additional_special_tokens=["<extra_id_0>"])}),
    "named in special_tokens_map.json": ("unigram", {S: dict(additional_special_tokens=["▁Tom", "<extra_id_0>", "<extra_id_1>"]), T: dict(extra_ids=2)}),
    "flags": ("unigram", {T: dict(added_tokens_decoder=added_json, extra_ids=2)}),
    "clean-up": ("unigram", {T: dict(clean_up_tokenization_spaces=True, extra_ids=2)}),
    "special tokens are text": ("unigram", {T: dict(split_special_tokens=True, extra_ids=2, added_tokens_decoder=added_json)}),
    "byte-level": ("byte-level", {T: dict(tokenizer_class="PreTrainedTokenizerFast")}),
    "byte-level, flags": ("byte-level", {T: dict(tokenizer_class="PreTrainedTokenizerFast", added_tokens_decoder=added_json)}),
    "byte-level, clean-up": ("byte-level", {T: dict(tokenizer_class="PreTrainedTokenizerFast", clean_up_tokenization_spaces=True, clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output=True)}),
}


def record(folder, model, files, fast):
    for name, values in files.items():
        json.dump(values, open(f"{folder}/{name}", "w"))
    json.dump(dict(model_type="t5"), open(f"{folder}/config.json", "w"))
    t = AutoTokenizer.from_pretrained(folder, use_fast=fast)
    lines = []
    for text in TEXTS:
        ids = t(text).input_ids
        lines.append([text, ids, t.decode(ids, skip_special_tokens=True)])
    # Tokens as a random model writes them, signs that are cleaned up among them.
    r = random.Random(len(files) + len(model)); size = len(t)
    signs = [i for i in range(size) if t.convert_ids_to_tokens(i) in ("▁", ".", "?", "'", "n", "t", "s", "▁a", "n't", "▁.")] or [0]
    extra = sorted(i for i in t.added_tokens_decoder if i < size)
    written = []
    for _ in range(12):
        ids = [r.choice(signs) if r.random() < .5 else r.choice(extra) if extra and r.random() < .2 else r.randrange(3, size) for _ in range(14)]
        written.append([ids, t.decode(ids, skip_special_tokens=True)])
    return dict(model=model, files=files, lines=lines, written=written)


def run(cases, fast, put):
    result = {}
    for name, (model, files) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            put(folder, model)
            result[name] = record(folder, model, json.loads(json.dumps(files)), fast)
    return result


spiece = lambda folder, model: shutil.copy(f"{here}/../fixtures/{model}/spiece.model", f"{folder}/spiece.model")
records = {"spiece": run(SPIECE, False, spiece) if transformers.__version__[0] == "4" else {}}
bases = {name: json.loads(make().to_str()) for name, make in BASES.items()}
records["json"] = run(JSON, True, lambda folder, model: json.dump(bases[model], open(f"{folder}/tokenizer.json", "w")))
for kind, cases in records.items():
    path = f"{here}/{kind}.json"
    if "compare" in sys.argv:
        old = json.load(open(path))["cases"]
        for name, case in cases.items():
            for part in "lines", "written":
                for a, b in zip(old[name][part], case[part]):
                    if a != b: print(kind, "|", name, "|", a, "|", b)
    elif cases:
        with open(path, "w") as f:
            f.write('{"bases": ' + json.dumps(bases if kind == "json" else {}, ensure_ascii=False) + ', "cases": {\n')
            f.write(",\n".join(json.dumps(n) + ": " + json.dumps(c, ensure_ascii=False) for n, c in cases.items()) + "\n}}\n")
