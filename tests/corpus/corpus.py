"""corpus.py CONDAIMG FOLDER...: every conda archive below the folders, each alone: an image of it must hold what rattler
installs, and no byte code in it may be stale.

Needs py-rattler (tests/bench/requirements.txt). An image is built on nothing from a channel that has this one package and
knows of no dependencies; rattler installs the same record at the same prefix. What may differ: the time in a `.pyc` of a
module whose own time is another one, `.pyc` that do not fit their modules (left out), and bits that need a flag. Prints a
line for each archive that differs or is refused by one side only, then the figures. Exit status 1 if anything is wrong.
"""

from __future__ import annotations

import _imp
import asyncio
import concurrent.futures
import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from rattler import BuildString, Gateway, GenericVirtualPackage, MatchSpec, PackageName, Subdir, Version, install, solve
from rattler.package_streaming import extract

PREFIX = "/opt/conda/envs/default"
# The magic numbers of CPython's releases.
MAGIC = {"37": 3394, "38": 3413, "39": 3425, "310": 3439, "311": 3495, "312": 3531, "313": 3571, "314": 3627}
# The first one of Python 3.11, whose hash of a module is another one than before.
MAGIC_OF_SIP13 = 3450
EXECUTABLE = 0o100


@dataclasses.dataclass(frozen=True)
class Node:
    """What is at a path. `mtime` is no part of a comparison."""

    kind: str
    target: str = ""
    data: bytes = b""
    size: int = 0
    executable: bool = False
    mtime: int = dataclasses.field(default=0, compare=False)


def content(path: str, data: bytes) -> bytes:
    """Enough to compare: byte code and modules whole, since one is checked against the other."""
    return data if path.endswith((".pyc", ".py")) else hashlib.sha256(data).digest()


def image_tree(layout: Path) -> dict[str, Node]:
    blob = lambda descriptor: layout / "blobs" / descriptor["digest"].replace(":", "/")  # noqa: E731
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]).read_text())
    tree: dict[str, Node] = {}
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer)) as tar:
            for entry in tar:
                path = "/" + entry.name.rstrip("/")
                if not path.startswith(PREFIX + "/"):
                    continue
                path = path[len(PREFIX) + 1 :]
                if entry.isdir():
                    continue
                if entry.issym():
                    tree[path] = Node("link", target=entry.linkname)
                else:
                    file = tar.extractfile(entry)
                    assert file is not None, path
                    data = file.read()
                    executable = bool(entry.mode & EXECUTABLE)
                    tree[path] = Node("file", "", content(path, data), len(data), executable, int(entry.mtime))
    return tree


def folder_tree(folder: Path) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    for root, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(os.path.join(root, name))]:
            at = Path(root, name)
            path = str(at.relative_to(folder))
            if at.is_symlink():
                tree[path] = Node("link", target=os.readlink(at))
            else:
                data = at.read_bytes()
                stat = at.lstat()
                executable = bool(stat.st_mode & EXECUTABLE)
                tree[path] = Node("file", "", content(path, data), len(data), executable, int(stat.st_mtime))
    return tree


def module_of(path: str) -> tuple[str, str] | None:
    """The module of a `.pyc`, and the digits of its Python."""
    folder, _, name = path.rpartition("/")
    if not path.endswith(".pyc") or os.path.basename(folder) != "__pycache__":
        return None
    stem, _, tag = name[: -len(".pyc")].split(".opt-")[0].rpartition(".")
    if not tag.startswith("cpython-"):
        return None
    return os.path.join(os.path.dirname(folder), stem + ".py"), tag[len("cpython-") :]


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def stale(path: str, tree: dict[str, Node]) -> str | None:
    """Why its Python would not use a `.pyc`."""
    named = module_of(path)
    module = tree.get(named[0]) if named else None
    if named is None or module is None or module.kind != "file":
        return None
    data = tree[path].data
    magic = MAGIC.get(named[1])
    if len(data) < 16 or data[2:4] != b"\r\n" or (magic and int.from_bytes(data[:2], "little") != magic):
        return "bad magic number"
    if word(data, 4) == 0:
        if word(data, 12) != module.size & 0xFFFFFFFF:
            return f"of {word(data, 12)} bytes, not {module.size}"
        if word(data, 8) != module.mtime & 0xFFFFFFFF:
            return f"of {word(data, 8)}, not {module.mtime}"
    # This Python hashes as all do from 3.11 on.
    if word(data, 4) == 3 and int.from_bytes(data[:2], "little") >= MAGIC_OF_SIP13:
        if _imp.source_hash(word(data, 0), module.data) != data[8:16]:
            return "other hash"
    return None if word(data, 4) in (0, 1, 3) else "bad flags"


@dataclasses.dataclass
class Result:
    name: str
    kind: str = "same"
    wrong: list[str] = dataclasses.field(default_factory=list)
    pyc: int = 0
    restamped: int = 0
    left_out: int = 0
    note: str = ""


def compare(result: Result, ours: dict[str, Node], theirs: dict[str, Node]) -> None:
    for path in sorted(ours.keys() | theirs.keys()):
        # Records, rattler's marker, and what sources activation scripts that need a shell.
        if path.startswith("conda-meta/") or path in ("CACHEDIR.TAG", "etc/conda/condaimg-entrypoint.sh"):
            continue
        mine, other = ours.get(path), theirs.get(path)
        if mine is not None and path.endswith(".pyc"):
            result.pyc += 1
            reason = stale(path, ours)
            if reason:
                result.wrong.append(f"{path}: stale: {reason}")
        if mine == other:
            continue
        if mine is None and other is not None and module_of(path):
            # Left out: rightly so only if it does not fit.
            module = module_of(path)
            fits = stale(path, theirs | {module[0]: ours[module[0]]} if module and module[0] in ours else theirs) is None
            result.left_out += 1
            if fits:
                result.wrong.append(f"{path}: left out, though it fits")
        elif mine and other and path.endswith(".pyc") and mine.data[:8] + mine.data[12:] == other.data[:8] + other.data[12:]:
            result.restamped += 1
        else:
            result.wrong.append(f"{path}: {shown(mine)} instead of {shown(other)}")


def shown(node: Node | None) -> str:
    if node is None:
        return "nothing"
    return f"{node.kind} {node.target or node.size} {'x' if node.executable else ''}".strip()


def python_archive() -> bytes:
    """Just enough of a Python to install noarch packages."""
    index = {"name": "python", "version": "3.11.2", "build": "corpus", "build_number": 0, "depends": [], "subdir": "linux-64"}
    files = {
        "bin/python3.11": b"a program",
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps(
            {"paths_version": 1, "paths": [{"_path": "bin/python3.11", "path_type": "hardlink"}]}
        ).encode(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:bz2") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o755, 1_600_000_000
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


PYTHON = python_archive()


def record(data: bytes, index: dict[str, Any]) -> dict[str, Any]:
    keep = {key: index[key] for key in ("name", "version", "build", "build_number", "noarch", "timestamp") if key in index}
    return {
        **keep,
        "build_number": index.get("build_number") or 0,
        "depends": [],
        "subdir": "noarch" if index.get("noarch") or index.get("subdir") == "noarch" else "linux-64",
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "size": len(data),
    }


def make_channel(archive: Path, channel: Path, work: Path) -> dict[str, Any]:
    extract(archive, work / "extracted")
    index = json.loads((work / "extracted/info/index.json").read_text())
    data = archive.read_bytes()
    own = record(data, index)
    packages: dict[str, dict[str, dict[str, Any]]] = {"linux-64": {}, "noarch": {}}
    name = f"{index['name']}-{index['version']}-{index['build']}{'.conda' if archive.suffix == '.conda' else '.tar.bz2'}"
    packages[own["subdir"]][name] = own
    for subdir in packages:
        (channel / subdir).mkdir(parents=True)
    shutil.copy(archive, channel / own["subdir"] / name)
    if index["name"] != "python":
        python = {"name": "python", "version": "3.11.2", "build": "corpus", "build_number": 0}
        packages["linux-64"]["python-3.11.2-corpus.tar.bz2"] = record(PYTHON, python)
        (channel / "linux-64/python-3.11.2-corpus.tar.bz2").write_bytes(PYTHON)
    for subdir, records in packages.items():
        kinds = {"packages": {}, "packages.conda": {}}
        for file, one in records.items():
            kinds["packages.conda" if file.endswith(".conda") else "packages"][file] = one
        repodata = {"info": {"subdir": subdir}, "repodata_version": 1, **kinds}
        (channel / subdir / "repodata.json").write_text(json.dumps(repodata))
    return index


def build(condaimg: str, specs: list[str], channel: Path, work: Path) -> str | None:
    """The image, or why there is none."""
    lines = "".join(f"  - {json.dumps(spec)}\n" for spec in specs)
    (work / "environment.yml").write_text(f"channels: [x]\ndependencies:\n{lines}")
    command = [condaimg, "build", "--override-channels", "--channel", str(channel), "--base", "scratch", "--glibc", "2.99"]
    command += ["--bytecode", "off", "--keep-setuid", "--compression", "gzip:1", "-q"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "CONDAIMG_CACHE_DIR": str(work / "cache")}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    return None if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()}"


async def rattler(specs: list[str], channel: Path, work: Path) -> None:
    unix = GenericVirtualPackage(PackageName("__unix"), Version("0"), BuildString("0"))
    # A gateway of its own: it keeps what it has read.
    gateway = Gateway(cache_dir=work / "gateway")
    records = await solve(
        sources=[channel.as_uri()],
        specs=[MatchSpec(spec) for spec in specs],
        gateway=gateway,
        platforms=[Subdir("linux-64"), Subdir("noarch")],
        virtual_packages=[unix],
    )
    await install(
        records=records,
        target_prefix=work / "oracle",
        cache_dir=work / "packages",
        platform=Subdir("linux-64"),
        alternative_target_prefix=PREFIX,
        execute_link_scripts=False,
        show_progress=False,
    )


def examine(condaimg: str, archive: Path) -> Result:
    result = Result(archive.name)
    # rattler may still write to its cache when it has refused an archive.
    with tempfile.TemporaryDirectory(prefix="corpus-", ignore_cleanup_errors=True) as folder:
        work, channel = Path(folder), Path(folder, "channel")
        try:
            index = make_channel(archive, channel, work)
        except Exception as error:  # noqa: BLE001 - whatever rattler says
            result.kind, result.note = "no package", str(error).splitlines()[0][:150]
            return result
        # As conda writes them: exact.
        specs = [f"{index['name']} =={index['version']} {index['build']}"]
        if index["name"] != "python":
            specs.append("python ==3.11.2 corpus")
        refused = build(condaimg, specs, channel, work)
        try:
            asyncio.run(rattler(specs, channel, work))
            failed = None
        except Exception as error:  # noqa: BLE001
            failed = str(error)
        if refused and failed:
            result.kind, result.note = "both refuse", refused.splitlines()[0][:200]
        elif refused or failed:
            result.kind = "only condaimg refuses" if refused else "only rattler refuses"
            result.note = (refused or failed or "")[:600]
        else:
            compare(result, image_tree(work / "image"), folder_tree(work / "oracle"))
            result.kind = "different" if result.wrong else "same"
    return result


def archives(folders: list[str]) -> list[Path]:
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).resolve().rglob("*")):
            if path.is_file() and path.name.endswith((".conda", ".tar.bz2")):
                found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return list(found.values())


def main(condaimg: str, *folders: str) -> int:
    found = archives(list(folders))
    with concurrent.futures.ProcessPoolExecutor(int(os.environ.get("JOBS", os.cpu_count() or 1))) as pool:
        results = list(pool.map(examine, [str(Path(condaimg).resolve())] * len(found), found))
    kinds: dict[str, int] = {}
    for result in results:
        kinds[result.kind] = kinds.get(result.kind, 0) + 1
        if result.kind != "same":
            print(f"{result.kind}: {result.name} {result.note}")
        for line in result.wrong[:10]:
            print(f"    {line}")
    pyc, restamped, left_out = (sum(getattr(it, key) for it in results) for key in ("pyc", "restamped", "left_out"))
    print(json.dumps({"archives": len(results), **kinds, "pyc": pyc, "restamped": restamped, "pyc left out": left_out}))
    return 1 if kinds.keys() & {"different", "only condaimg refuses"} else 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    # Its threads sometimes crash while the interpreter ends, when all is done.
    os._exit(status)
