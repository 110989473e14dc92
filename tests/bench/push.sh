#!/usr/bin/env bash
# push.sh: what a push of a large image costs, against skopeo, measured side by side in one run on a registry on loopback.
#
#   MEGABYTES=450         size of the image
#   ROUNDS=5              how often everything is run; the best of each counts
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# Each push goes to an empty repository of a registry that has none of the blobs, except where a row says otherwise. The table
# goes to standard output. TMPDIR on a file system in memory (/dev/shm) keeps a slow or throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

need_apt python3=python3 cc=build-essential skopeo=skopeo
need_registry
if [ -z "${CONDAIMG:-}" ]; then
    cargo build --release --locked
    CONDAIMG=${CARGO_TARGET_DIR:-$PWD/target}/release/condaimg
fi

work=$(mktemp -d)
trap 'stop_registry; rm -rf "$work"' EXIT
start_registry "$work/registry"
python3 tests/bench/bench.py layout "$work/layout" "${MEGABYTES:-450}"

# The registry forgets everything first, so that every push sends everything.
empty="rm -rf '$work/registry/data/docker/registry/v2'"
registry=127.0.0.1:$REGISTRY_PORT
size="du -sb '$work/layout' | cut -f1 >result"
ours="'$CONDAIMG' push --quiet --cache-dir cache '$work/layout:bench'"

python3 - "$work/settings.json" "${ROUNDS:-5}" \
    "condaimg push" "$empty" "$ours $registry/bench/ours-\$NUMBER:1; $size" \
    "skopeo copy" "$empty" "skopeo copy --quiet --preserve-digests --dest-tls-verify=false 'oci:$work/layout:bench' docker://$registry/bench/skopeo-\$NUMBER:1; $size" \
    "condaimg push, again" "$empty; $ours $registry/bench/again-\$NUMBER:1" "$ours $registry/bench/again-\$NUMBER:1; $size" \
    "condaimg push, to another repository (mounted)" "$empty; $ours $registry/bench/first-\$NUMBER:1" "$ours $registry/bench/second-\$NUMBER:1; $size" \
    <<'PYTHON'
import json, sys
file, rounds, *rest = sys.argv[1:]
rows = [{"name": name, "before": before, "command": command} for name, before, command in zip(*[iter(rest)] * 3)]
json.dump({"rounds": int(rounds), "rows": rows}, open(file, "w"))
PYTHON
python3 tests/bench/bench.py table "$work/settings.json"
echo
rm -rf "$work/registry/data/docker/registry/v2"
echo "condaimg push: $(python3 tests/bench/bench.py memory "$CONDAIMG" push --quiet --cache-dir "$work/cache" "$work/layout:bench" "$registry/bench/memory:1" | tail -n 1)"
