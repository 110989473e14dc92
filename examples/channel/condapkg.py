"""Conda packages and channels as bytes: equal files in, equal archives out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

# The longest prefix that conda's own build tools leave room for.
PLACEHOLDER = ("/opt/condaimg-example/_h_env" + "_placehold" * 30)[:255]
# For what has no time of its own: 2023-11-14.
EPOCH = 1_700_000_000
ZIP_DATE = (2023, 11, 14, 0, 0, 0)
ZSTD_LEVEL = 9
ARCH_OF = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}


@dataclass
class Package:
    """What goes into one archive; `root` holds the files, named as in the prefix."""

    name: str
    version: str
    build: str
    root: Path
    depends: list[str] = field(default_factory=list)
    constrains: list[str] = field(default_factory=list)
    license: str = ""
    summary: str = ""
    subdir: str = "linux-64"
    noarch: str | None = None
    entry_points: list[str] = field(default_factory=list)
    extension: str = ".conda"
    licenses: dict[str, bytes] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    def mtime(self, name: str, on_disk: float) -> float:
        """The time of a file in the archive, as the two tools write it that make nearly all conda packages.

        conda-build keeps the file's time, whose fraction goes into a PAX record: the ustar field is rounded, while byte code
        holds the floor. rattler-build gives all files one second, whatever their byte code holds.
        """
        if self.name != "python" and zlib.crc32(self.name.encode()) % 4 == 0:
            return EPOCH
        return int(on_disk) + zlib.crc32(name.encode()) % 1000 / 1000


def put(path: Path, data: bytes | str, mode: int = 0o644, mtime: int = EPOCH) -> None:
    """A file with everything about it said, so that umask and clock have no part in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    os.utime(path, (mtime, mtime))


def link(path: Path, target: str, mtime: int = EPOCH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    os.utime(path, (mtime, mtime), follow_symlinks=False)


def short_hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:7]


def canonical(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def files_of(root: Path) -> list[str]:
    """Files and symbolic links (never followed), sorted; folders exist only through what they hold."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in files + links]
    return sorted(found)


def describe(root: Path, name: str) -> dict[str, Any]:
    """One entry of paths.json."""
    path = root / name
    is_link = path.is_symlink()
    # As conda-build does: a link is described by what it leads to, one that leads nowhere as an empty file.
    inside = not (is_link and os.path.isabs(os.readlink(path)))
    data = path.read_bytes() if inside and path.is_file() else b""
    entry: dict[str, Any] = {
        "_path": name,
        "path_type": "softlink" if is_link else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    # Byte code and static libraries are not relocated.
    if not is_link and not name.endswith((".pyc", ".a")) and PLACEHOLDER.encode() in data:
        entry["prefix_placeholder"] = PLACEHOLDER
        entry["file_mode"] = "binary" if b"\0" in data else "text"
    return entry


def index_record(package: Package, names: list[str]) -> dict[str, Any]:
    """`info/index.json`, which is also most of the package's record in the channel's index."""
    newest = max([EPOCH] + [int((package.root / name).lstat().st_mtime) for name in names])
    record: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "depends": sorted(package.depends),
        "subdir": package.subdir,
        "timestamp": newest * 1000,
    }
    if package.license:
        record["license"] = package.license
    if package.constrains:
        record["constrains"] = sorted(package.constrains)
    if package.noarch:
        record["noarch"] = package.noarch
    else:
        record.update(arch=ARCH_OF[package.subdir], platform="linux")
    return record


def link_record(package: Package) -> dict[str, Any]:
    """`info/link.json`: how a noarch Python package is to be installed."""
    noarch: dict[str, Any] = {"type": "python"}
    if package.entry_points:
        noarch["entry_points"] = package.entry_points
    return {"noarch": noarch, "package_metadata_version": 1}


def info_files(package: Package, names: list[str]) -> dict[str, bytes]:
    """The `info/` folder."""
    paths = [describe(package.root, name) for name in names]
    prefixed = [f'"{PLACEHOLDER}" {path["file_mode"]} "{path["_path"]}"\n' for path in paths if "file_mode" in path]
    info = {
        "info/index.json": canonical(index_record(package, names)),
        "info/paths.json": canonical({"paths": paths, "paths_version": 1}),
        "info/about.json": canonical({"summary": package.summary, "license": package.license}),
        "info/files": "".join(f"{name}\n" for name in names).encode(),
    }
    if prefixed:
        info["info/has_prefix"] = "".join(prefixed).encode()
    if package.noarch == "python":
        info["info/link.json"] = canonical(link_record(package))
    return info | {f"info/licenses/{name}": text for name, text in package.licenses.items()}


def member(name: str, mode: int, mtime: float) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = mode, mtime
    return entry


def add_data(tar: tarfile.TarFile, files: dict[str, bytes]) -> None:
    for name in sorted(files):
        entry = member(name, 0o644, EPOCH)
        entry.size = len(files[name])
        tar.addfile(entry, io.BytesIO(files[name]))


def add_tree(tar: tarfile.TarFile, package: Package, names: list[str]) -> None:
    first_of: dict[int, str] = {}
    for name in names:
        path = package.root / name
        stat = path.lstat()
        entry = member(name, stat.st_mode & 0o777, package.mtime(name, stat.st_mtime))
        if path.is_symlink():
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
            tar.addfile(entry)
        elif stat.st_ino in first_of:
            entry.type, entry.linkname = tarfile.LNKTYPE, first_of[stat.st_ino]
            tar.addfile(entry)
        else:
            if stat.st_nlink > 1:
                first_of[stat.st_ino] = name
            entry.size = stat.st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)


@contextlib.contextmanager
def tar_inside(archive: zipfile.ZipFile, name: str) -> Iterator[tarfile.TarFile]:
    """A .tar.zst as a member of the zip, which only stores what is compressed already."""
    with archive.open(zipfile.ZipInfo(name, ZIP_DATE), "w") as out:
        with zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(out, closefd=False) as packed:
            with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                yield tar


def write_conda(package: Package, path: Path) -> None:
    names = files_of(package.root)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json", ZIP_DATE), canonical({"conda_pkg_format_version": 2}))
        with tar_inside(archive, f"pkg-{package.stem}.tar.zst") as tar:
            add_tree(tar, package, names)
        with tar_inside(archive, f"info-{package.stem}.tar.zst") as tar:
            add_data(tar, info_files(package, names))


def write_tar_bz2(package: Package, path: Path) -> None:
    names = files_of(package.root)
    with tarfile.open(path, "w:bz2", format=tarfile.PAX_FORMAT) as tar:
        add_data(tar, info_files(package, names))
        add_tree(tar, package, names)


def write_package(package: Package, channel: Path) -> None:
    folder = channel / package.subdir
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (package.stem + package.extension)
    if path.exists():
        raise FileExistsError(f"two packages with one name: {path.name}")
    (write_conda if package.extension == ".conda" else write_tar_bz2)(package, path)
    path.chmod(0o644)


def index_in(tar: tarfile.TarFile) -> dict[str, Any]:
    for entry in tar:
        file = tar.extractfile(entry) if entry.name == "info/index.json" else None
        if file is not None:
            return dict(json.load(file))
    raise ValueError("an archive without info/index.json")


def read_index(path: Path) -> dict[str, Any]:
    """`info/index.json` of an archive."""
    if path.suffix == ".bz2":
        with tarfile.open(path, "r|bz2") as tar:
            return index_in(tar)
    with zipfile.ZipFile(path) as archive, archive.open(f"info-{path.stem}.tar.zst") as packed:
        with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                return index_in(tar)


def index_subdir(folder: Path) -> int:
    """Writes repodata.json and .zst; gives the number of packages.

    By hand, because the indexers at hand note the time of indexing in every record: no two channels would be the same.
    """
    kinds: dict[str, dict[str, Any]] = {".bz2": {}, ".conda": {}}
    for path in sorted(folder.iterdir()):
        if path.suffix not in kinds:
            continue
        data = path.read_bytes()
        record = read_index(path)
        record.update(md5=hashlib.md5(data).hexdigest(), sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        kinds[path.suffix][path.name] = record
    packages = {"packages": kinds[".bz2"], "packages.conda": kinds[".conda"], "removed": []}
    repodata = canonical({"info": {"subdir": folder.name}, "repodata_version": 1, **packages})
    put(folder / "repodata.json", repodata)
    put(folder / "repodata.json.zst", zstandard.ZstdCompressor(level=19).compress(repodata))
    return sum(len(kind) for kind in kinds.values())
