"""What cache.sh measures: builds of which nothing, or one small package, changed."""

import argparse
import hashlib
import http.server
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from pathlib import Path

MAIN = "python=3.11 numpy scipy pandas flask fastapi sympy networkx requests pytest".split()
LARGE = Path("tests/bench/environments/example-py311.yml")


class Channel(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what is asked for."""

    asked: list[str] = []

    def log_message(self, *_) -> None:
        self.asked.append(self.path)


def small(folder: Path, version: str) -> None:
    """A channel with the package `bench-small` in this version and all before."""
    noarch = folder / "noarch"
    noarch.mkdir(parents=True, exist_ok=True)
    (folder / "linux-64").mkdir(exist_ok=True)
    module = f"VERSION = '{version}'\n" * 50
    path = "site-packages/bench_small.py"
    index = {"name": "bench-small", "version": version, "build": "py_0", "build_number": 0, "depends": ["python"], "subdir": "noarch",
             "noarch": "python", "timestamp": 1_700_000_000_000}
    listed = {"paths_version": 1, "paths": [{"_path": path, "path_type": "hardlink", "size_in_bytes": len(module),
                                             "sha256": hashlib.sha256(module.encode()).hexdigest()}]}
    files = {path: module, "info/index.json": json.dumps(index), "info/paths.json": json.dumps(listed),
             "info/link.json": json.dumps({"noarch": {"type": "python"}, "package_metadata_version": 1})}
    archive = noarch / f"bench-small-{version}-py_0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(text.encode()), 0o644, 1_700_000_000
            tar.addfile(entry, io.BytesIO(text.encode()))
    data = archive.read_bytes()
    file = noarch / "repodata.json"
    repodata = json.loads(file.read_text()) if file.exists() else {"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": {}}
    repodata["packages"][archive.name] = {**index, "sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest(),
                                          "size": len(data)}
    file.write_text(json.dumps(repodata))
    (folder / "linux-64/repodata.json").write_text(json.dumps({"info": {"subdir": "linux-64"}, "packages": {}, "packages.conda": {}}))


def run(command: list[str], **options) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    def __init__(self, options: argparse.Namespace, name: str, specs: list[str]):
        self.options, self.name, self.specs = options, name, specs
        self.number = 0
        self.folder = options.work / name
        self.folder.mkdir()
        self.small = options.work / f"{name}-small"
        small(self.small, "1.0")
        (self.folder / "environment.yml").write_text(
            "channels: []\ndependencies:\n" + "".join(f'  - "{spec}"\n' for spec in [*specs, "bench-small"]))
        self.asked: list[str] = []
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(type("Asked", (Channel,), {"asked": self.asked}), directory=options.channel))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

    def condaimg(self, command: str, machine: str, *flags: str) -> tuple[float, float]:
        home = self.options.work / f"{self.name}-{machine}"
        home.mkdir(exist_ok=True)
        base = [] if "--cache-dir" in flags else ["--cache-dir", str(home / "cache")]
        return run([self.options.condaimg, command, "environment.yml", "--override-channels", "-c", self.url, "-c", f"file://{self.small}",
                    "--base", f"oci:{self.options.base}:debian", "--quiet", *base, *flags],
                   cwd=self.folder, env={"PATH": os.environ["PATH"], "HOME": str(home)})

    def push(self, machine: str, *flags: str) -> tuple[float, float]:
        return self.condaimg("build", machine, "--push", "-t", f"{self.options.registry}/bench/{self.name}:1", "--metadata-file",
                             str(self.options.work / "metadata.json"), *flags)

    def layers(self) -> list[tuple[str, str]]:
        metadata = json.loads((self.options.work / "metadata.json").read_text())
        return [(layer["name"], layer["digest"]) for layer in metadata["platforms"][0]["layers"]] if "platforms" in metadata \
            else [(layer["name"], layer["digest"]) for layer in metadata["layers"]]

    def uploads(self) -> int:
        log = Path(self.options.registry_log).read_text().splitlines()
        return sum('"PUT /v2/' in line and "/blobs/uploads/" in line and 'HTTP/1.1" 201' in line for line in log)

    def bare(self) -> tuple[float, float, int, int]:
        """A runner that has nothing: wall, CPU, packages asked for, blobs sent."""
        self.number += 1
        asked, uploads = len(self.asked), self.uploads()
        wall, cpu = self.push(f"bare-{self.number}", "--locked")
        archives = [path for path in self.asked[asked:] if path.endswith((".conda", ".tar.bz2"))]
        return wall, cpu, len(archives), self.uploads() - uploads

    def measure(self) -> dict:
        cold = self.push("first")
        before = self.layers()
        bare = min(self.bare() for _ in range(self.options.rounds))
        assert self.layers() == before, "the bare runner made another image"
        warm = min(self.push("first", "--locked") for _ in range(self.options.rounds))
        bumps = []
        for number in range(self.options.rounds):
            small(self.small, f"1.{number + 1}")
            self.condaimg("lock", "first", "--upgrade", "bench-small")
            uploads, known = self.uploads(), self.layers()
            bumps.append((*self.push("first", "--locked"), self.uploads() - uploads,
                          [name for name, digest in self.layers() if (name, digest) not in known]))
        return {"cold": cold, "bare": bare, "warm": warm, "bump": min(bumps)}


def buildah(options: argparse.Namespace) -> dict:
    """A Containerfile that copies an installed environment; again unchanged, and with one small package changed."""
    here = options.work / "buildah"
    here.mkdir()
    channel = options.work / "buildah-small"
    small(channel, "1.0")
    program = ["buildah", "--root", str(here / "root"), "--runroot", str(here / "runroot"), "--storage-driver", "overlay"]
    environment = {**os.environ, "CONTAINERS_CONF": options.containers_conf}
    (here / "Containerfile").write_text("FROM oci:../base:debian\nCOPY prefix /opt/conda/envs/default\n")
    install = [options.python, str(Path("tests/bench/rattler_install.py").resolve()), f"file://{options.channel}", "prefix", *MAIN]

    def image() -> tuple[float, float]:
        built = run([*program, "bud", "--layers", "--quiet", "-t", "image", "."], cwd=here, env=environment)
        pushed = run([*program, "push", "--quiet", "--tls-verify=false", "image", f"docker://{options.registry}/bench/buildah:1"], cwd=here,
                     env=environment)
        return built[0] + pushed[0], built[1] + pushed[1]

    installed = run(install, cwd=here)
    first = image()
    cold = installed[0] + first[0], installed[1] + first[1]
    warm = min(image() for _ in range(options.rounds))
    changed = []
    for number in range(options.rounds):
        # Only the file changes: what installing costs is not counted.
        (here / "prefix/lib/python3.11/site-packages/bench_small.py").write_text(f"VERSION = '1.{number}'\n")
        changed.append(image())
    subprocess.run([*program, "rmi", "--all", "--force"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(here, ignore_errors=True)
    return {"cold": cold, "warm": warm, "bump": min(changed)}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ["condaimg", "channel", "registry", "registry-log", "base", "python", "containers-conf"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    options.channel = str(Path(options.channel).resolve())
    large = [line.strip().removeprefix("- ") for line in LARGE.read_text().splitlines() if line.strip().startswith("- ")]

    print("| environment | what | wall s | CPU s | packages fetched | blobs sent |\n|---|---|---|---|---|---|")
    for name, specs in [("main", MAIN), ("large", large)]:
        measured = Bench(options, name, specs).measure()
        title = f"{name} ({len(specs)} specs)"
        print(f"| {title} | cold | {measured['cold'][0]:.2f} | {measured['cold'][1]:.2f} | all | all |")
        wall, cpu, archives, sent = measured["bare"]
        print(f"| {title} | bare runner, nothing changed | {wall:.2f} | {cpu:.2f} | {archives} | {sent} |")
        print(f"| {title} | warm, nothing changed | {measured['warm'][0]:.2f} | {measured['warm'][1]:.2f} | 0 | 0 |")
        wall, cpu, sent, changed = measured["bump"]
        print(f"| {title} | one small noarch package changed | {wall:.2f} | {cpu:.2f} | 1 | {sent}: {', '.join(changed)}, config, lock |",
              flush=True)
    measured = buildah(options)
    for what, key in [("cold (with rattler install)", "cold"), ("nothing changed", "warm"), ("one small file changed", "bump")]:
        print(f"| main, buildah bud and push | {what} | {measured[key][0]:.2f} | {measured[key][1]:.2f} | | |")


if __name__ == "__main__":
    main()
