#!/usr/bin/env bash
# Builds the library for the browser (wasm32-unknown-unknown), where that target is installed (`rustup target add wasm32-unknown-unknown`):
# the core and the policies, and the models with the backend `flex`. A program there chooses where random seeds come from, which the crate
# getrandom asks of whoever links it: the little program that is made here has the browser give them.
set -euo pipefail
cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
if ! [ -d "$(rustc --print target-libdir --target $target)" ]; then
    echo "skipped: $target is not installed"
    exit 0
fi
cargo build -p bild-core -p bild-policies --target $target --locked

program=$(mktemp -d)
trap 'rm -rf "$program"' EXIT
mkdir "$program/src"
cp Cargo.lock "$program"
cat > "$program/Cargo.toml" <<MANIFEST
[package]
name = "in-the-browser"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
bild = { path = "$PWD", default-features = false, features = ["flex", "safetensors", "tokenizers"] }
getrandom_03 = { package = "getrandom", version = "0.3", features = ["wasm_js"] }
getrandom_04 = { package = "getrandom", version = "0.4", features = ["wasm_js"] }

[workspace]
MANIFEST
cat > "$program/src/lib.rs" <<'PROGRAM'
use bild::{Checkpoint, Flex, T5};

/// Links all of it.
#[unsafe(no_mangle)]
pub extern "C" fn loads() -> bool {
    Checkpoint::open(".").and_then(|checkpoint| T5::<Flex>::load(&checkpoint, &Default::default())).is_ok()
}
PROGRAM
RUSTFLAGS='--cfg getrandom_backend="wasm_js"' CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}" \
    cargo build --manifest-path "$program/Cargo.toml" --target $target
echo "core, policies and models build for $target"
