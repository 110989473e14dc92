#!/usr/bin/env bash
# make.sh [--out DIR]: the wheels that wheels.txt pins, for CPython 3.11 on linux-64. Default DIR: examples/.cache/wheels
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=examples/lib.sh
. "$here/../lib.sh"

out=$EXAMPLES_CACHE/wheels
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder} && shift 2 ;;
    *) die "usage: make.sh [--out DIR]" ;;
    esac
done

make_wheels() { # OUT SCRATCH
    note "fetching wheels"
    need_venv "$EXAMPLES_CACHE/channel-venv" "$here/../channel/requirements/tools.txt"
    download_wheels "$EXAMPLES_CACHE/channel-venv/bin/python" "$1" "$here/wheels.txt" x86_64
}

make_once "$out" "$(digest_of "$here/make.sh" "$here/wheels.txt")" make_wheels
