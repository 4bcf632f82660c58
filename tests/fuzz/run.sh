#!/usr/bin/env bash
# Runs the fuzz targets one after the other, each for a while, and stops at the first finding. Needs a nightly toolchain
# and cargo-fuzz (`cargo install --locked cargo-fuzz`).
#
#   tests/fuzz/run.sh                   all targets, 60 seconds each
#   tests/fuzz/run.sh SECONDS           all targets
#   tests/fuzz/run.sh SECONDS TARGET... these
#
# A finding lies in tests/fuzz/artifacts. Make it small (`cargo +nightly fuzz tmin`), give it the name of what it is and put
# it into tests/fuzz/corpus/TARGET: from then on tests/fuzz_corpus.rs tries it too. What else was made up lies in
# tests/fuzz/made, and is where the next run begins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:-60}
shift $(($# > 0))
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
    targets=(config cursor frame record usersig)
fi
# The crate's own versions of what it needs; cargo adds what the targets need.
cp Cargo.lock tests/fuzz/Cargo.lock
for target in "${targets[@]}"; do
    made=tests/fuzz/made/$target
    mkdir -p "$made"
    cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" "$made" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -dict="tests/fuzz/dictionaries/$target"
done
