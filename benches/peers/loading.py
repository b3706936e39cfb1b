#!/usr/bin/env python3
"""Loading time and peak memory of bild, transformers and candle on the same f32 checkpoints, as a Markdown table.

    pip install torch transformers safetensors
    cargo build --release --example decode_bench
    (cd benches/peers/candle_loading && RUSTFLAGS="-C target-cpu=native" cargo build --release)
    python benches/peers/loading.py DIRECTORY [DIRECTORY ...]

Each is a process of its own, in turn, five rounds; files are in the page cache. What is timed: loading (imports left
out), and from its beginning to the first token after a source of 64 tokens, which reads what a mapped file left on disk.
"""
import json, os, statistics, subprocess, sys, time

ROUNDS, LENGTH, THREADS = 5, 64, 2
HERE = os.path.dirname(os.path.abspath(__file__))


def transformers(directory):
    import torch
    from transformers import T5ForConditionalGeneration
    torch.set_num_threads(THREADS)
    begun = time.perf_counter()
    model = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    loaded = time.perf_counter() - begun
    most = min(model.config.vocab_size, 32000) - 3
    source = torch.tensor([[3 + i * 7919 % most for i in range(LENGTH)]])
    with torch.inference_mode():
        model.generate(source, max_new_tokens=1, do_sample=False, num_beams=1)
    first = time.perf_counter() - begun
    print(json.dumps({"load_s": loaded, "first_token_s": first, "peak_mib": peak_mib()}))


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def run(engine, directory):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS)}
    commands = {
        "bild": [f"{HERE}/../../target/release/examples/decode_bench", "--model", directory, "--source-len", str(LENGTH),
                 "--new-tokens", "1", "--runs", "1", "--threads", str(THREADS), "--json"],
        "transformers": [sys.executable, __file__, "--transformers", directory],
        "candle": [f"{HERE}/candle_loading/target/release/candle_loading", directory, str(LENGTH)],
    }
    output = subprocess.run(commands[engine], capture_output=True, text=True, env=environment)
    if output.returncode != 0:
        sys.exit(f"{engine} failed on {directory}:\n{output.stderr}")
    result = json.loads(output.stdout.splitlines()[-1])
    if engine == "bild":
        load = result["load_ms"] / 1e3
        result = {"load_s": load, "first_token_s": load + result["first_ms"] / 1e3, "peak_mib": result["peak_rss_mib"]}
    return result


def main(directories):
    print("| checkpoint | engine | loading, s | to the first token, s | peak memory, MiB | over the file |")
    print("|---|---|---|---|---|---|")
    for directory in directories:
        size = os.path.getsize(f"{directory}/model.safetensors") / 2**20
        engines = ["bild", "transformers", "candle"]
        results = {engine: [] for engine in engines}
        for _ in range(ROUNDS):
            for engine in engines:
                results[engine].append(run(engine, directory))
        for engine in engines:
            def column(key, digits):
                values = [result[key] for result in results[engine]]
                return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
            peak = statistics.median(result["peak_mib"] for result in results[engine])
            name = os.path.basename(directory.rstrip("/"))
            print(f"| {name}, {size:,.0f} MiB | {engine} | {column('load_s', 2)} | {column('first_token_s', 2)} "
                  f"| {column('peak_mib', 0)} | {peak / size:.2f} |", flush=True)


if sys.argv[1:2] == ["--transformers"]:
    transformers(sys.argv[2])
else:
    main(sys.argv[1:])
