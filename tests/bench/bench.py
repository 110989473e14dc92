"""Runs ways to make an image of one environment side by side and prints a table; or samples the memory of a command.

    bench.py table SETTINGS.json       the table, as Markdown
    bench.py memory COMMAND...         peak of the summed PSS of the process tree
    bench.py layout DIR MEGABYTES      an OCI layout with an image of that size, tag `bench`
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05


@dataclass
class Row:
    """A way to make the image: a shell command, run in an empty folder."""

    name: str
    command: str
    # What is done first in the same folder; not measured.
    before: str = ""


@dataclass
class Reading:
    wall: float
    cpu: float
    size: int


def run_once(row: Row, number: int) -> Reading:
    """Wall and CPU seconds of the command and all that it waited for; bytes of what it left in ./result."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = {**os.environ, "NUMBER": str(number)}
        if row.before:
            subprocess.run(["bash", "-euo", "pipefail", "-c", row.before], cwd=folder, env=environment, check=True,
                           stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", row.command], cwd=folder, env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        if status != 0:
            sys.exit(f"{row.name} failed:\n{output.decode(errors='replace')}")
        result = Path(folder, "result")
        size = int(result.read_text()) if result.is_file() else sum(f.stat().st_size for f in result.rglob("*") if f.is_file())
        subprocess.run(["chmod", "-R", "u+w", folder], check=False)
        return Reading(wall, usage.ru_utime + usage.ru_stime, size)


def table(settings: dict) -> None:
    """Every row `rounds` times, interleaved, so that a noisy minute hits all of them; the best of each counts."""
    rows = [Row(**row) for row in settings["rows"]]
    best: dict[str, Reading] = {}
    number = 0
    for _ in range(settings["rounds"]):
        for row in rows:
            number += 1
            reading = run_once(row, number)
            known = best.get(row.name, reading)
            best[row.name] = Reading(min(known.wall, reading.wall), min(known.cpu, reading.cpu), reading.size)
            print(f"{row.name}: {reading.wall:.1f} s wall, {reading.cpu:.1f} s CPU", file=sys.stderr)
    print("| what | wall s | CPU s | layers MB |\n|---|---|---|---|")
    for row in rows:
        reading = best[row.name]
        print(f"| {row.name} | {reading.wall:.1f} | {reading.cpu:.1f} | {reading.size / 1e6:.0f} |")


def tree(root: int) -> list[int]:
    """The process and all below it."""
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                pending += [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return found


def pss(pid: int) -> int:
    """The process's share of memory in KiB; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def memory(command: list[str]) -> None:
    """Peak over time of the PSS summed over the tree. A sum of the processes' own peaks would be too much, the
    largest process alone too little."""
    process = subprocess.Popen(command)
    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, sum(pss(pid) for pid in tree(process.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    status = process.wait()
    done.set()
    sampler.join()
    print(f"peak memory of the process tree: {peak / 1024:.0f} MiB")
    sys.exit(status)


def layout(folder: Path, megabytes: int) -> None:
    """An image of six layers that nothing compresses, the largest half of all: as images with one heavy package are."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, media_type: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(value: dict, kind: str) -> dict:
        return blob(json.dumps(value).encode(), f"application/vnd.oci.image.{kind}.v1+json")

    layers, diff_ids = [], []
    for number, share in enumerate([0.02, 0.03, 0.1, 0.15, 0.2, 0.5]):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            data = os.urandom(int(megabytes * 1e6 * share))
            entry = tarfile.TarInfo(f"file-{number}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        diff_ids.append("sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest())
        layers.append(blob(gzip.compress(buffer.getvalue(), 1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = document({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": document(config, "config"), "layers": layers,
    }, "manifest")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def main() -> None:
    match sys.argv[1:]:
        case ["table", file]:
            table(json.loads(Path(file).read_text()))
        case ["memory", *command] if command and shutil.which(command[0]):
            memory(command)
        case ["layout", folder, megabytes]:
            layout(Path(folder), int(megabytes))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
