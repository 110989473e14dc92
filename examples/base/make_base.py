"""make_base.py DEBS OUT: a small Debian image, made of Debian packages that are there already, as an OCI layout in OUT.

DEBS holds a folder for each architecture. The tag `debian` is the image for amd64, `debian-multi` an index of all.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Union

TAG = "debian"
INDEX_TAG = "debian-multi"
ARCHITECTURES = ("amd64", "arm64")
REF_NAME = "org.opencontainers.image.ref.name"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# For all that the image holds; when the packages were made says the config.
MTIME = 0
MERGED = ("bin", "lib", "lib64", "sbin")
FOLDERS = (
    "dev",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "usr/local/bin",
    "usr/local/lib",
    "var/lib",
    "var/log",
)
WITHOUT = re.compile(
    r"usr/share/(man|locale|info|lintian|bug|doc-base)/|usr/share/doc/.*/(?!copyright$)[^/]*$|usr/share/doc/[^/]*$"
)
MEDIA = "application/vnd.oci.image"

PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUP = "root:x:0:\nstaff:x:50:\ntty:x:5:\nnogroup:x:65534:\n"
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"

# Of each path: a file's bytes and whether it can be run, or a link's target.
Entry = Union["tuple[bytes, bool]", str]


def usr_merged(name: str) -> str:
    """Debian 12's packages still name files in /bin and /lib; its roots hold links of these names."""
    return f"usr/{name}" if name.split("/")[0] in MERGED else name


def read_tree(root: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in sorted(root.rglob("*")):
        name = usr_merged(str(path.relative_to(root)))
        if path.is_symlink():
            entries[name] = os.readlink(path)
        elif path.is_file() and not WITHOUT.match(name):
            entries[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return entries


def certificates(entries: dict[str, Entry]) -> bytes:
    """What update-ca-certificates would write."""
    found = [
        entry[0]
        for name, entry in sorted(entries.items())
        if name.startswith("usr/share/ca-certificates/") and not isinstance(entry, str)
    ]
    return b"".join(found)


def root_entries(debs: list[Path], work: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for deb in debs:
        target = work / deb.stem
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(target)], check=True)
        entries.update(read_tree(target))
        control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True).stdout
        # Where scanners look for the packages of an image that has no package manager.
        entries[f"var/lib/dpkg/status.d/{deb.name.split('_')[0]}"] = (control, False)
    entries["etc/ssl/certs/ca-certificates.crt"] = (certificates(entries), False)
    # Only amd64 has a lib64.
    merged = [name for name in MERGED if name != "lib64" or any(entry.startswith("usr/lib64/") for entry in entries)]
    entries.update({name: f"usr/{name}" for name in merged})
    entries["usr/bin/sh"] = "dash"
    for name, text in {"etc/passwd": PASSWD, "etc/group": GROUP, "etc/nsswitch.conf": NSSWITCH}.items():
        entries[name] = (text.encode(), False)
    return entries


def folders_of(entries: dict[str, Entry]) -> set[str]:
    folders = set(FOLDERS) | {"tmp", "var/tmp"}
    for name in [*entries, *folders]:
        folders |= {str(parent) for parent in Path(name).parents if str(parent) != "."}
    return folders


def tar_bytes(entries: dict[str, Entry]) -> bytes:
    """Sorted, owned by root, of one time."""
    buffer = io.BytesIO()
    folders = folders_of(entries)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(folders | set(entries)):
            item, data = tarfile.TarInfo(name), b""
            item.mtime, item.mode = MTIME, 0o755
            entry = entries.get(name)
            if entry is None:
                item.type = tarfile.DIRTYPE
                item.mode = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700}.get(name, 0o755)
            elif isinstance(entry, str):
                item.type, item.linkname, item.mode = tarfile.SYMTYPE, entry, 0o777
            else:
                data, executable = entry
                item.size, item.mode = len(data), 0o755 if executable else 0o644
            tar.addfile(item, io.BytesIO(data))
    return buffer.getvalue()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Layout:
    """An OCI layout that is being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)
        self.write("oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))

    def write(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def blob(self, kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.write(f"blobs/sha256/{digest}", data)
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def config_of(layer: bytes, architecture: str, created: str) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": created, "created_by": "examples/base/make.sh", "comment": "Debian packages"}],
    }


def write_image(layout: Layout, layer: bytes, architecture: str, created: str) -> dict[str, Any]:
    """Gives the descriptor of the image's manifest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": layout.blob("config.v1+json", canonical(config_of(layer, architecture, created))),
        "layers": [layout.blob("layer.v1.tar+gzip", gzip.compress(layer, mtime=0))],
    }
    platform = {"architecture": architecture, "os": "linux"}
    return {**layout.blob("manifest.v1+json", canonical(manifest)), "platform": platform}


def index_of(manifests: list[dict[str, Any]]) -> bytes:
    return canonical({"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": manifests})


def newest_file(root: Path) -> str:
    newest = max(int(path.lstat().st_mtime) for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return datetime.fromtimestamp(newest, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_image(layout: Layout, folder: Path, architecture: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        layer = tar_bytes(root_entries(sorted((folder / architecture).glob("*.deb")), Path(work)))
        descriptor = write_image(layout, layer, architecture, newest_file(Path(work)))
    print(f"{architecture}: {descriptor['digest']}, {len(layer) >> 20} MiB unpacked", file=sys.stderr)
    return descriptor


def main() -> None:
    folder, out = (Path(argument) for argument in sys.argv[1:])
    layout = Layout(out)
    images = [make_image(layout, folder, architecture) for architecture in ARCHITECTURES]
    tags = {TAG: images[0], INDEX_TAG: layout.blob("index.v1+json", index_of(images))}
    tagged = [{**descriptor, "annotations": {REF_NAME: tag}} for tag, descriptor in tags.items()]
    layout.write("index.json", index_of(tagged))


if __name__ == "__main__":
    main()
