#!/usr/bin/env bash
# cache.sh: what an unchanged environment costs, and one in which a small package changed; beside buildah, in one run.
#
#   CHANNEL=DIR           the channel, a folder [default: the example channel]
#   ROUNDS=3              how often each is run; the best counts
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# A bare runner has a new home, an empty cache, environment.yml and condaimg.lock; channel and registry on loopback say what they
# were asked for. TMPDIR on a file system in memory (/dev/shm) keeps a throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

need_apt python3=python3 cc=build-essential buildah=buildah zstd=zstd skopeo=skopeo
need_registry
examples/channel/make.sh
examples/base/make.sh
need_venv "$EXAMPLES_CACHE/bench-venv" tests/bench/requirements.txt
if [ -z "${CONDAIMG:-}" ]; then
    cargo build --release --locked
    CONDAIMG=${CARGO_TARGET_DIR:-$PWD/target}/release/condaimg
fi
work=$(mktemp -d)
trap 'stop_registry; rm -rf "$work" 2>/dev/null || as_root rm -rf "$work"' EXIT
start_registry "$work/registry"
skopeo copy --quiet "oci:$EXAMPLES_CACHE/base:debian" "oci:$work/base:debian"

python3 tests/bench/cache.py --condaimg "$CONDAIMG" --channel "${CHANNEL:-$EXAMPLES_CACHE/channel}" --registry "127.0.0.1:$REGISTRY_PORT" \
    --registry-log "$work/registry/log" --base "$work/base" --work "$work" --rounds "${ROUNDS:-3}" \
    --python "$EXAMPLES_CACHE/bench-venv/bin/python" --containers-conf "$EXAMPLES/containers.conf"
