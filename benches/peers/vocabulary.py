#!/usr/bin/env python3
"""What a pair gains at larger vocabularies, by count: what its passes read, each once, with bodies as large as T5-large's and T5-small's.

    cargo build --release -p bild-cli
    python benches/peers/vocabulary.py --big DIRECTORY (--little DIRECTORY | --shared-encoder DIRECTORY) --shortlist FILE --source FILE

The pair of the repository writes the sentences; how many passes that takes does not depend on the size of its models, nor on tokens that
it never writes. A draft decoder counts as 2 layers of the large body. Needs nothing but Python.
"""
import argparse, json, os, subprocess

BILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/release/bild")
VOCABULARIES = 4000, 32128, 250112
LARGE, SMALL = (24, 1024, 16 * 64, 4096), (6, 512, 8 * 64, 2048)

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
    command = [BILD, "translate", "--whole", "--json", "--big", arguments.big, "--file", arguments.source, *options]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def encoder(layers, width, heads, feed_forward):
    """Numbers that reading a source reads, the keys and values that the decoder makes of it included."""
    return width * layers * (4 * heads + 2 * feed_forward + 2 * heads)


def decoder(words, layers, width, heads, feed_forward):
    return width * (layers * (6 * heads + 2 * feed_forward) + words)


def read(outputs, words, scored):
    """Numbers that all passes read, of drafts that score so many words."""
    total = lambda name: sum(output["stats"][name] for output in outputs)
    sources, draft = encoder(*LARGE), decoder(scored, *SMALL)
    if arguments.shared_encoder:
        draft = decoder(scored, 2, *LARGE[1:])
    elif total("draft_steps"):
        sources += encoder(*SMALL)
    return len(outputs) * sources + total("draft_steps") * draft + total("verifier_calls") * decoder(words, *LARGE)


little = ["--little", arguments.little] if arguments.little else ["--shared-encoder", arguments.shared_encoder]
lossless = [*little, "--policy", "lossless", "--fallback", "0", "--max-draft", arguments.max_draft]
alone, whole, short = translate("--policy", "big"), translate(*lossless), translate(*lossless, "--shortlist", arguments.shortlist)
tokens = lambda outputs: [output["tokens"] for output in outputs]
assert tokens(alone) == tokens(whole) == tokens(short), "lossless is not"
print("| words | " + " | ".join(f"{words:,}" for words in VOCABULARIES) + " |\n|---|" + "---|" * len(VOCABULARIES))
for name, outputs, limit in ("all scored", whole, 1 << 40), ("the list", short, arguments.scored):
    speeds = [read(alone, words, 0) / read(outputs, words, min(words, limit)) for words in VOCABULARIES]
    print(f"| {name} | " + " | ".join(f"{speed:.2f}, {speed / speeds[0]:.2f}" for speed in speeds) + " |")
