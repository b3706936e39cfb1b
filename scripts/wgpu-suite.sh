#!/usr/bin/env bash
# The suite of models and decoding on wgpu, and the test that wgpu with Burn's fusion of kernels is refused. Needs a driver for
# Vulkan, Metal or DirectX 12; software is enough (Debian: mesa-vulkan-drivers). `without-fusion`
# leaves that test out.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test -p bild-models --features wgpu --test backends --lib --locked -- wgpu floats_of_16_bits
# Another build of everything, for one test.
[ "${1:-}" = without-fusion ] || CUBECL_AUTOTUNE_LEVEL=minimal cargo test -p bild-models --features fusion --test fusion --locked
