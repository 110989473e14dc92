# Sourced by heavy.sh: every archive of the corpus against rattler's tree, and its bytecode. CORPUS adds directories.
# shellcheck shell=bash

part_corpus() {
    # shellcheck disable=SC2086 # a list of directories
    CONDAIMG=$CONDAIMG tests/corpus/run.sh ${CORPUS:-}
}
