#!/usr/bin/env python3
"""A pair with BiLD and lossless beside its big model alone, on real sentences, as a table.

    cargo build --release -p bild-cli
    python benches/peers/pair.py --big DIRECTORY --little DIRECTORY --source FILE --reference FILE [--precision int8]
        [--search-big DIRECTORY --search-little DIRECTORY] [--assisted N]

Thresholds are searched first: of those that lose at most one point of BLEU to the big model, the ones whose counted passes
read the fewest bytes (`--search-…`: a cheaper pair that writes the same text). Then the policies run in turn over parts of
the sentences, with natural stopping, both encoders included. `--assisted` also times transformers' assisted generation on
the first N sentences. Nothing else may run meanwhile.
"""
import argparse, itertools, json, os, statistics, subprocess, sys, tempfile, time

import sacrebleu

from engines import numbers_read

BILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/release/bild")
FALLBACKS, ROLLBACKS, PARTS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], [1, 2, 3, 5], 5

parser = argparse.ArgumentParser()
parser.add_argument("--big", required=True)
parser.add_argument("--little", required=True)
parser.add_argument("--search-big")
parser.add_argument("--search-little")
parser.add_argument("--source", required=True)
parser.add_argument("--reference", required=True)
parser.add_argument("--sentences", type=int, default=200)
parser.add_argument("--precision", default="f32", choices=["f32", "int8"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--assisted", type=int, default=0, metavar="N")
arguments = parser.parse_args()

lines = lambda path: [line.rstrip("\n") for line in open(path, encoding="utf-8")][: arguments.sentences]
sources, references = lines(arguments.source), lines(arguments.reference)


def translate(big, little, part, *policy):
    """What is written for some sentences: one object of `bild translate --json` for each."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(part) + "\n")
        file.flush()
        # One by one: what is written together takes its time together.
        command = [BILD, "translate", "--big", big, "--little", little, "--json", "--file", file.name, "--batch", "1",
                   "--precision", arguments.precision, "--threads", str(arguments.threads), *policy]
        begun = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        elapsed = time.perf_counter() - begun
    found = [json.loads(line) for line in output.splitlines()]
    assert total(found, "total_seconds") <= elapsed, "generations overlap"
    return found


def bleu(found):
    return sacrebleu.corpus_bleu([output["text"] for output in found], [references]).score


def total(found, key):
    return sum(output["stats"][key] for output in found)


def pass_bytes(directory):
    """What one pass of the encoder and one of the decoder reads, in f32 (of int8 a quarter: the ratio is the same)."""
    config = json.load(open(f"{directory}/config.json"))
    gated = 3 if config["feed_forward_proj"].startswith("gated") else 2
    layers, heads, width = config["num_layers"], config["num_heads"] * config["d_kv"], config["d_model"]
    decoders = config.get("num_decoder_layers") or layers
    encoder, decoder = numbers_read(layers, decoders, width, heads, gated * config["d_ff"], config["vocab_size"])
    return 4 * encoder, 4 * decoder, width


def counted(found, extra=0):
    """What the passes of some generations read; `extra` words are added to the vocabulary."""
    (big_encoder, big, big_width), (little_encoder, little, little_width) = map(pass_bytes, (arguments.big, arguments.little))
    big, little = big + 4 * big_width * extra, little + 4 * little_width * extra
    drafts = total(found, "draft_steps")
    encoders = big_encoder + (little_encoder if drafts else 0)
    return len(found) * encoders + drafts * little + total(found, "verifier_calls") * big


def search(alone):
    best, floor = None, bleu(alone) - 1
    for fallback, rollback in itertools.product(FALLBACKS, ROLLBACKS):
        policy = ["--policy", "bild", "--fallback", str(fallback), "--rollback", str(rollback)]
        found = translate(*searched, sources, *policy)
        cost, score = counted(found), bleu(found)
        print(f"{fallback} {rollback}: BLEU {score:.2f}, {counted(alone) / cost:.2f} by count", file=sys.stderr, flush=True)
        if score >= floor and (best is None or cost < best[0]):
            best = cost, policy
    if best is None:
        sys.exit("no thresholds lose as little as one point of BLEU")
    return best[1]


searched = (arguments.search_big or arguments.big, arguments.search_little or arguments.little)
policies = {"big alone": ["--policy", "big"], "BiLD": search(translate(*searched, sources, "--policy", "big")),
            "lossless": ["--policy", "lossless", "--fallback", "0.5"]}
found = {name: [] for name in policies}
for part in range(PARTS):
    for name, policy in policies.items():
        share = sources[part * len(sources) // PARTS : (part + 1) * len(sources) // PARTS]
        found[name].append(translate(arguments.big, arguments.little, share, *policy))
        print(f"part {part + 1}: {name}: {total(found[name][-1], 'total_seconds'):.1f} s", file=sys.stderr, flush=True)

flat = {name: [output for part in parts for output in part] for name, parts in found.items()}
alone = flat["big alone"]
assert [o["tokens"] for o in flat["lossless"]] == [o["tokens"] for o in alone], "lossless is not"
print(f"{os.path.basename(arguments.source)}, {len(alone)} sentences, {arguments.precision}\n")
print("| | BLEU | passes, little + big | tokens a second | times as fast | by count | of it | latency, 95th percentile, ms "
      "| by count and cost with 32,128 words | 250,112 |")
print("|---|---|---|---|---|---|---|---|---|---|")
for name, outputs in flat.items():
    seconds = lambda parts: [total(part, "total_seconds") / total(part, "tokens") for part in parts]
    ratios = [one / other for one, other in zip(seconds(found["big alone"]), seconds(found[name]))]
    speed = statistics.median(ratios)
    count = counted(alone) / counted(outputs) * total(outputs, "tokens") / total(alone, "tokens")
    latencies = sorted(output["stats"]["total_seconds"] * 1e3 for output in outputs)

    def predicted(vocabulary):
        """As measured, with the time of a larger head added to every pass at the speed at which this run read."""
        extra = vocabulary - json.load(open(f"{arguments.big}/config.json"))["vocab_size"]
        rate = total(alone, "verifier_seconds") / (total(alone, "verifier_calls") * pass_bytes(arguments.big)[1])
        cost = lambda o: (total(o, "total_seconds") + rate * (counted(o, extra) - counted(o))) / total(o, "tokens")
        return cost(alone) / cost(outputs)

    label = name if name != "BiLD" else f"BiLD, {policies[name][3]} and {policies[name][5]}"
    print(f"| {label} | {bleu(outputs):.2f} | {total(outputs, 'draft_steps'):,} + {total(outputs, 'verifier_calls'):,} "
          f"| {total(outputs, 'tokens') / total(outputs, 'total_seconds'):.1f} "
          f"| {speed:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {count:.2f} | {speed / count:.2f} "
          f"| {latencies[int(0.95 * len(latencies))]:,.0f} | {predicted(32128):.2f} | {predicted(250112):.2f} |", flush=True)


def assisted(count):
    """Seconds a token of transformers' generation, assisted by the little model and not."""
    import torch
    from tokenizers import Tokenizer
    from transformers import T5ForConditionalGeneration
    torch.set_num_threads(arguments.threads)
    load = lambda directory: T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    big, little, tokenizer = load(arguments.big), load(arguments.little), Tokenizer.from_file(f"{arguments.big}/tokenizer.json")
    spent, written = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    with torch.inference_mode():
        for i, text in enumerate(sources[: count + 1]):
            ids = torch.tensor([tokenizer.encode(text).ids])
            for helped in (True, False):
                begun = time.perf_counter()
                helper = {"assistant_model": little} if helped else {}
                output = big.generate(ids, do_sample=False, num_beams=1, max_new_tokens=128, **helper)
                if i > 0:  # the first warms up
                    spent[helped] += time.perf_counter() - begun
                    written[helped] += output.shape[1] - 1
    return {helped: spent[helped] / written[helped] for helped in spent}


if arguments.assisted:
    peer = assisted(arguments.assisted)
    print(f"\ntransformers on {arguments.assisted} of them: {1 / peer[False]:.1f} tokens a second alone, {1 / peer[True]:.1f} assisted.")
    for name, outputs in flat.items():
        own = outputs[1 : arguments.assisted + 1]
        speed = total(own, "tokens") / total(own, "total_seconds")
        print(f"{name} is {speed * peer[True]:.2f} times as fast as assisted generation there.")
