# Shell functions that the examples and the tests share. Source it from bash; it runs nothing by itself.
# shellcheck shell=bash

EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Everything that the scripts make and want to keep; git ignores it.
EXAMPLES_CACHE=${EXAMPLES_CACHE:-$EXAMPLES/.cache}
# Debian keeps runc and others in sbin, which ordinary users do not have in PATH.
PATH=$PATH:/usr/sbin:/sbin:$EXAMPLES_CACHE/tools/usr/bin:$EXAMPLES_CACHE/uv/bin
export PATH

note() { printf '%s\n' "$*" >&2; }
die() {
    note "error: $*"
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# quietly LOG COMMAND...: the output only when the command fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        return 1
    fi
}

# A fresh container image has empty package lists, an old machine has outdated ones: on failure, update once and try again.
apt_retry() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        quietly "$log" as_root apt-get update -q || die "apt-get update failed"
        quietly "$log" "$@" || die "this failed: $*"
    fi
    rm -f "$log"
}

apt_install() {
    note "installing with apt: $*"
    apt_retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# need_apt PROGRAM=PACKAGE...: installs the packages whose programs are missing.
need_apt() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# apt_download DIR PACKAGE...: the .deb files, in the version that the mirror has now.
apt_download() {
    local dir=$1
    shift
    [ "$(dpkg --print-architecture)" = amd64 ] || die "the examples need Debian on amd64, not $(dpkg --print-architecture)"
    mkdir -p "$dir"
    (cd "$dir" && apt_retry apt-get download -q -o APT::Sandbox::User=root "$@")
}

# apt_download_for ARCHITECTURE DIR PACKAGE...: the same for a machine of another kind. With package lists of its own: what this
# machine knows and has installed stays as it is.
apt_download_for() {
    local architecture=$1 dir=$2 apt log
    shift 2
    apt=$(mktemp -d)
    log=$apt/log
    mkdir -p "$dir" "$apt"/lists/partial "$apt"/archives/partial
    : >"$apt/status"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "root";
CONF
    quietly "$log" env "APT_CONFIG=$apt/apt.conf" apt-get update -q || die "apt-get update for $architecture failed"
    (cd "$dir" && quietly "$log" env "APT_CONFIG=$apt/apt.conf" apt-get download -q "$@") || die "this failed for $architecture: $*"
    rm -rf "$apt"
}

# need_venv DIR REQUIREMENTS: a virtual environment with exactly what the (hashed) file lists.
need_venv() {
    local dir=$1 requirements=$2 key
    key=$(cat "$requirements" <(python3 -V) | sha256sum | cut -d' ' -f1)
    [ "$(cat "$dir/.key" 2>/dev/null)" != "$key" ] || return 0
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r "$requirements"
    echo "$key" >"$dir/.key"
}

# download_wheels PYTHON DIR REQUIREMENTS MACHINE: wheels for the Python of the example channel, whatever Python runs pip.
download_wheels() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 "$1" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --implementation cp --python-version 3.11.2 \
        --platform "manylinux_2_28_$4" --platform "manylinux_2_17_$4" --platform "manylinux2014_$4" -d "$2" -r "$3"
}

# uv resolves and builds what environments take from PyPI.
need_uv() {
    command -v uv >/dev/null && return 0
    note "installing with pip: uv"
    need_venv "$EXAMPLES_CACHE/uv" "$EXAMPLES/wheels/uv.txt"
}

# The program: CONDAIMG if it is set, else compiled in the current folder.
need_condaimg() {
    [ -z "${CONDAIMG:-}" ] || return 0
    cargo build --release --locked
    CONDAIMG=${CARGO_TARGET_DIR:-$PWD/target}/release/condaimg
}

# Debian's docker-registry package starts a service on port 5000; the program alone is what is wanted here.
need_registry() {
    local dir
    command -v docker-registry >/dev/null && return 0
    note "fetching docker-registry with apt"
    dir=$(mktemp -d)
    apt_download "$dir" docker-registry
    mkdir -p "$EXAMPLES_CACHE/tools"
    dpkg-deb -x "$dir"/docker-registry_*.deb "$EXAMPLES_CACHE/tools"
    rm -rf "$dir"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

registry_answers() { # PORT
    python3 - "$1" <<'PYTHON' 2>/dev/null
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(f"http://127.0.0.1:{sys.argv[1]}/v2/", timeout=2)
PYTHON
}

# start_registry DIR: docker-registry on loopback, its data and log in DIR; sets REGISTRY_PID and REGISTRY_PORT.
start_registry() {
    local dir=$1 tries=0
    mkdir -p "$dir/data"
    REGISTRY_PORT=$(free_port)
    cat >"$dir/config.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: $dir/data}
  delete: {enabled: true}
http: {addr: "127.0.0.1:$REGISTRY_PORT", secret: local}
YAML
    docker-registry serve "$dir/config.yml" >"$dir/log" 2>&1 </dev/null &
    REGISTRY_PID=$!
    until registry_answers "$REGISTRY_PORT"; do
        tries=$((tries + 1))
        if [ $tries -gt 50 ] || ! kill -0 "$REGISTRY_PID" 2>/dev/null; then
            tail -n 5 "$dir/log" >&2
            die "docker-registry did not start on port $REGISTRY_PORT"
        fi
        sleep 0.1
    done
}

stop_registry() {
    [ -n "${REGISTRY_PID:-}" ] || return 0
    kill "$REGISTRY_PID" 2>/dev/null || true
    wait "$REGISTRY_PID" 2>/dev/null || true
    REGISTRY_PID=
}

# digest_of FILE...: one digest for the contents of some files, in the order given.
digest_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

# make_once OUT KEY COMMAND...: runs COMMAND with two more arguments, a fresh folder and one for scratch, and puts the first
# in OUT's place when it succeeded. Does nothing when OUT was made for the same key. A killed run leaves OUT as it was; two
# runs at once wait for each other.
make_once() {
    local out=$1 key=$2
    shift 2
    mkdir -p "$(dirname "$out")"
    (
        flock 9
        [ "$(cat "$out/.key" 2>/dev/null)" != "$key" ] || exit 0
        rm -rf "$out".tmp.*
        work=$out.tmp.$$
        trap 'rm -rf "$work"' EXIT
        mkdir "$work" "$work/out" "$work/scratch"
        "$@" "$work/out" "$work/scratch"
        echo "$key" >"$work/out/.key"
        [ ! -e "$out" ] || mv "$out" "$work/old"
        mv "$work/out" "$out"
    ) 9>"$out.lock"
}
