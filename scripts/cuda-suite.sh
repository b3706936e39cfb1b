#!/usr/bin/env bash
# The suite of models and decoding on CUDA: for a machine with an NVIDIA GPU, its driver, NVRTC and the CUDA headers (in
# CUDA_PATH or /usr/local/cuda).
set -euo pipefail
cd "$(dirname "$0")/.."
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
cargo test -p bild-models --features cuda --test backends --locked cuda
