#!/usr/bin/env python3
"""Many texts at once, bild beside other engines on the same checkpoints: tokens a second, encoders included, as a table.

    python benches/peers/batch.py DIRECTORY … > batch.md        # set up as for table.py

64 sources of 64 fixed ids, 64 new tokens each, greedily with end-of-sequence ignored, two threads. Each engine is a process of its own, in
turn, in batches of each size; kjarni, which takes no batches, writes one after the other. Nothing else may run meanwhile.
"""
import argparse, json, os, statistics, subprocess, sys, time

from engines import ROOT, ctranslate2_model, kjarni, source_ids, torch_model

parser = argparse.ArgumentParser()
parser.add_argument("directories", nargs="+", metavar="DIRECTORY")
parser.add_argument("--sources", type=int, default=64)
parser.add_argument("--source", type=int, default=64)
parser.add_argument("--new", type=int, default=64)
parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
parser.add_argument("--runs", type=int, default=2)
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--engines", nargs="+")
parser.add_argument("--one", nargs=3, metavar=("ENGINE", "DIRECTORY", "BATCH"), help=argparse.SUPPRESS)


def bild(directory, batch, precision):
    command = [f"{ROOT}/target/release/bild", "bench", "--model", directory, "--sources", str(arguments.sources),
               "--source-len", str(arguments.source), "--new-tokens", str(arguments.new), "--batch", str(batch),
               "--runs", str(arguments.runs), "--threads", str(arguments.threads), "--precision", precision, "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return statistics.median(found["runs"])


def sources(directory):
    return [source_ids(directory, arguments.source, number) for number in range(arguments.sources)]


def timed(write):
    """The median throughput, after a run that is not timed."""
    seconds = []
    for _ in range(arguments.runs + 1):
        begun = time.perf_counter()
        write()
        seconds.append(time.perf_counter() - begun)
    return arguments.sources * arguments.new / statistics.median(seconds[1:])


def ctranslate2(directory, batch, precision):
    translator = ctranslate2_model(directory, arguments.threads, precision)
    texts = [[str(token) for token in source] for source in sources(directory)]
    new = arguments.new
    return timed(lambda: translator.translate_batch(
        texts, beam_size=1, max_decoding_length=new, min_decoding_length=new, max_batch_size=batch, max_input_length=0,
        return_end_token=True))


def transformers(directory, batch, precision):
    import torch
    model = torch_model(directory, arguments.threads, precision)
    all_sources = torch.tensor(sources(directory))

    def write():
        for first in range(0, arguments.sources, batch):
            encoded = model.get_encoder()(input_ids=all_sources[first:first + batch])
            past, tokens = None, torch.zeros((len(encoded[0]), 1), dtype=torch.long)
            for _ in range(arguments.new):
                step = model(encoder_outputs=encoded, decoder_input_ids=tokens, past_key_values=past, use_cache=True)
                past, tokens = step.past_key_values, step.logits[:, -1].argmax(-1, keepdim=True)

    with torch.inference_mode():
        return timed(write)


def one_by_one(directory, batch, precision):
    found = kjarni(directory, arguments.source, arguments.new, arguments.runs, arguments.threads, precision)
    milliseconds = statistics.median(found["encoder_ms"]) + arguments.new * statistics.median(found["token_ms"])
    return arguments.new / milliseconds * 1e3


ENGINES = {
    "bild f32": (bild, "f32"), "CTranslate2 f32": (ctranslate2, "float32"), "transformers f32": (transformers, "f32"),
    "kjarni f32": (one_by_one, "f32"),
    "bild int8": (bild, "int8"), "CTranslate2 int8": (ctranslate2, "int8"), "transformers int8": (transformers, "int8"),
    "bild int4": (bild, "int4"),
}

if "--one" in sys.argv:
    arguments = parser.parse_args(["-"] + sys.argv[1:])
    engine, directory, batch = arguments.one
    function, precision = ENGINES[engine]
    print(function(directory, int(batch), precision))
    sys.exit()

arguments = parser.parse_args()
options = [f"--{name}={getattr(arguments, name)}" for name in ("sources", "source", "new", "runs", "threads")]
for directory in (path.rstrip("/") for path in arguments.directories):
    found = {}
    for _ in range(arguments.rounds):
        for batch in arguments.batches:
            for engine in arguments.engines or ENGINES:
                if engine.startswith("kjarni") and batch != 1:
                    continue
                command = [sys.executable, os.path.abspath(__file__), *options, "--one", engine, directory, str(batch)]
                output = subprocess.run(command, capture_output=True, text=True)
                if output.returncode != 0:
                    lines = output.stderr.strip().splitlines()
                    print(f"{engine}, {directory}: {lines[-1] if lines else output.returncode}", file=sys.stderr)
                    continue
                found.setdefault((engine, batch), []).append(float(output.stdout.split()[-1]))
                print(f"{directory}, {batch} at once: {engine}: {output.stdout.split()[-1]}", file=sys.stderr, flush=True)
    print(f"\n{os.path.basename(directory)}, tokens a second:\n\n| at once | " + " | ".join(map(str, arguments.batches)) + " |")
    print("|---" * (len(arguments.batches) + 1) + "|")
    for engine in arguments.engines or ENGINES:
        cells = (found.get((engine, batch)) for batch in arguments.batches)
        print(f"| {engine} | " + " | ".join(f"{statistics.median(cell):,.0f}" if cell else "–" for cell in cells) + " |")
