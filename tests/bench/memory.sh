#!/usr/bin/env bash
# memory.sh: the most memory that a build takes, for environments of growing size.
#
#   CHANNEL=file:///...   the channel [default: the example channel]
#   ENVIRONMENT=FILE      the smallest of them [default: tests/bench/environments/example-py311.yml]
#   CONDAIMG=PROGRAM      the program [default: target/release/condaimg, compiled here]
#
# The larger ones have ballast on top: packages of 200 MB each, made here (tests/bench/ballast.py). Memory is the peak of the
# summed PSS of the process tree; each build starts cold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

CHANNEL=${CHANNEL:-file://$EXAMPLES_CACHE/channel}
ENVIRONMENT=$(realpath "${ENVIRONMENT:-tests/bench/environments/example-py311.yml}")
need_apt python3=python3 cc=build-essential zstd=zstd
examples/channel/make.sh
examples/base/make.sh
need_condaimg
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 tests/bench/ballast.py "$work/channel" 6 200

echo "| environment | tar MB | gzip (default) MiB | zstd:3 MiB |"
echo "|---|---|---|---|"
for ballast in 0 3 6; do
    cp "$ENVIRONMENT" "$work/environment.yml"
    for ((number = 0; number < ballast; number++)); do echo "  - ballast-$number" >>"$work/environment.yml"; done
    row="| $(basename "$ENVIRONMENT" .yml)$([ $ballast = 0 ] || echo " and $ballast of ballast") |"
    for compression in gzip zstd:3; do
        rm -rf "$work/cache" "$work/image" "$work/environment.condaimg.lock" "$work/condaimg.lock"
        told=$(cd "$work" && python3 "$OLDPWD/tests/bench/bench.py" memory "$CONDAIMG" build environment.yml --override-channels \
            -c "$CHANNEL" -c "file://$work/channel" --base "oci:$EXAMPLES_CACHE/base:debian" --cache-dir cache --quiet \
            --metadata-file metadata.json --compression "$compression" -o oci:image 2>/dev/null | tail -n 1)
        [ "$compression" = gzip ] && row+=" $(cd "$work" && python3 - <<'PYTHON'
import gzip, json, pathlib
size = 0
manifest = json.loads(pathlib.Path("image/index.json").read_text())["manifests"][0]["digest"].replace(":", "/")
for layer in json.loads(pathlib.Path("image/blobs", manifest).read_text())["layers"][1:]:
    with gzip.open(pathlib.Path("image/blobs", layer["digest"].replace(":", "/"))) as tar:
        while chunk := tar.read(1 << 20):
            size += len(chunk)
print(size // 1_000_000)
PYTHON
) |"
        row+=" $(echo "$told" | grep -o '[0-9]* MiB' | cut -d' ' -f1) |"
    done
    echo "$row"
done
