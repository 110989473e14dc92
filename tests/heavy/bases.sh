# Real bases: Debian with users, as Ubuntu and Fedora's ostree lay them out, and of hard links; images on them run under podman and
# Docker as their own user and as somebody else, by login shells and by `su -`.
# shellcheck shell=bash

# mmdebstrap's hooks get the root as $1.
USERS='printf "app:x:1500:1500::/home/app:/bin/bash\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n" >>"$1/etc/passwd"
printf "app:x:1500:\nubuntu:x:1000:\n" >>"$1/etc/group"
mkdir -p "$1/home/app" "$1/home/ubuntu"
chown 1500:1500 "$1/home/app"; chown 1000:1000 "$1/home/ubuntu"; chmod 750 "$1/home/ubuntu"'

make_debian() { # OUT HOOK
    quietly "$1.log" mmdebstrap --quiet --variant=minbase --include=procps --customize-hook="$USERS" --customize-hook="$2" \
        --aptopt='Apt::Install-Recommends "false"' bookworm "$1"
}

# Every file becomes a hard link to an object, as ostree checks trees out and bootc ships them.
link_all() { # IN OUT
    python3 - "$1" "$2" <<'PYTHON'
import sys, tarfile

source, target = sys.argv[1:]
with tarfile.open(source) as tar, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as out:
    members = tar.getmembers()
    objects = {}
    for member in members:
        if member.isreg():
            name = f"./sysroot/ostree/repo/objects/{len(objects):05}.file"
            objects[member.name] = name
            data = tar.extractfile(member)
            was, member.name = member.name, name
            out.addfile(member, data)
            member.name = was
    for member in members:
        if member.isreg():
            member.type, member.linkname, member.size = tarfile.LNKTYPE, objects[member.name], 0
        elif member.islnk():
            member.linkname = objects[member.linkname]
        elif member.isdev():
            continue
        out.addfile(member)
PYTHON
}

make_bases() { # OUT SCRATCH
    note "making Debian bases (some minutes)"
    make_debian "$1/debian.tar" true
    make_debian "$1/var-home.tar" 'mv "$1/home" "$1/var/home"; ln -s var/home "$1/home"'
    link_all "$1/debian.tar" "$1/hard-links.tar"
}

podman_here() {
    CONTAINERS_CONF=$PWD/examples/containers.conf podman --log-level=error --root "$WORK/podman" --runroot "$WORK/podman-run" \
        --storage-driver overlay --runtime runc "$@"
}

docker_here() { docker --host "unix://$WORK/docker.sock" "$@"; }

start_docker() {
    mkdir -p "$WORK/docker"
    dockerd --data-root "$WORK/docker/data" --exec-root "$WORK/docker/exec" --pidfile "$WORK/docker/pid" \
        --host "unix://$WORK/docker.sock" --bridge=none --iptables=false --ip6tables=false >"$WORK/docker/log" 2>&1 &
    DOCKER_PID=$!
    trap 'kill "$DOCKER_PID" 2>/dev/null; wait "$DOCKER_PID" 2>/dev/null || true' EXIT
    local tries=0
    until docker_here version >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || die "dockerd did not start: $(tail -n 3 "$WORK/docker/log")"
        sleep 0.2
    done
}

expect() { # WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || die "$1: expected \`$2\`, found \`$3\`"
}

# What is run in each image by each engine.
try_image() { # NAME USER HOME ENGINE IMAGE FLAGS...
    local name=$1 user=$2 home=$3 engine=$4 image=$5 found bin=/opt/conda/envs/default/bin
    shift 5
    local work='import os, pwd, click; os.chdir(os.environ["HOME"]); open(f"f{os.getuid()}", "w").write("x"); print(os.environ["USER"], os.environ["HOME"], os.path.expanduser("~"))'
    run() { "$engine" run --rm --network=none "$@"; }
    found=$(run "$@" "$image" python -c "$work")
    expect "$name, own user" "$user $home $home" "$found"
    found=$(run "$@" --user 31337:31337 "$image" python -c "$work")
    expect "$name, somebody else" "$user $home $home" "$found"
    found=$(run "$@" "$image" id -un)
    expect "$name, id" "$user" "$found"
    for shell in "sh -lc" "bash -lc"; do
        # shellcheck disable=SC2086 # two words
        found=$(run "$@" "$image" $shell 'echo "${PATH%%:*} $(python -c "import sys; print(sys.prefix)") $CONDA_DEFAULT_ENV"')
        expect "$name, $shell" "$bin ${bin%/bin} default" "$found"
    done
    found=$(run "$@" --user 0:0 "$image" su - "$user" -c 'echo "$(id -un) ${PATH%%:*} $CONDA_DEFAULT_ENV"')
    expect "$name, su -" "$user $bin default" "$found"
    found=$(run "$@" --read-only --tmpfs "$home:mode=1777" --user 4242:4242 "$image" python -c "$work")
    expect "$name, read-only root" "$user $home $home" "$found"
}

part_bases() {
    need_apt mmdebstrap=mmdebstrap podman=podman dockerd=docker.io skopeo=skopeo
    need_registry
    examples/channel/make.sh
    local bases=$EXAMPLES_CACHE/heavy-bases
    make_once "$bases" "$(digest_of tests/heavy/bases.sh)" make_bases
    start_docker
    printf 'name: env\nchannels: [conda-forge]\ndependencies: [python=3.11, click]\n' >"$WORK/environment.yml"
    printf '%-22s %-10s %-14s %9s %9s  %s\n' base user home 'names' 'read (s)' engines
    local base user uid home begin
    for line in "debian conda 31000:0 /home/conda" "debian app 1500:1500 /home/app" "debian ubuntu 1000:0 /home/ubuntu" \
        "var-home app 1500:1500 /home/app" "hard-links app 1500:1500 /home/app"; do
        read -r base user uid home <<<"$line"
        begin=$(date +%s.%N)
        quietly "$WORK/log" "$CONDAIMG" build "$WORK/environment.yml" --override-channels --channel "$EXAMPLES_CACHE/channel" \
            --cache-dir "$WORK/cache" --lock-file "$WORK/$base-$user.lock" --base "rootfs:$bases/$base.tar" --user "$uid" \
            --tag "registry.example/$base-$user:1" --output "oci:$WORK/$base-$user:1" \
            --output "docker-archive:$WORK/$base-$user.tar"
        local seconds names
        seconds=$(python3 -c "import time; print(f'{time.time() - $begin:.1f}')")
        names=$(tar -tf "$bases/$base.tar" | wc -l)
        podman_here pull --quiet "oci:$WORK/$base-$user:1" >"$WORK/id"
        try_image "$base, podman" "$user" "$home" podman_here "$(cat "$WORK/id")" --cgroups=enabled
        docker_here load --quiet --input "$WORK/$base-$user.tar" >/dev/null
        try_image "$base, docker" "$user" "$home" docker_here "registry.example/$base-$user:1"
        rm -rf "${WORK:?}/$base-$user" "$WORK/$base-$user.tar"
        printf '%-22s %-10s %-14s %9s %9s  podman, docker\n' "$base" "$user" "$home" "$names" "$seconds"
    done
    local lines
    lines=$(sed -n '/^          symlinks:/,/^          [a-z-]*:$/p' "$WORK/debian-app.lock" | grep -c '^            ' || true)
    printf 'symlinks of debian in the lock: %s\n' "$lines"
}
