#!/usr/bin/env bash
# Fuzzes the readers of files, by coverage, for so many seconds (600): fuzz/run.sh SECONDS. Needs a nightly compiler and `cargo install
# cargo-fuzz`. Ends with an error where a file makes the library panic, takes more than 10 seconds or more than 2 GiB.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 fuzz/seeds.py fuzz/seeds
mkdir -p fuzz/corpus/files
cargo +nightly fuzz run files fuzz/corpus/files fuzz/seeds -- \
    -max_total_time="${1:-600}" -timeout=10 -rss_limit_mb=2048 -max_len=1000000 -dict=fuzz/words.dict -print_final_stats=1
