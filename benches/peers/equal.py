#!/usr/bin/env python3
"""How many lines weights of fewer bits leave as they are: greedy outputs of each engine beside those of transformers in f32.

    python benches/peers/equal.py DIRECTORY SOURCES [--prefix TEXT] [--count N]        # set up as for table.py

A source is a line of the file after the prefix, tokenized by the folder's own tokenizer; at most 64 new tokens.
"""
import argparse, json, os, subprocess, sys

from engines import ROOT, ctranslate2_model, llama_model, torch_model

NEW = 64
parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("sources")
parser.add_argument("--prefix", default="")
parser.add_argument("--count", type=int, default=200)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--one", help=argparse.SUPPRESS)


def bild(sources, precision):
    command = [f"{ROOT}/target/release/bild", "translate", "--model", arguments.directory, "--policy", "big", "--ids", "--json", "--file", "-",
               "--max-new-tokens", str(NEW), "--threads", str(arguments.threads), "--precision", precision]
    lines = "".join(" ".join(map(str, source)) + "\n" for source in sources)
    output = subprocess.run(command, input=lines, check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["tokens"] for line in output.strip().split("\n")]


def transformers(sources, precision):
    import torch
    model = torch_model(arguments.directory, arguments.threads, precision)
    with torch.inference_mode():
        outputs = [model.generate(torch.tensor([source]), max_new_tokens=NEW, do_sample=False, num_beams=1)[0, 1:] for source in sources]
    return [output.tolist() for output in outputs]


def ctranslate2(sources, precision):
    translator = ctranslate2_model(arguments.directory, arguments.threads, precision)
    batch = [[str(token) for token in source] for source in sources]
    found = translator.translate_batch(batch, beam_size=1, max_decoding_length=NEW, return_end_token=True, max_input_length=0,
                                       max_batch_size=1)
    return [[int(token) for token in result.hypotheses[0]] for result in found]


def llama(sources, precision):
    encode, step, _ = llama_model(arguments.directory, arguments.threads, precision)
    outputs = []
    for source in sources:
        encode(source)
        output = [step(0)]
        while len(output) < NEW and output[-1] != 1:
            output.append(step(output[-1]))
        outputs.append(output)
    return outputs


ENGINES = {
    "transformers f32": (transformers, "f32"), "bild f32": (bild, "f32"), "CTranslate2 f32": (ctranslate2, "float32"),
    "llama.cpp f32": (llama, "f32"), "bild int8": (bild, "int8"), "CTranslate2 int8": (ctranslate2, "int8"),
    "transformers int8": (transformers, "int8"), "llama.cpp q8_0": (llama, "q8_0"), "bild int4": (bild, "int4"),
    "llama.cpp q4_0": (llama, "q4_0"),
}


def main():
    if arguments.one:
        function, precision = ENGINES[arguments.one]
        print(json.dumps(function(json.load(sys.stdin), precision)), flush=True)
        os._exit(0)  # llama.cpp does not always come back from its destructors
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(arguments.directory)
    lines = [line.rstrip("\n") for line in open(arguments.sources, encoding="utf-8")][: arguments.count]
    sources = [tokenizer(arguments.prefix + line).input_ids for line in lines]
    whole = lambda output: [token for token in output if token > 1]  # some engines leave out the end
    kept = None
    print(f"| engine | lines of {len(sources)} as transformers in f32 writes them |\n|---|---|", flush=True)
    for engine in ENGINES:
        found = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", engine], input=json.dumps(sources),
                               capture_output=True, text=True)
        if found.returncode != 0:
            why = (found.stderr.strip().splitlines() or ["it failed"])[-1]
            if kept is None:
                sys.exit(f"nothing to compare with: {engine}: {why}")
            print(f"| {engine} | {why} |", flush=True)
            continue
        outputs = [whole(output) for output in json.loads(found.stdout.splitlines()[-1])]
        kept = outputs if kept is None else kept
        print(f"| {engine} | {sum(a == b for a, b in zip(outputs, kept, strict=True))} |", flush=True)


if __name__ == "__main__":
    arguments = parser.parse_args()
    main()
