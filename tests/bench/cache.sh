#!/usr/bin/env bash
# cache.sh: what a build costs whose layers exist already, on a machine that has nothing and on one that has all; and what
# one changed package costs. Beside it buildah, which is given the environment installed.
#
#   ROUNDS=3              how often what is short is run; the best counts
#   CHANNEL=FOLDER        the channel [default: the example channel]
#   LARGEST=FILE          the environment beside the main one [default: tests/bench/environments/example-py311.yml]
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# The channel is served over http on loopback, with one tiny package beside it; the registry is on loopback. Tables go
# to standard output. TMPDIR on a file system in memory (/dev/shm) keeps a throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

need_apt python3=python3 cc=build-essential buildah=buildah skopeo=skopeo
need_registry
examples/channel/make.sh
examples/base/make.sh
need_venv "$EXAMPLES_CACHE/bench-venv" tests/bench/requirements.txt
need_condaimg

work=$(mktemp -d)
trap 'stop_registry; rm -rf "$work" 2>/dev/null || as_root rm -rf "$work"' EXIT
start_registry "$work/registry"
# buildah makes a name of a layout's path, which must be one for an image: short and in lower case.
skopeo copy --quiet "oci:$EXAMPLES_CACHE/base:debian" "oci:$work/base:debian"

CONTAINERS_CONF="$EXAMPLES/containers.conf" python3 tests/bench/cache.py --condaimg "$CONDAIMG" --channel "${CHANNEL:-$EXAMPLES_CACHE/channel}" \
    --base "$work/base" --registry "127.0.0.1:$REGISTRY_PORT" --log "$work/registry/log" --rounds "${ROUNDS:-3}" --work "$work/run" \
    --installer "$EXAMPLES_CACHE/bench-venv/bin/python" --largest "${LARGEST:-tests/bench/environments/example-py311.yml}"
