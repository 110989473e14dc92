#!/usr/bin/env bash
# Pins what requirements/*.in and ../wheels/*.in ask for: one wheel each, by sha256. Only for maintainers, after an edit of those files.
set -euo pipefail
cd "$(dirname "$0")/requirements"

pins() { # pip's report on stdin -> name==version --hash=sha256:…, one line each
    python3 -c '
import json, sys
for item in sorted(json.load(sys.stdin)["install"], key=lambda item: item["metadata"]["name"].lower()):
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    print("{name}=={version} --hash=sha256:".format(**item["metadata"]) + digest)'
}

report() { # what pip would fetch for CPython VERSION on MACHINE
    local python=$1 machine=$2
    shift 2
    ${PYTHON:-python3} -m pip install --quiet --dry-run --ignore-installed --no-cache-dir --target unused --report - \
        --only-binary=:all: --implementation cp --python-version "$python" \
        --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" "$@"
}

debian_python=3.11.2
report "$debian_python" x86_64 -r wheels.in | pins >wheels.txt
report "$debian_python" x86_64 --no-deps -r wheels-older.in | pins >wheels-older.txt
# In the versions that linux-64 has.
report "$debian_python" aarch64 --no-deps -c <(sed 's/ --hash.*//' wheels.txt) -r wheels-aarch64.in | pins >wheels-aarch64.txt
report "$debian_python" x86_64 --no-deps -r ../../wheels/wheels.in | pins >../../wheels/wheels.txt
report "$debian_python" x86_64 --no-deps -r ../../wheels/uv.in | pins >../../wheels/uv.txt
# The tools run under whatever Python starts the script: a wheel of every release that is about.
for python in 3.9 3.10 3.11 3.12 3.13 3.14; do
    report "$python" x86_64 -r tools.in | pins
done | sort -u | awk '$1 != name { if (name) print line; name = $1; line = $0; next } { line = line " " $2 } END { print line }' >tools.txt
