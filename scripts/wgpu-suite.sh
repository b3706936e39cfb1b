#!/usr/bin/env bash
# The suite of models and decoding on wgpu, and the test that wgpu with Burn's fusion of kernels is refused. Needs a driver for
# Vulkan, Metal or DirectX 12; software is enough (Debian: mesa-vulkan-drivers).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test -p bild-models --features wgpu --test backends --locked wgpu
cargo test -p bild-models --features wgpu --lib --locked floats_of_16_bits
CUBECL_AUTOTUNE_LEVEL=minimal cargo test -p bild-models --features fusion --test fusion --locked
