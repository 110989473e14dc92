#!/usr/bin/env bash
# push.sh: what a push of a large image costs, against skopeo, measured side by side in one run on a registry on loopback.
#
#   MEGABYTES=450         size of the image
#   ROUNDS=5              how often everything is run; the best of each counts
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# Each push goes to an empty registry, except where a row says otherwise. The table goes to standard output.
# TMPDIR on a file system in memory (/dev/shm) keeps a slow or throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

need_apt python3=python3 cc=build-essential skopeo=skopeo
need_registry
need_condaimg

work=$(mktemp -d)
trap 'end_registry; rm -rf "$work"' EXIT
python3 tests/bench/bench.py layout "$work/layout" "${MEGABYTES:-450}"

end_registry() {
    [ ! -f "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null || true
    rm -rf "$work/registry" "$work/pid"
}

# An empty registry for every push: on a port of its own, because skopeo remembers what a registry has.
fresh_registry() {
    . examples/lib.sh
    end_registry
    start_registry "$work/registry"
    echo "$REGISTRY_PID" >"$work/pid"
    echo "$REGISTRY_PORT" >"$work/port"
}
export -f end_registry fresh_registry
export work

fresh="(cd '$PWD' && fresh_registry)"
registry="127.0.0.1:\$(cat '$work/port')"
size="du -sb '$work/layout' | cut -f1 >result"
ours="'$CONDAIMG' push --quiet --cache-dir cache '$work/layout:bench' $registry"

python3 - "$work/settings.json" "${ROUNDS:-5}" \
    "condaimg push" "$fresh" "$ours/bench/one:1; $size" \
    "skopeo copy" "$fresh" "skopeo copy --quiet --preserve-digests --dest-tls-verify=false 'oci:$work/layout:bench' docker://$registry/bench/one:1; $size" \
    "condaimg push, again" "$fresh; $ours/bench/one:1" "$ours/bench/one:1; $size" \
    "condaimg push, to another repository (mounted)" "$fresh; $ours/bench/one:1" "$ours/bench/two:1; $size" \
    <<'PYTHON'
import json, sys
file, rounds, *rest = sys.argv[1:]
rows = [{"name": name, "before": before, "command": command} for name, before, command in zip(*[iter(rest)] * 3)]
json.dump({"rounds": int(rounds), "rows": rows}, open(file, "w"))
PYTHON
python3 tests/bench/bench.py table "$work/settings.json"
echo
fresh_registry
echo "condaimg push: $(python3 tests/bench/bench.py memory "$CONDAIMG" push --quiet --cache-dir "$work/cache" "$work/layout:bench" "127.0.0.1:$REGISTRY_PORT/bench/memory:1" | tail -n 1)"
