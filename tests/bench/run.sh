#!/usr/bin/env bash
# run.sh: what condaimg needs against what its users have today, measured side by side in one run.
#
#   CHANNEL=file:///...   the channel [default: the example channel]
#   SPECS="..."           the environment [default: one from the example channel]
#   ROUNDS=3              how often everything is run; the best of each counts
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# All start cold: an empty cache, an empty repository. The table goes to standard output. TMPDIR on a file system in memory
# (/dev/shm) keeps a slow or throttled disk out of the comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

SPECS=${SPECS:-python=3.11 numpy scipy pandas flask fastapi sympy networkx requests pytest}
CHANNEL=${CHANNEL:-file://$EXAMPLES_CACHE/channel}

need_apt python3=python3 cc=build-essential buildah=buildah zstd=zstd skopeo=skopeo
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

{
    printf 'channels: []\ndependencies:\n'
    for spec in $SPECS; do printf '  - "%s"\n' "$spec"; done
} >"$work/environment.yml"

# What an image of ours costs, from the channel to the registry.
build() { # FLAGS
    echo "'$CONDAIMG' build '$work/environment.yml' --override-channels -c '$CHANNEL' \
--base 'oci:$EXAMPLES_CACHE/base:debian' --lock-file condaimg.lock --cache-dir cache --quiet \
-t 127.0.0.1:$REGISTRY_PORT/bench/env-\$NUMBER:1 --push --metadata-file m.json $1 >&2; \
python3 -c 'import json; print(sum(l[\"size\"] for l in json.load(open(\"m.json\"))[\"layers\"][1:]))' >result"
}

rattler="'$EXAMPLES_CACHE/bench-venv/bin/python' tests_bench_install '$CHANNEL' prefix $SPECS"
rattler=${rattler/tests_bench_install/\'$PWD/tests/bench/rattler_install.py\'}
buildah="buildah --root \$HERE/root --runroot \$HERE/runroot --storage-driver overlay"
with_buildah="HERE=\$PWD; $rattler; export CONTAINERS_CONF='$EXAMPLES/containers.conf'; \
c=\$(cd '$work' && $buildah from oci:base:debian); $buildah copy --quiet \$c prefix /opt/conda/envs/default; \
$buildah commit --quiet \$c image; \
$buildah push --quiet --tls-verify=false image docker://127.0.0.1:$REGISTRY_PORT/bench/buildah-\$NUMBER:1; \
skopeo inspect --tls-verify=false --raw docker://127.0.0.1:$REGISTRY_PORT/bench/buildah-\$NUMBER:1 | \
python3 -c 'import json, sys; print(sum(l[\"size\"] for l in json.load(sys.stdin)[\"layers\"][1:]))' >result"
by_hand="$rattler; tar -C prefix -cf - . | zstd -q -3 -T2 -o layer.tar.zst; stat -c %s layer.tar.zst >result"

python3 - "$work/settings.json" "${ROUNDS:-3}" \
    "condaimg, gzip (default)" "$(build '')" \
    "condaimg, gzip, --bytecode off" "$(build '--bytecode off')" \
    "condaimg, zstd:3" "$(build '--compression zstd:3')" \
    "condaimg, zstd:3, --bytecode off" "$(build '--compression zstd:3 --bytecode off')" \
    "rattler install + buildah copy, commit, push" "$with_buildah" \
    "rattler install + tar + zstd -3 -T2 (no push)" "$by_hand" <<'PYTHON'
import json, sys
file, rounds, *pairs = sys.argv[1:]
rows = [{"name": name, "command": command} for name, command in zip(pairs[::2], pairs[1::2])]
json.dump({"rounds": int(rounds), "rows": rows}, open(file, "w"))
PYTHON
python3 tests/bench/bench.py table "$work/settings.json"

for flags in "" "--compression zstd:19"; do
    echo
    rm -rf "$work/memory" && mkdir "$work/memory"
    echo "condaimg build ${flags:-(gzip)}: $(cd "$work/memory" && python3 "$OLDPWD/tests/bench/bench.py" memory "$CONDAIMG" build "$work/environment.yml" \
        --override-channels -c "$CHANNEL" --base "oci:$EXAMPLES_CACHE/base:debian" --lock-file condaimg.lock --cache-dir cache \
        --quiet -t "127.0.0.1:$REGISTRY_PORT/bench/memory:1" --push $flags | tail -n 1)"
done
