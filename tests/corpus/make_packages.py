"""make_packages.py OUT [COUNT]: conda packages as the two tools write them that make nearly all of them.

conda-build's writer is conda-package-handling, rattler-build's comes with py-rattler-build (both in a venv, with the Python of
the environments: the byte code is made by it). Each package has modules with fractional times and byte code: fitting, with
another time, and of another source; beside them links of all kinds, entry points, activation and post-link scripts.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import random
import shutil
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from conda_package_handling import api
from rattler_build import ArchiveType, assemble_package

TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
EPOCH = 1_700_000_000
PLACEHOLDER = ("/build/" + "placehold_" * 30)[:255]


def put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def touch(path: Path, chance: random.Random) -> None:
    time = EPOCH + chance.random() * 1000
    os.utime(path, (time, time), follow_symlinks=False)


def add_module(site: Path, name: str, chance: random.Random) -> None:
    source = site / f"{name}.py"
    put(source, f"VALUE = {chance.randrange(10**9)}\n" * chance.randrange(1, 40))
    touch(source, chance)
    code = source.parent / "__pycache__" / f"{source.stem}.{TAG}.pyc"
    how = py_compile.PycInvalidationMode
    mode = chance.choice([how.TIMESTAMP] * 8 + [how.CHECKED_HASH, how.UNCHECKED_HASH])
    py_compile.compile(str(source), cfile=str(code), dfile=f"{PYTHON}/{name}.py", invalidation_mode=mode)
    touch(code, chance)
    odd = chance.random()
    if odd < 0.1:
        touch(source, chance)
    elif odd < 0.15 and mode is not how.UNCHECKED_HASH:
        put(source, "# edited after it was compiled\n" + source.read_text())
        touch(source, chance)


def stage(root: Path, noarch: bool, chance: random.Random) -> None:
    site = root / ("site-packages" if noarch else f"lib/{PYTHON}/site-packages")
    for number in range(chance.randrange(3, 25)):
        add_module(site / "corpus", f"m{number}", chance)
    put(root / "share/corpus/file", "content\n")
    put(root / "share/corpus/script", f"#!{PLACEHOLDER}/bin/sh\n", 0o755)
    put(root / "etc/conda/activate.d/corpus.sh", "export CORPUS=1\n")
    put(root / "share/corpus/ünï-日", "a name\n")
    os.link(root / "share/corpus/file", root / "share/corpus/hard")
    for name, target in {"link": "file", "dangling": "nowhere", "folder": "../corpus", "absolute": "/etc/hostname"}.items():
        (root / "share/corpus" / name).symlink_to(target)
    if not noarch:
        put(root / "bin/.corpus-post-link.sh", "#!/bin/sh\nexit 1\n", 0o755)
    for path in sorted(root.rglob("*")):
        if (path.is_symlink() or path.is_file()) and "corpus/m" not in str(path) and "__pycache__" not in str(path):
            touch(path, chance)


def describe(root: Path, name: str) -> dict[str, Any]:
    path = root / name
    data = path.read_bytes() if path.is_file() and not os.path.isabs(os.readlink(path) if path.is_symlink() else "") else b""
    entry: dict[str, Any] = {
        "_path": name,
        "path_type": "softlink" if path.is_symlink() else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if not path.is_symlink() and PLACEHOLDER.encode() in data:
        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry


def files_of(root: Path) -> list[str]:
    found = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return sorted(str(path.relative_to(root)) for path in found)


def by_conda_build(root: Path, name: str, noarch: bool, extension: str, out: Path) -> None:
    names = files_of(root)
    index: dict[str, Any] = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "depends": ["python"]}
    index |= {"subdir": "noarch", "noarch": "python"} if noarch else {"subdir": "linux-64", "arch": "x86_64", "platform": "linux"}
    put(root / "info/index.json", json.dumps(index))
    put(root / "info/files", "".join(f"{name}\n" for name in names))
    put(root / "info/paths.json", json.dumps({"paths_version": 1, "paths": [describe(root, name) for name in names]}))
    if noarch:
        points = {"type": "python", "entry_points": ["corpus = corpus.m0:main", "corpus-sub = corpus.m0:main.sub"]}
        put(root / "info/link.json", json.dumps({"noarch": points, "package_metadata_version": 1}))
    api.create(str(root), files_of(root), f"{name}-1.0-0{extension}", str(out))


def by_rattler_build(root: Path, name: str, noarch: bool, kind: ArchiveType, out: Path) -> None:
    assemble_package(
        name,
        "1.0",
        "noarch" if noarch else "linux-64",
        "0",
        out,
        files_dir=root,
        depends=["python"],
        noarch="python" if noarch else None,
        archive_type=kind,
        timestamp=datetime.fromtimestamp(EPOCH, timezone.utc),
    )


def main(out: str, count: str = "5") -> None:
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(int(count)):
        for noarch in (False, True):
            for extension, kind in ((".conda", ArchiveType.Conda), (".tar.bz2", ArchiveType.TarBz2)):
                chance = random.Random(f"{number} {noarch} {extension}")
                work = Path(tempfile.mkdtemp())
                stage(work, noarch, chance)
                suffix = f"{'noarch' if noarch else 'arch'}-{extension.split('.')[-1]}-{number}"
                by_rattler_build(work, f"rattler-build-{suffix}", noarch, kind, folder)
                by_conda_build(work, f"conda-build-{suffix}", noarch, extension, folder)
                shutil.rmtree(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
