#!/usr/bin/env bash
# heavy.sh [PART...]: tests that need more time, disk or network than the test run has, on a Debian 12 as root. Without a name: all.
#
# Each part is a file of tests/heavy/ that is sourced here: PART.sh defines the function part_PART. It may use what examples/lib.sh
# has, $CONDAIMG (the program), and $WORK (an empty directory of its own, gone afterwards); it prints what goes in the docs and
# ends with `die` when something is wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=examples/lib.sh
. examples/lib.sh
export EXAMPLES_CACHE

parts=("$@")
if [ ${#parts[@]} -eq 0 ]; then
    for file in tests/heavy/*.sh; do parts+=("$(basename "$file" .sh)"); done
fi
need_condaimg
CONDAIMG=$(realpath "$CONDAIMG")
for part in "${parts[@]}"; do
    [ -f "tests/heavy/$part.sh" ] || die "no part \`$part\`: $(cd tests/heavy && echo ./*.sh)"
    # podman makes image names of directories, and those have no capitals.
    WORK=${TMPDIR:-/tmp}/condaimg-heavy-$$-$part
    mkdir "$WORK"
    printf '== %s\n' "$part"
    # shellcheck source=/dev/null
    . "tests/heavy/$part.sh"
    # In a shell of its own: a part may leave nothing behind in the next one.
    set +e
    (set -e; "part_$part")
    status=$?
    set -e
    # What engines left mounted there.
    cut -d' ' -f2 /proc/mounts | { grep -F "$WORK/" || true; } | sort -r | while read -r mount; do umount -l "$mount"; done
    rm -rf "$WORK"
    [ $status -eq 0 ] || die "$part failed"
done
