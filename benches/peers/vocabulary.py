#!/usr/bin/env python3
"""What a pair gains at larger vocabularies, by count: what its passes read, each once, with bodies as large as T5-large's and T5-small's.

    cargo build --release -p bild-cli
    python benches/peers/vocabulary.py --big DIRECTORY (--little DIRECTORY | --shared-encoder DIRECTORY) --shortlist FILE --source FILE

The pair of the repository writes the sentences; how many passes that takes does not depend on the size of its models, nor on tokens that
it never writes. A draft decoder counts as 2 layers of the large body. Needs nothing but Python.
"""
import argparse, json, subprocess

from engines import ROOT, numbers_read

VOCABULARIES = 4000, 32128, 250112
# Width, and how wide all heads and the two matrices of a feed-forward layer are.
LARGE, SMALL = (1024, 16 * 64, 2 * 4096), (512, 8 * 64, 2 * 2048)

parser = argparse.ArgumentParser()
parser.add_argument("--big", required=True)
drafts = parser.add_mutually_exclusive_group(required=True)
drafts.add_argument("--little")
drafts.add_argument("--shared-encoder")
parser.add_argument("--shortlist", required=True)
parser.add_argument("--source", required=True)
parser.add_argument("--scored", type=int, default=500, help="how many tokens of the list a draft scores, at most")
parser.add_argument("--max-draft", default="4")
arguments = parser.parse_args()


def translate(*options):
    command = [f"{ROOT}/target/release/bild", "translate", "--whole", "--json", "--big", arguments.big, "--file", arguments.source, *options]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def read(outputs, words, scored):
    """Numbers that all passes read, of drafts that score so many words."""
    total = lambda name: sum(output["stats"][name] for output in outputs)
    source, verify = numbers_read(24, 24, *LARGE, words)
    if arguments.shared_encoder:
        _, draft = numbers_read(0, 2, *LARGE, scored)
    else:
        of_little, draft = numbers_read(6, 6, *SMALL, scored)
        source += of_little if total("draft_steps") else 0
    return len(outputs) * source + total("draft_steps") * draft + total("verifier_calls") * verify


little = ["--little", arguments.little] if arguments.little else ["--shared-encoder", arguments.shared_encoder]
lossless = [*little, "--policy", "lossless", "--fallback", "0", "--max-draft", arguments.max_draft]
alone, whole, short = translate("--policy", "big"), translate(*lossless), translate(*lossless, "--shortlist", arguments.shortlist)
tokens = lambda outputs: [output["tokens"] for output in outputs]
assert tokens(alone) == tokens(whole) == tokens(short), "lossless is not"
print("| words | " + " | ".join(f"{words:,}" for words in VOCABULARIES) + " |\n|---|" + "---|" * len(VOCABULARIES))
for name, outputs, limit in ("all scored", whole, 1 << 40), ("the list", short, arguments.scored):
    speeds = [read(alone, words, 0) / read(outputs, words, min(words, limit)) for words in VOCABULARIES]
    print(f"| {name} | " + " | ".join(f"{speed:.2f}, {speed / speeds[0]:.2f}" for speed in speeds) + " |")
