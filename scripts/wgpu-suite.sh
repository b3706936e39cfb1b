#!/usr/bin/env bash
# The suite of models and decoding on wgpu, and the test that wgpu with Burn's fusion of kernels is refused. Needs a driver for
# Vulkan, Metal or DirectX 12; software is enough (Debian: mesa-vulkan-drivers).
set -euo pipefail
cd "$(dirname "$0")/.."
# Tuning tries many kernels for each shape; for tests of what is computed, not how fast, the first will do.
export CUBECL_AUTOTUNE_LEVEL="${CUBECL_AUTOTUNE_LEVEL:-minimal}"
cargo test -p bild-models --features fusion --test fusion --locked
cargo test -p bild-models --features fusion --test backends --test reference --test sessions --locked wgpu
