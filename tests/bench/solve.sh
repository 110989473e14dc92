#!/usr/bin/env bash
# solve.sh: what solving and locking cost, beside py-rattler's solve, measured in one run.
#
#   solve.sh [CHANNEL ENVIRONMENT.yml]...   channels (folders or URLs) and what to solve from them
#            [default: the index in tests/data/conda-forge-py39, and the example channel]
#   ROUNDS=7              how often everything is run; the best of each counts
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# Warm: indexes and archives are in the cache, the base is probed; there is no lock yet. Of a channel whose archives cannot be
# had, only locks without facts are made. The table goes to standard output.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

need_apt python3=python3 cc=build-essential zstd=zstd
examples/base/make.sh
need_venv "$EXAMPLES_CACHE/bench-venv" tests/bench/requirements.txt
need_condaimg
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# -eq 0 ]; then
    examples/channel/make.sh
    for subdir in linux-64 noarch; do
        mkdir -p "$work/conda-forge-py39/$subdir"
        zstd -q -d "tests/data/conda-forge-py39/$subdir/repodata.json.zst" -o "$work/conda-forge-py39/$subdir/repodata.json"
    done
    set -- "$work/conda-forge-py39" tests/bench/environments/conda-forge-py39.yml \
        "$EXAMPLES_CACHE/channel" tests/bench/environments/example-py311.yml
fi
"$EXAMPLES_CACHE/bench-venv/bin/python" tests/bench/solve.py "$CONDAIMG" "oci:$EXAMPLES_CACHE/base:debian" "${ROUNDS:-7}" "$@"
