#!/usr/bin/env bash
# pull.sh: what nodes pull when images are rebuilt week by week from real release history, by ways to cut layers.
#
#   pull.sh [ENVIRONMENTS.yaml [DATA [CACHE]]]
#       what is replayed      [default: tests/bench/pull/environments.yaml]
#       where the indexes lie: CHANNEL/SUBDIR/repodata.json or .json.zst [default: tests/data]
#       what is kept of solves between runs [default: target/bench-pull]
#
# Solving takes two minutes the first time, all else one. The tables go to standard output.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec cargo run --quiet --release --locked --example pull -- "$@"
