#!/usr/bin/env bash
# All that there is to measure on an NVIDIA GPU, with one command:
#
#   benches/gpu.sh BIG [LITTLE]         folders of checkpoints, as t5-large and t5-small
#
# The suite of models and decoding on CUDA; what a token costs in f32, f16 and bf16, alone and with the little model; and
# transformers and CTranslate2 on the same GPU, where Python has them. `BILD_BACKEND=wgpu` takes that backend and `BILD_DEVICE=cpu` leaves the others
# on the CPU, which tries the script without such a GPU. Results, with the machine and the commit, go to the terminal and to gpu-results.txt.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 1; }
models=()
for directory in "$@"; do models+=("$(realpath "$directory")") || exit 1; done
cd "$(dirname "$0")/.."
backend=${BILD_BACKEND:-cuda}
exec > >(tee gpu-results.txt) 2>&1

echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(date -u +%F)"
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"

echo "== the suite"
cargo test --release -p bild-models --features "$backend" --test backends --locked -- "on_$backend" || exit 1

echo "== bild: milliseconds"
for precision in f32 f16 bf16; do
    cargo bench --quiet --bench device --features "$backend" --locked -- --precision "$precision" "${models[@]}"
done

echo "== others: milliseconds"
"${PYTHON:-python3}" benches/peers/gpu.py "${models[@]}"
