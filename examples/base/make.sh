#!/usr/bin/env bash
# make.sh [--out DIR]: a small base image (libc, a shell, coreutils, CA certificates, time zones) made of Debian's packages, as
# an OCI layout with the tags `debian` (amd64) and `debian-multi` (an index of amd64 and arm64). Default DIR: examples/.cache/base
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=examples/lib.sh
. "$here/../lib.sh"

out=$EXAMPLES_CACHE/base
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder} && shift 2 ;;
    *) die "usage: make.sh [--out DIR]" ;;
    esac
done

# No libstdc++: an environment that needs it brings its own, and here one sees whether that is found.
packages=(base-files ca-certificates libc6 libgcc-s1 tzdata
    dash coreutils libacl1 libattr1 libgmp10 libpcre2-8-0 libselinux1)

make_base() { # OUT SCRATCH
    note "making the example base image"
    need_apt dpkg-deb=dpkg
    apt_download "$2/debs/amd64" "${packages[@]}"
    apt_download_for arm64 "$2/debs/arm64" "${packages[@]}"
    PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 python3 "$here/make_base.py" "$2/debs" "$1"
}

make_once "$out" "$(digest_of "$here"/make.sh "$here"/*.py)" make_base
