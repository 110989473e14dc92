#!/usr/bin/env bash
# quickstart.sh: from an environment.yml to a container that runs, on a Debian 12 with Rust and Python.
#
# Makes a small conda channel and a base image, builds condaimg, starts a registry on loopback, builds and pushes an image,
# runs it with podman and with runc, and builds it again. What it starts, it stops; what it keeps is in examples/.cache and target/.
# CONDAIMG=PROGRAM uses that program instead of compiling.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. examples/lib.sh

work=$(mktemp -d)
clean_up() {
    stop_registry
    # Containers' files belong to others.
    rm -rf "$work" 2>/dev/null || as_root rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bold='' plain=''
[ ! -t 1 ] || [ -n "${NO_COLOR:-}" ] || bold=$'\033[1m' plain=$'\033[0m'
step() { printf '\n%s== %s%s (%d s)\n' "$bold" "$*" "$plain" "$SECONDS"; }

prepare() {
    need_apt python3=python3 cc=build-essential podman=podman conmon=conmon runc=runc skopeo=skopeo umoci=umoci
    need_registry
    need_uv
    examples/channel/make.sh
    examples/base/make.sh
}

compile() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || die "cargo was not found: install Rust first"
    cargo build --release --locked
    CONDAIMG=${CARGO_TARGET_DIR:-target}/release/condaimg
}

# Prints REF@DIGEST. The environment.yml asks for conda-forge, as most do; here the example channel takes its place.
build() {
    "$CONDAIMG" build examples/quickstart/environment.yml \
        --override-channels -c "file://$EXAMPLES_CACHE/channel" \
        --base "oci:$EXAMPLES_CACHE/base:debian" \
        --lock-file "$work/condaimg.lock" --cache-dir "$work/cache" \
        -t "$image" --push
}

# From the registry's own log.
uploads() { grep -cE '"(POST|PUT|PATCH) [^ ]*/blobs/uploads/' "$work/registry/log" || true; }

podman_here() {
    as_root env CONTAINERS_CONF="$EXAMPLES/containers.conf" podman --log-level=error \
        --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay --runtime runc "$@"
}

# As the strictest platforms run it: no root, nothing writable but /tmp, no network, no capabilities.
podman_run() {
    podman_here run --rm --cgroups=enabled --network=none --user 1000:1000 --read-only --tmpfs /tmp \
        --cap-drop=all --security-opt no-new-privileges "$@"
}

# The same without podman: skopeo pulls, umoci unpacks, runc runs.
runc_run() { # COMMAND...
    skopeo copy --quiet --src-tls-verify=false "docker://$image" "oci:$work/layout:env"
    as_root umoci --log=error unpack --image "$work/layout:env" "$work/bundle"
    as_root python3 examples/quickstart/runc_config.py "$work/bundle/config.json" "$@"
    as_root runc --root "$work/runc" run --bundle "$work/bundle" "condaimg-quickstart-$$" </dev/null
}

python_code='
import os, ssl, sqlite3, sys
import numpy, pandas, flask, requests

frame = pandas.DataFrame({"x": numpy.arange(4)})
print("  python", sys.version.split()[0], "in", sys.prefix)
print("  numpy", numpy.__version__, "| pandas", pandas.__version__, "|", ssl.OPENSSL_VERSION, "| sqlite", sqlite3.sqlite_version)
print("  sum of a data frame:", frame.x.sum(), "| user", os.getuid(), "| root writable:", os.access("/", os.W_OK))
'

step "1. Tools, example channel, base image"
prepare
packages=("$EXAMPLES_CACHE"/channel/*/*.conda "$EXAMPLES_CACHE"/channel/*/*.tar.bz2)
echo "channel: ${#packages[@]} packages, $(du -sh "$EXAMPLES_CACHE/channel" | cut -f1)"

step "2. condaimg"
[ -n "${CONDAIMG:-}" ] || compile
"$CONDAIMG" --version

step "3. Build and push"
start_registry "$work/registry"
image=127.0.0.1:$REGISTRY_PORT/demo/env:1
first=$(build)
echo "$first"
sent=$(uploads)

step "4. Pull and run with podman: user 1000, read-only root, no network"
podman_here pull --quiet --tls-verify=false "$image" >/dev/null
podman_run "$image" python -c "$python_code"
podman_run "$image" env | grep -E '^(PATH|CONDA_PREFIX|APP_MODE)=' | sed 's/^/  /'

step "5. The same with skopeo, umoci and runc"
runc_run python -c "$python_code"

step "6. Build again"
second=$(build)
echo "$second"
sent_again=$(($(uploads) - sent))
[ "$first" = "$second" ] || die "the second build gave another digest"
[ "$sent_again" -eq 0 ] || die "the second build uploaded blobs again"

step "Done"
echo "The image ran under podman and runc as user 1000 on a read-only root without network."
echo "Upload requests: $sent for the first build, none for the second, which gave the same digest."
