#!/usr/bin/env bash
# run.sh [FOLDER...]: every conda archive below the folders (default: packages made here with conda-build's and rattler-build's
# writers, those of tests/data, and the example channel), each alone, against rattler's tree, and its byte code checked.
# JOBS limits the processes. Exit status 1 if anything differs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=examples/lib.sh
. "$here/../../examples/lib.sh"

need_venv "$EXAMPLES_CACHE/corpus-venv" "$here/requirements.txt"
need_condaimg
python=$EXAMPLES_CACHE/corpus-venv/bin/python
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

if [ $# -eq 0 ]; then
    "$EXAMPLES/channel/make.sh"
    "$python" "$here/make_packages.py" "$made" 10
    set -- "$made" "$here/../data" "$EXAMPLES_CACHE/channel"
fi
"$python" "$here/corpus.py" "$CONDAIMG" "$@"
