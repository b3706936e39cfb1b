#!/usr/bin/env python3
"""bild beside other engines on the same checkpoints: decoding, encoder, latency, loading and memory, as a table.

    python -m venv venv && . venv/bin/activate && pip install -r benches/peers/requirements.txt
    npm pack @node-llama-cpp/linux-x64@3.22.1 && mkdir -p llama && tar xzf node-llama-cpp-linux-x64-3.22.1.tgz -C llama
    (cd benches/peers/candle && RUSTFLAGS="-C target-cpu=native" cargo build --release)
    (cd benches/peers/kjarni && RUSTFLAGS="-C target-cpu=native" cargo build --release)
    cargo build --release -p bild-cli
    python benches/peers/convert.py DIRECTORY …
    python benches/peers/table.py DIRECTORY … > table.md        # table.json beside it

A source of 64 fixed ids, 64 new tokens, batch 1, two threads. Each engine is a process of its own, in turn, five rounds of
two timed runs; medians, with the least and the most. Nothing else may run meanwhile.
"""
import argparse, json, os, statistics, subprocess, sys

from engines import ENGINES

ENGINES_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "engines.py")
parser = argparse.ArgumentParser()
parser.add_argument("directories", nargs="+", metavar="DIRECTORY")
parser.add_argument("--source", type=int, default=64)
parser.add_argument("--new", type=int, default=64)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--runs", type=int, default=2)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
parser.add_argument("--json", default="table.json")
arguments = parser.parse_args()


def run(engine, directory):
    """Its times, or why there are none."""
    sizes = [arguments.source, arguments.new, arguments.runs, arguments.threads]
    output = subprocess.run([sys.executable, ENGINES_FILE, engine, directory, *map(str, sizes)], capture_output=True, text=True)
    if output.returncode != 0:
        lines = output.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"it ended with {output.returncode}"}
    return json.loads(output.stdout.splitlines()[-1])


def decoder_bytes(directory, size):
    """What a step reads: the decoder without the projections of the source, and the head."""
    config = json.load(open(f"{directory}/config.json"))
    gated = config["feed_forward_proj"].startswith("gated")
    layer = 6 * config["num_heads"] * config["d_kv"] + (3 if gated else 2) * config["d_ff"]
    layers = config.get("num_decoder_layers") or config["num_layers"]
    return size * config["d_model"] * (layers * layer + config["vocab_size"])


def spread(values, digits=2):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


results = {}
for directory in (path.rstrip("/") for path in arguments.directories):
    found = {engine: [] for engine in arguments.engines}
    for round in range(arguments.rounds):
        for engine in arguments.engines:
            found[engine].append(run(engine, directory))
            print(f"{directory}, round {round + 1}: {engine}: {found[engine][-1]}", file=sys.stderr, flush=True)
    results[directory] = found
    with open(arguments.json, "w") as file:
        json.dump({"arguments": vars(arguments), "results": results}, file, indent=1)

    name = os.path.basename(directory)
    bandwidth = [run["read_gb_per_s"] for runs in found.values() for run in runs if "read_gb_per_s" in run]
    if bandwidth:
        floors = [decoder_bytes(directory, size) / statistics.median(bandwidth) / 1e6 for size in (4, 1)]
        print(f"\n**{name}**: memory read at {spread(bandwidth, 1)} GB/s; a step cannot take less than {floors[0]:.2f} ms in f32 "
              f"and {floors[1]:.2f} ms in int8 at the median.\n")
    print("| engine | version | ms a token | encoder, ms | latency, 95th percentile, ms | loading, s | peak, MiB |")
    print("|---|---|---|---|---|---|---|")
    for engine, runs in found.items():
        good = [run for run in runs if "error" not in run]
        if not good:
            print(f"| {engine} | | {runs[0]['error'][:120]} | | | | |")
            continue
        tokens, encoders = ([time for run in good for time in run[key]] for key in ("token_ms", "encoder_ms"))
        latencies = sorted(encoder + token * arguments.new for encoder, token in zip(encoders, tokens))
        late = latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))]
        print(f"| {engine} | {good[0]['version']} | {spread(tokens)} | {spread(encoders, 1)} | {late:,.0f} "
              f"| {statistics.median(run['load_s'] for run in good):.2f} "
              f"| {statistics.median(run['peak_mib'] for run in good):,.0f} |", flush=True)
