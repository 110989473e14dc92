#!/usr/bin/env bash
# run.sh: every check and test of the project, on a Debian 12 with Rust and Python, as root or with sudo.
#
# Installs what is missing, makes the example channel and base (kept in examples/.cache), then looks at the format, runs clippy
# and all tests. What is compiled is kept in target/, and shared with examples/quickstart.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. examples/lib.sh
export EXAMPLES_CACHE

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The tests say what they run, and in which package it is: program("umoci", "umoci").
programs_of_tests() {
    # uv comes by pip.
    grep -rhoE 'program\("[^"]+", "[^"]+"\)' tests/it | sort -u | sed -E 's/.*\("([^"]+)", "([^"]+)"\)/\1=\2/' | grep -v '^uv='
}

install_tools() {
    # shellcheck disable=SC2046 # one PROGRAM=PACKAGE per line
    need_apt python3=python3 cc=build-essential openssl=openssl htpasswd=apache2-utils tar=tar \
        podman=podman buildah=buildah oci-image-tool=oci-image-tool skopeo=skopeo umoci=umoci $(programs_of_tests)
    need_registry
    need_uv
}

find_rust() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || die "cargo was not found: install Rust first"
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
    command -v rustup >/dev/null || die "rustfmt or clippy is missing: install them with your Rust (rustup component add rustfmt clippy)"
    note "installing with rustup: rustfmt clippy"
    quietly "$log" rustup component add rustfmt clippy
}

# The tests mount file systems and run containers: without root, cargo starts them by sudo.
run_as_root() {
    local host
    [ "$(id -u)" -ne 0 ] || return 0
    as_root true
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo env PATH=$PATH EXAMPLES_CACHE=$EXAMPLES_CACHE"
}

step "Tools, example channel, base image, wheels"
install_tools
find_rust
run_as_root
examples/channel/make.sh
examples/base/make.sh
examples/wheels/make.sh
# py-rattler, by which locks are read.
need_venv "$EXAMPLES_CACHE/bench-venv" tests/bench/requirements.txt

step "Format"
cargo fmt --check

# Both in the release profile: they share build scripts and procedural macros, and packing in debug builds takes minutes.
step "Lints"
cargo clippy --release --all-targets --locked -- -D warnings

# The dependencies are optimised, condaimg is not: optimising it for its tests takes longer than it saves.
step "Tests"
status=0
cargo test --release --locked --no-fail-fast --config profile.release.package.condaimg.opt-level=0 2>&1 | tee "$log" || status=$?

step "Results"
grep '^test result: ' "$log" || true
[ "$status" -eq 0 ] || die "not all tests passed"
