#!/usr/bin/env bash
# make.sh [--out DIR]: a conda channel with a real CPython 3.11, its libraries and some seventy packages for linux-64, and the
# same CPython with a few of them for linux-aarch64, made from what apt and pip reach. Takes a few minutes once, then nothing.
# Default DIR: examples/.cache/channel
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=examples/lib.sh
. "$here/../lib.sh"

out=$EXAMPLES_CACHE/channel
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder} && shift 2 ;;
    *) die "usage: make.sh [--out DIR]" ;;
    esac
done

python() { PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 "$EXAMPLES_CACHE/channel-venv/bin/python" "$@"; }

wheels() { # DIR REQUIREMENTS MACHINE
    download_wheels "$EXAMPLES_CACHE/channel-venv/bin/python" "$1" "$here/requirements/$2.txt" "$3"
}

make_channel() { # OUT SCRATCH
    local scratch=$2
    note "making the example channel (some minutes, once)"
    need_apt patchelf=patchelf dpkg-deb=dpkg
    need_venv "$EXAMPLES_CACHE/channel-venv" "$here/requirements/tools.txt"
    mapfile -t debs < <(python "$here/make_channel.py" --list-debs)
    [ ${#debs[@]} -gt 0 ] || die "make_channel.py names no Debian packages"
    apt_download "$scratch/debs/amd64" "${debs[@]}"
    apt_download_for arm64 "$scratch/debs/arm64" "${debs[@]}"
    wheels "$scratch/wheels" wheels x86_64
    wheels "$scratch/older" wheels-older x86_64
    wheels "$scratch/aarch64" wheels-aarch64 aarch64
    mv "$scratch"/older/* "$scratch"/aarch64/* "$scratch/wheels"
    python "$here/make_channel.py" "$scratch/debs" "$scratch/wheels" "$1" "$scratch"
}

key=$(digest_of "$here"/make.sh "$here"/*.py "$here"/requirements/*.txt)
make_once "$out" "$key" make_channel
