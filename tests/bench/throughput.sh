#!/usr/bin/env bash
# throughput.sh: how near building comes to what its work costs at least, measured side by side in one run.
#
#   CHANNEL=file:///...   the channel [default: the example channel]
#   ENVIRONMENT=FILE      what to build [default: tests/bench/environments/example-py311.yml]
#   ROUNDS=3              how often everything is run; the best of each counts
#   JOBS=2                threads
#   LEVELS=CODEC,...      what the second table shows
#
# The limit: the same archives decoded, the tar hashed, compressed in the same chunks by the same library, and the result
# hashed; nothing read twice, nothing written, no gap between threads (tests/bench/limit.rs). What is built: all archives are
# in the store, no layer is. TMPDIR on a file system in memory (/dev/shm) keeps a throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

CHANNEL=${CHANNEL:-file://$EXAMPLES_CACHE/channel}
ENVIRONMENT=$(realpath "${ENVIRONMENT:-tests/bench/environments/example-py311.yml}")
JOBS=${JOBS:-2}
LEVELS=${LEVELS:-gzip:1,gzip:2,gzip:3,gzip:4,gzip:5,gzip:6,gzip:7,gzip:8,gzip:9,zstd:1,zstd:3,zstd:6,zstd:9,zstd:12}

need_apt python3=python3 cc=build-essential zstd=zstd
examples/channel/make.sh
examples/base/make.sh
cargo build --release --locked --bin condaimg --example limit
target=${CARGO_TARGET_DIR:-$PWD/target}/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

exec python3 tests/bench/throughput.py --condaimg "$target/condaimg" --limit "$target/examples/limit" --channel "$CHANNEL" \
    --environment "$ENVIRONMENT" --base "oci:$EXAMPLES_CACHE/base:debian" --rounds "${ROUNDS:-3}" --jobs "$JOBS" --levels "$LEVELS" \
    --work "$work"
