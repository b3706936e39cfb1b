"""Records what transformers makes of config.json and generation_config.json, for tests/differential.rs.

    python make.py WORK PYTHON_4 PYTHON_5

WORK is an empty folder; the others are interpreters with torch, safetensors and transformers 4.57.6 or 5.23.0. Writes
weights.safetensors and records.jsonl beside this file.

Every case is a family of tiny T5s with one thing said otherwise in one of the two files. It is tried as it is written by
hand, saved by either version, and saved again by the other; each of these folders is read and decoded by both versions,
with no option: the checkpoint's own settings. Weights are slices of one set of tensors, so that a record only names them.

A record says which version `follows`: the one that wrote the file (`transformers_version`), 4 for one written by hand,
unless it has `scale_decoder_outputs`, which 4 does not know.
"""
import hashlib, json, os, shutil, subprocess, sys

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = [[10, 11, 12, 13, 1], [40, 3, 3, 7, 22, 9, 31, 1], [25, 14, 50, 1]]
KEPT_SOURCES = 2
# Two tokens this close may change places by rounding: such a source is left out.
MARGIN = 2e-3
OUT = ...  # a field that is left out

COMMON = dict(architectures=["T5ForConditionalGeneration"], model_type="t5", is_encoder_decoder=True, vocab_size=64,
              d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=2, num_heads=3,
              relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
              feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
              decoder_start_token_id=0, tie_word_embeddings=False)
EMBEDDING, HEAD = "shared.weight", "lm_head.weight"
FAMILIES = {
    "t5": (dict(COMMON, feed_forward_proj="relu", tie_word_embeddings=True), {EMBEDDING: EMBEDDING}),
    "t5_1_1": (COMMON, {EMBEDDING: EMBEDDING, HEAD: HEAD}),
    "mt5": (dict(COMMON, model_type="mt5", architectures=["MT5ForConditionalGeneration"]),
            {EMBEDDING: EMBEDDING, HEAD: HEAD}),
    "ul2": (dict(COMMON, feed_forward_proj="gated-silu"), {EMBEDDING: EMBEDDING, HEAD: HEAD}),
    "madlad": (dict(COMMON, pad_token_id=1, eos_token_id=2),
               {"decoder.embed_tokens.weight": EMBEDDING, HEAD: HEAD}),
}
END = [1, 5, 21, 33, 47, 50]  # some of which are written now and then

# Fields of config.json: what else they may be.
FIELDS = dict(
    vocab_size=[OUT, None, 60], d_model=[OUT, None, 12], d_kv=[OUT, None, 5], d_ff=[OUT, None, 20],
    num_layers=[OUT, None, 1], num_decoder_layers=[OUT, None, 3], num_heads=[OUT, None, 4],
    relative_attention_num_buckets=[OUT, None, 8, 31], relative_attention_max_distance=[OUT, None, 20, 64],
    layer_norm_epsilon=[OUT, None, 0.01],
    feed_forward_proj=[OUT, None, "relu", "gelu", "gelu_new", "silu", "swish", "gated-relu", "gated-gelu",
                       "gated-gelu_new", "gated-silu", "foo-relu", "nonsense"],
    dense_act_fn=[None, "relu", "gelu", "gelu_new", "silu", "gelu_pytorch_tanh"], is_gated_act=[None, True, False],
    tie_word_embeddings=[OUT, None, True, False], scale_decoder_outputs=[None, True, False],
    decoder_start_token_id=[OUT, None, 5, [5], [5, 6], -1, 99], bos_token_id=[5], pad_token_id=[OUT, None, 3],
    eos_token_id=[OUT, None, -1, 99, [], [99, 5], END], is_encoder_decoder=[OUT],
    architectures=[OUT, None, ["T5Model"], ["T5FineTuner"], ["T5WithLMHeadModel"]], use_cache=[OUT, False],
    dropout_rate=[OUT, 0.5], classifier_dropout=[0.1], initializer_factor=[2.0], n_positions=[512],
    # Of generating, where there is no generation_config.json.
    max_length=[9, 20, 21], max_new_tokens=[7], repetition_penalty=[None, 1.7], no_repeat_ngram_size=[2],
    bad_words_ids=[[[i] for i in range(30, 50)]], forced_bos_token_id=[9], top_k=[None],
    task_specific_params=[dict(summarization=dict(max_length=4, prefix="summarize: "))],
)
# Several fields of config.json at once.
TOGETHER = dict(
    gelu_gated=dict(dense_act_fn="gelu", is_gated_act=True), relu_gated=dict(dense_act_fn="relu", is_gated_act=True),
    tanh_plain=dict(dense_act_fn="gelu_new", is_gated_act=False),
    said_only_by_two=dict(feed_forward_proj=OUT, dense_act_fn="gelu_new", is_gated_act=True),
    said_thrice=dict(feed_forward_proj="gelu", dense_act_fn="gelu", is_gated_act=True),
    blip=dict(feed_forward_proj="gated-gelu", dense_act_fn="gelu", is_gated_act=True),
    tied_scaled=dict(tie_word_embeddings=True, scale_decoder_outputs=True),
    tied_unscaled=dict(tie_word_embeddings=True, scale_decoder_outputs=False),
    untied_scaled=dict(tie_word_embeddings=False, scale_decoder_outputs=True),
    tie_unsaid_unscaled=dict(tie_word_embeddings=OUT, scale_decoder_outputs=False),
    start_from_bos=dict(decoder_start_token_id=OUT, bos_token_id=5),
    start_null_from_bos=dict(decoder_start_token_id=None, bos_token_id=5),
    start_before_bos=dict(decoder_start_token_id=6, bos_token_id=5),
    other_names=dict(d_model=OUT, hidden_size=16, num_heads=OUT, num_attention_heads=3, num_layers=OUT,
                     num_hidden_layers=2, d_kv=OUT, head_dim=4),
    other_names_first=dict(d_model=8, hidden_size=16, num_heads=1, num_attention_heads=3, num_layers=3,
                           num_hidden_layers=2, d_kv=2, head_dim=4),
    layers_by_other_name=dict(num_layers=OUT, num_decoder_layers=OUT, num_hidden_layers=2),
    layers_by_both_names=dict(num_layers=2, num_decoder_layers=OUT, num_hidden_layers=1),
    of_version_4=dict(transformers_version="4.30.0", tie_word_embeddings=OUT),
    of_version_5=dict(transformers_version="5.0.0", tie_word_embeddings=OUT),
    lengths=dict(min_length=12, eos_token_id=END), lengths_new=dict(min_new_tokens=12, eos_token_id=END),
)
# What is stored for the embedding and the head: stored name to tensor.
STORED = dict(
    head_too={EMBEDDING: EMBEDDING, HEAD: HEAD}, embedding_alone={EMBEDDING: EMBEDDING}, head_alone={HEAD: EMBEDDING},
    same_twice={EMBEDDING: EMBEDDING, HEAD: EMBEDDING}, decoders={"decoder.embed_tokens.weight": EMBEDDING, HEAD: HEAD},
    decoders_alone={"decoder.embed_tokens.weight": EMBEDDING},
    encoders={"encoder.embed_tokens.weight": EMBEDDING, HEAD: HEAD},
    all_names={EMBEDDING: EMBEDDING, "encoder.embed_tokens.weight": EMBEDDING,
               "decoder.embed_tokens.weight": EMBEDDING, HEAD: HEAD},
)
# generation_config.json, to which the family's tokens are added unless they are left out.
GENERATION = dict(
    plain={}, empty=dict(decoder_start_token_id=OUT, eos_token_id=OUT, pad_token_id=OUT),
    start_alone=dict(eos_token_id=OUT, pad_token_id=OUT), no_end=dict(eos_token_id=OUT), end_null=dict(eos_token_id=None),
    ends=dict(eos_token_id=END), end_of_none=dict(eos_token_id=[]), end_outside=dict(eos_token_id=[-1, 99, 21]),
    start_5=dict(decoder_start_token_id=5), starts=dict(decoder_start_token_id=[5]),
    bos=dict(decoder_start_token_id=OUT, bos_token_id=5), bos_null=dict(decoder_start_token_id=None, bos_token_id=5),
    start_and_bos=dict(decoder_start_token_id=6, bos_token_id=5),
    no_start=dict(decoder_start_token_id=OUT), start_outside=dict(decoder_start_token_id=64),
    max_length=dict(max_length=6), max_length_20=dict(max_length=20), max_length_21=dict(max_length=21),
    max_length_1=dict(max_length=1), max_length_null=dict(max_length=None), max_new=dict(max_new_tokens=7),
    max_new_null=dict(max_new_tokens=None), max_both=dict(max_new_tokens=7, max_length=4),
    min_length=dict(min_length=10, eos_token_id=END), min_length_1=dict(min_length=1, eos_token_id=list(range(64))),
    min_length_2=dict(min_length=2, eos_token_id=list(range(1, 60))), min_new=dict(min_new_tokens=10, eos_token_id=END),
    min_both=dict(min_new_tokens=3, min_length=12, eos_token_id=END),
    min_new_0=dict(min_new_tokens=0, min_length=12, eos_token_id=END), min_without_end=dict(min_length=8, eos_token_id=None),
    min_null=dict(min_length=None, min_new_tokens=None, eos_token_id=END),
    repetition=dict(repetition_penalty=1.7), repetition_small=dict(repetition_penalty=0.6),
    repetition_from_9=dict(repetition_penalty=5.0, decoder_start_token_id=9), repetition_null=dict(repetition_penalty=None),
    repetition_0=dict(repetition_penalty=0.0),
    ngram_1=dict(no_repeat_ngram_size=1), ngram_2=dict(no_repeat_ngram_size=2), ngram_3=dict(no_repeat_ngram_size=3),
    ngram_1_from_9=dict(no_repeat_ngram_size=1, decoder_start_token_id=9), ngram_0=dict(no_repeat_ngram_size=0),
    source_ngram_1=dict(encoder_no_repeat_ngram_size=1), source_ngram_2=dict(encoder_no_repeat_ngram_size=2),
    source_penalty=dict(encoder_repetition_penalty=3.0), source_penalty_small=dict(encoder_repetition_penalty=0.5),
    bad_words=dict(bad_words_ids=[[i] for i in range(28, 60)]), bad_pairs=dict(bad_words_ids=[[i, j] for i in range(8, 60, 2) for j in (3, 17, 44)]),
    bad_from_start=dict(bad_words_ids=[[0, i] for i in range(64)]), bad_end=dict(bad_words_ids=[[i] for i in END], eos_token_id=END),
    bad_none=dict(bad_words_ids=None),
    forced_first=dict(forced_bos_token_id=9), forced_first_0=dict(forced_bos_token_id=0),
    forced_last=dict(forced_eos_token_id=1), forced_last_short=dict(forced_eos_token_id=7, max_length=6),
    forced_last_new=dict(forced_eos_token_id=[7, 8], max_new_tokens=5), forced_both=dict(forced_bos_token_id=9, forced_eos_token_id=7, max_new_tokens=2),
    suppress=dict(suppress_tokens=list(range(20, 50))), suppress_none=dict(suppress_tokens=[]), suppress_null=dict(suppress_tokens=None),
    begin=dict(begin_suppress_tokens=list(range(20, 64))), begin_forced=dict(begin_suppress_tokens=list(range(20, 64)), forced_bos_token_id=9),
    decay=dict(exponential_decay_length_penalty=[3, 1.6]), decay_ends=dict(exponential_decay_length_penalty=[0, 1.3], eos_token_id=END),
    bias=dict(sequence_bias=[[[40], -9.0], [[17], 3.5], [[17, 17], -50.0], [[17, 54], 20.0]]),
    renormalized=dict(renormalize_logits=True), invalid=dict(remove_invalid_values=True, suppress_tokens=list(range(30, 40))),
    together=dict(repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=8, bad_words_ids=[[17], [42, 39]], forced_eos_token_id=1,
                  max_length=14, eos_token_id=END, suppress_tokens=[44]),
    not_sampled=dict(do_sample=False, temperature=0.3, top_k=5, top_p=0.5), length_penalty=dict(length_penalty=2.0, early_stopping=False),
    unknown=dict(something_else=3, _from_model_config=True), pad_null=dict(pad_token_id=None),
    sample=dict(do_sample=True), sample_all=dict(do_sample=True, temperature=0.7, top_k=12, top_p=0.9),
    sample_no_k=dict(do_sample=True, top_k=0), sample_k_null=dict(do_sample=True, top_k=None),
    sample_nulls=dict(do_sample=True, temperature=None, top_p=None), sample_p_1=dict(do_sample=True, top_p=1.0, top_k=7),
    beams=dict(num_beams=4), beams_1=dict(num_beams=1), beams_null=dict(num_beams=None),
)
# Fields of both files.
BOTH = dict(
    length_in_config=(dict(max_length=9), {}),
    copied=(dict(max_length=9), dict(_from_model_config=True)),
    copied_defaults=(dict(max_length=20, top_p=1, early_stopping=False), dict(_from_model_config=True, max_length=6)),
    copied_end=(dict(repetition_penalty=1.7, eos_token_id=END), dict(_from_model_config=True, max_length=7)),
    copied_by_5=(dict(max_length=9, transformers_version="5.0.0"), dict(_from_model_config=True, transformers_version="5.0.0")),
    length_20_of_5=(dict(transformers_version="5.0.0"), dict(max_length=20, transformers_version="5.0.0")),
    sample_k_null_of_5=(dict(transformers_version="5.0.0"), dict(do_sample=True, top_k=None, transformers_version="5.0.0")),
)
ALL_OF_GENERATION = ("t5_1_1", "madlad")  # the other families have some
SOME_OF_GENERATION = ("plain", "empty", "ends", "max_length", "min_length", "repetition", "ngram_2", "bad_words",
                      "forced_last", "together", "sample_all", "beams")


def tensors(n=np.random.default_rng(20)):
    """Every tensor, as large as any case needs it."""
    r = lambda *shape, s: (n.standard_normal(shape) * s).astype(np.float32)
    d, inner, ff = 16, 16, 24
    t = {EMBEDDING: r(64, d, s=1.0), HEAD: r(64, d, s=0.5)}
    for stack in ("encoder", "decoder"):
        kinds = ["SelfAttention"] + ["EncDecAttention"] * (stack == "decoder")
        for b in range(3):
            for l, kind in enumerate(kinds):
                p = f"{stack}.block.{b}.layer.{l}"
                for m in "qkv":
                    t[f"{p}.{kind}.{m}.weight"] = r(inner, d, s=0.15 if m == "q" else 0.3)
                t[f"{p}.{kind}.o.weight"] = r(d, inner, s=0.4)
                t[f"{p}.layer_norm.weight"] = 1 + r(d, s=0.1)
            p = f"{stack}.block.{b}.layer.{len(kinds)}"
            for m in ("wi", "wi_0", "wi_1"):
                t[f"{p}.DenseReluDense.{m}.weight"] = r(ff, d, s=0.5)
            t[f"{p}.DenseReluDense.wo.weight"] = r(d, ff, s=0.4)
            t[f"{p}.layer_norm.weight"] = 1 + r(d, s=0.1)
        t[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = r(32, 4, s=1.0)
        t[f"{stack}.final_layer_norm.weight"] = 1 + r(d, s=0.1)
    return t


def sliced(base, config, stored):
    """The tensors of a case: stored name to source and shape."""
    size = lambda field: config[field] if isinstance(config.get(field), int) else COMMON[field]
    d, inner, ff = size("d_model"), size("num_heads") * size("d_kv"), size("d_ff")
    if "hidden_size" in config and config.get("d_model") == 8:  # other_names_first
        d, inner = 16, 12
    layers = dict(encoder=config.get("num_hidden_layers") or size("num_layers"), decoder=size("num_decoder_layers"))
    if "num_decoder_layers" in config and config["num_decoder_layers"] is None:
        layers["decoder"] = size("num_layers")
    gated = str(config.get("feed_forward_proj", "gated" if config["model_type"] == "mt5" else "")).startswith("gated")
    gated = config.get("is_gated_act", gated)
    shape = {EMBEDDING: (size("vocab_size"), d), HEAD: (size("vocab_size"), d)}
    found = {name: (source, shape[source]) for name, source in stored.items()}
    for name, tensor in base.items():
        part = name.split(".")
        if part[1] == "block" and int(part[2]) >= layers[part[0]] or name in (EMBEDDING, HEAD):
            continue
        if part[-2] in ("wi", "wi_0", "wi_1"):
            if (part[-2] != "wi") == bool(gated):
                found[name] = (name, (ff, d))
        else:
            shape = {"o": (d, inner), "wo": (d, ff), "relative_attention_bias":
                     (size("relative_attention_num_buckets"), size("num_heads"))}.get(part[-2], (inner, d))
            found[name] = (name, (d,) if tensor.ndim == 1 else shape)
    return found


def written(fields):
    return {k: v for k, v in fields.items() if v is not OUT}


def write(folder, config, weights, generation=None):
    os.makedirs(folder)
    json.dump(config, open(f"{folder}/config.json", "w"))
    if generation is not None:
        json.dump(generation, open(f"{folder}/generation_config.json", "w"))
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})


def hand(work):
    """Writes every case as it would be written by hand."""
    base = tensors()
    save_file(base, f"{HERE}/weights.safetensors")
    slug = lambda value: "out" if value is OUT else json.dumps(value).replace("/", "")[:24].replace(" ", "").replace('"', "")
    for family, (config, stored) in FAMILIES.items():
        cases = {"base": (config, stored, None)}
        for field, values in FIELDS.items():
            for value in values:
                cases[f"{field}={slug(value)}"] = (dict(config, **{field: value}), stored, None)
        for name, fields in TOGETHER.items():
            cases[name] = (dict(config, **fields), stored, None)
        for name, other in STORED.items():
            for tie in (OUT, None, True, False):
                cases[f"{name},tie={slug(tie)}"] = (dict(config, tie_word_embeddings=tie), other, None)
        for name in GENERATION if family in ALL_OF_GENERATION else SOME_OF_GENERATION:
            tokens = {k: config[k] for k in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
            cases[f"generation:{name}"] = (config, stored, written(dict(tokens, **GENERATION[name])))
        for name, (fields, generation) in BOTH.items():
            tokens = {k: config[k] for k in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
            cases[f"both:{name}"] = (dict(config, **fields), stored, dict(tokens, **generation))
        for name, (config_, stored_, generation) in cases.items():
            config_ = written(config_)
            weights = {k: np.ascontiguousarray(base[s][tuple(slice(n) for n in shape)])
                       for k, (s, shape) in sliced(base, config_, stored_).items()}
            write(f"{work}/hand/{family}/{name}", config_, weights, generation)


def quiet():
    import logging, warnings
    warnings.filterwarnings("ignore")
    import torch, transformers
    transformers.logging.set_verbosity(logging.CRITICAL)
    torch.set_num_threads(1)
    return torch, transformers


def folders(work, form):
    for family in FAMILIES:
        if os.path.isdir(f"{work}/{form}/{family}"):
            for name in sorted(os.listdir(f"{work}/{form}/{family}")):
                yield f"{family}/{name}"


def content(folder):
    """What a folder says, to tell whether another says the same."""
    texts = [open(f"{folder}/{f}").read() if os.path.exists(f"{folder}/{f}") else "" for f in ("config.json", "generation_config.json")]
    return tuple(texts) + (open(f"{folder}/model.safetensors", "rb").read(),)


def resave(work, form, to):
    """Saves every folder of a form again, unless the result says what another one does."""
    torch, transformers = quiet()
    seen = set()
    for case in folders(work, form):
        folder = f"{work}/{to}/{case}"
        try:
            model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                f"{work}/{form}/{case}", dtype=torch.float32, output_loading_info=True)
            if report["missing_keys"] or report["mismatched_keys"]:
                continue
            model.save_pretrained(folder)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if (what := content(folder)) in seen:
            shutil.rmtree(folder)
        seen.add(what)


def decode(work):
    """What this version reads and writes from every folder."""
    torch, transformers = quiet()
    seen = set()
    with open(f"{work}/outcomes.{transformers.__version__[0]}", "w") as out:
        for form in FORMS:
            for case in folders(work, form):
                if (what := content(f"{work}/{form}/{case}")) in seen:
                    continue
                seen.add(what)
                print(json.dumps([form, case, outcome(torch, transformers, f"{work}/{form}/{case}")]), file=out, flush=True)


def outcome(torch, transformers, folder):
    found = {}
    try:
        c = transformers.AutoConfig.from_pretrained(folder)
        found["reads"] = [c.vocab_size, c.d_model, c.d_kv, c.d_ff, c.num_heads, c.num_layers, c.num_decoder_layers,
                          c.relative_attention_num_buckets, c.relative_attention_max_distance, c.layer_norm_epsilon,
                          c.dense_act_fn, bool(c.is_gated_act)]
        model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True)
        if report["missing_keys"] or report["mismatched_keys"]:
            return dict(found, error=f"weights missing: {sorted(report['missing_keys'])[:2]}")
        model.eval()
        settings = model._prepare_generation_config(None)[0]
        if settings.num_beams is not None and settings.num_beams > 1:
            return dict(found, beams=settings.num_beams)
        if settings.do_sample:
            return dict(found, samples=[settings.temperature or 1.0, settings.top_k or None, settings.top_p or 1.0])
        if (what := effective(model, settings)) in KNOWN:
            return dict(found, **KNOWN[what])
        texts = []
        for i, source in enumerate(SOURCES):
            if len(texts) == KEPT_SOURCES:
                break
            ids = torch.tensor([source])
            # The cache of both versions has a place for each layer of the encoder.
            deeper = dict(use_cache=False) if c.num_decoder_layers > c.num_layers else {}
            with torch.no_grad():
                made = model.generate(ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True,
                                      output_scores=True, **deeper)
            tokens = made.sequences[0, 1:].tolist()
            rows = [row[0].double() for row in made.scores]
            assert len(rows) == len(tokens)
            best = [row.topk(2).values for row in rows]
            margin = min(float(two[0] - two[1]) for two in best)
            log_probs = [float(row.log_softmax(0)[token]) for row, token in zip(rows, tokens)]
            if margin > MARGIN and all(np.isfinite(log_probs)):
                texts.append([i, tokens, [float(f"{x:.6g}") for x in log_probs]])
        KNOWN[what] = dict(texts=texts) if texts else dict(close=True)
        return dict(found, **KNOWN[what])
    except Exception as error:
        return dict(found, error=f"{type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}")


KNOWN = {}  # what was written before, by what decides it


def effective(model, settings):
    """Everything that decides what is written: the class, the configurations as they were read, and the weights."""
    names = {"architectures", "dropout_rate", "classifier_dropout", "initializer_factor", "n_positions", "_name_or_path",
             "transformers_version", "task_specific_params", "_from_model_config", "something_else"}
    said = [{k: v for k, v in c.to_dict().items() if k not in names} for c in (model.config, model.generation_config, settings)]
    weights = hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()
    return json.dumps([type(model).__name__, said, weights], sort_keys=True, default=str)


FORMS = ["hand", "4", "5", "4then5", "5then4"]


def follows(config):
    version = str(config.get("transformers_version") or "")
    return "5" if version.startswith("5") or not version and "scale_decoder_outputs" in config else "4"


def collect(work):
    base = load_file(f"{HERE}/weights.safetensors")
    of = {v: {(f, c): o for f, c, o in map(json.loads, open(f"{work}/outcomes.{v}"))} for v in "45"}
    lines, tables, skipped = [], dict(weights={}, outcome={}, config={}, reads={}), 0
    likes = {}  # the first configuration of each form and family, from which others are told by what differs

    def index(kind, value):
        """The number of a value, which is written out where it is first met."""
        text = json.dumps(value, separators=(",", ":"), sort_keys=True)
        if text not in tables[kind]:
            tables[kind][text] = len(tables[kind])
            lines.append(f'{{"{kind}":{text}}}')
        return tables[kind][text]

    for form, case in of["4"]:
        folder, weights = f"{work}/{form}/{case}", {}
        for name, tensor in load_file(f"{folder}/model.safetensors").items():
            near = lambda source: np.array_equal(base[source][tuple(slice(n) for n in tensor.shape)], tensor)
            candidates = [name] * (name in base) + [EMBEDDING, HEAD]
            source = next((s for s in candidates if base[s].ndim == tensor.ndim and near(s)), None)
            weights[name] = list(tensor.shape) if source == name else [source] + list(tensor.shape)
        both = {v: dict(of[v][form, case]) for v in "45"}
        if any(w[0] is None for w in weights.values()) or all("close" in o for o in both.values()):
            skipped += 1
            continue
        config = json.load(open(f"{folder}/config.json"))
        generation = f"{folder}/generation_config.json"
        record = dict(case=f"{form}/{case}", weights=index("weights", weights), follows=follows(config))
        like = likes.setdefault(case.split("/")[0] + form, config)
        change = {k: v for k, v in config.items() if k not in like or like[k] != v}
        record["config"] = index("config", config if like is config else
                                 dict(like=index("config", like), set=change, unset=sorted(like.keys() - config.keys())))
        if os.path.exists(generation):
            record["generation"] = json.load(open(generation))
        record["reads"] = {v: index("reads", both[v].pop("reads", None)) for v in "45"}
        record["outcomes"] = {v: index("outcome", both[v]) for v in "45"}
        lines.append(json.dumps(record, separators=(",", ":")))
    open(f"{HERE}/records.jsonl", "w").write("\n".join([json.dumps(dict(sources=SOURCES))] + lines) + "\n")
    print(f"{sum('case' in json.loads(l) for l in lines)} records, {skipped} left out")


if __name__ == "__main__" and len(sys.argv) > 1:
    if len(sys.argv) == 4:
        work, four, five = sys.argv[1:]
        run = lambda python, *step: subprocess.Popen([python, __file__, work, *step, "step", "step"])
        stage = lambda *runs: [exit(1) for process in runs if process.wait()]
        hand(work)
        stage(run(four, "resave", "hand", "4"), run(five, "resave", "hand", "5"))
        stage(run(four, "resave", "5", "5then4"), run(five, "resave", "4", "4then5"))
        stage(run(four, "decode"), run(five, "decode"))
        collect(work)
    else:
        step, *rest = sys.argv[2:-2]
        globals()[step](sys.argv[1], *rest)
