#!/usr/bin/env bash
# Runs the tests of the models, kernels included, with the address sanitizer: scripts/sanitize.sh. Needs a nightly compiler on x86-64
# Linux; a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/sanitize}"
cargo +nightly test -p bild-models --target x86_64-unknown-linux-gnu --locked \
    --lib --test backends --test batch --test pytorch --test sessions "$@"
