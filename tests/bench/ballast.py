"""ballast.py FOLDER COUNT MEGABYTES: a channel of COUNT packages `ballast-N` of so many megabytes each.

Their files are half random and half text, so that they compress as binaries do. Needs the program zstd.
"""

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

FILE_BYTES = 20_000_000


def content(seed: int, size: int) -> bytes:
    source = random.Random(seed)
    block = source.randbytes(4096) + (b"text that says the same again and again. " * 100)[:4096]
    # Each block differs, so that a long window finds no copy of it.
    return b"".join(source.randbytes(2048) + block[2048:] for _ in range(size // len(block)))


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def package(folder: Path, number: int, size: int) -> tuple[str, dict]:
    name, stem = f"ballast-{number}", f"ballast-{number}-1.0-0"
    files = {f"share/{name}/{index}": content(number * 1000 + index, FILE_BYTES) for index in range(max(1, size // FILE_BYTES))}
    paths = [{"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
             for path, data in files.items()]
    index = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch", "noarch": "generic",
             "timestamp": 1_700_000_000_000}
    info = {"info/index.json": json.dumps(index).encode(),
            "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}).encode()}
    archive = folder / f"{stem}.conda"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as written:
        written.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        written.writestr(f"pkg-{stem}.tar.zst", zstd(tar(files)))
        written.writestr(f"info-{stem}.tar.zst", zstd(tar(info)))
    data = archive.read_bytes()
    return archive.name, {**index, "sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest(), "size": len(data)}


def main() -> None:
    folder, count, megabytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for subdir in ["noarch", "linux-64"]:
        (folder / subdir).mkdir(parents=True, exist_ok=True)
    packages = dict(package(folder / "noarch", number, megabytes * 1_000_000) for number in range(count))
    for subdir, known in [("noarch", packages), ("linux-64", {})]:
        repodata = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": known}
        (folder / subdir / "repodata.json").write_text(json.dumps(repodata))


if __name__ == "__main__":
    main()
