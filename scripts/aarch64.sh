#!/usr/bin/env bash
# The models on aarch64, on any Linux machine: the kernels' tests, those of the backends' suite that are for flex, and one translation, emulated where the CPU is
# another (Debian: qemu-user and gcc-aarch64-linux-gnu; `rustup target add aarch64-unknown-linux-gnu`). What it tells is that the numbers are right,
# not how fast they are. Skipped with a word where something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
skip() { echo "skipped: $1"; exit 0; }
[ -d "$(rustc --print target-libdir --target $target)" ] || skip "$target is not installed"
if [ "$(uname -m)" != aarch64 ]; then
    command -v qemu-aarch64 >/dev/null || skip "there is no qemu-aarch64"
    command -v aarch64-linux-gnu-gcc >/dev/null || skip "there is no aarch64-linux-gnu-gcc"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
fi
cargo test -p bild-models --target $target --lib --locked
cargo test -p bild-models --target $target --test backends --locked -- on_flex
cargo test -p bild-models --target $target --test precision --locked
cargo run --example translate --target $target --locked -- "Ich habe heute leider keine Zeit."
