"""What cache.sh measures: builds whose layers exist, and builds after one package changed."""

import argparse
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable

SPECS = ["python=3.11", "numpy", "scipy", "pandas", "flask", "fastapi", "sympy", "networkx", "requests", "pytest"]
ARCHIVE = re.compile(r"\.(conda|tar\.bz2)$")


class Channels(SimpleHTTPRequestHandler):
    """Serves the channels, and keeps what was asked for."""

    seen: list[str] = []

    def log_request(self, code="-", size="-") -> None:
        self.seen.append(self.path)

    def log_message(self, format, *args) -> None:
        pass


def release(channel: Path, version: str) -> None:
    """Adds a version of the tiny package to its channel."""
    folder = channel / "noarch"
    folder.mkdir(parents=True, exist_ok=True)
    (channel / "linux-64").mkdir(exist_ok=True)
    (channel / "linux-64/repodata.json").write_text(json.dumps({"info": {"subdir": "linux-64"}, "packages": {}, "packages.conda": {}}))
    record = {"name": "bumped", "version": version, "build": "0", "build_number": 0, "depends": ["python"], "subdir": "noarch",
              "noarch": "python", "timestamp": 1_700_000_000_000}
    module = f"VERSION = {version!r}\n".encode()
    paths = [{"_path": "site-packages/bumped.py", "path_type": "hardlink", "size_in_bytes": len(module),
              "sha256": hashlib.sha256(module).hexdigest()}]
    files = {
        "info/index.json": json.dumps(record).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/link.json": json.dumps({"noarch": {"type": "python"}, "package_metadata_version": 1}).encode(),
        "site-packages/bumped.py": module,
    }
    archive = folder / f"bumped-{version}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = 1_700_000_000
            tar.addfile(entry, io.BytesIO(content))
    index = folder / "repodata.json"
    known = json.loads(index.read_text())["packages"] if index.exists() else {}
    content = archive.read_bytes()
    known[archive.name] = {**record, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
                           "md5": hashlib.md5(content).hexdigest()}
    index.write_text(json.dumps({"info": {"subdir": "noarch"}, "packages": known, "packages.conda": {}}))


def run(command: list, **options) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          **options)
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Project:
    """A folder with an environment.yml and its lock, and machines that build it."""

    def __init__(self, options: argparse.Namespace, name: str, environment: str, url: str, channel: Path) -> None:
        self.options, self.name, self.url, self.channel = options, name, url, channel
        self.folder = options.work / name
        self.folder.mkdir()
        release(channel, "1.0")
        (self.folder / "environment.yml").write_text(environment)
        self.lock()

    def on(self, machine: str, command: str, *flags: str) -> tuple[float, float]:
        home = self.folder / machine
        home.mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "CONDAIMG_CACHE_DIR": str(home / "cache")}
        return run([self.options.condaimg, command, "--override-channels", "-c", f"{self.url}/{self.channel.name}", "-c",
                    f"{self.url}/main", "--base", f"oci:{self.options.base}:debian", "--quiet", *flags], cwd=self.folder, env=environment)

    def lock(self, *flags: str) -> None:
        self.on("one", "lock", *flags)

    def build(self, machine: str, repository: str, *flags: str) -> tuple[float, float]:
        return self.on(machine, "build", "--locked", "--push", "-t", f"{self.options.registry}/{repository}:1", "--metadata-file", "m.json",
                       *flags)

    def metadata(self) -> dict:
        return json.loads((self.folder / "m.json").read_text())

    def layers(self) -> dict[str, dict]:
        return {layer["name"]: layer for layer in self.metadata()["layers"]}


def uploads(options: argparse.Namespace) -> list[str]:
    """Digests of the blobs that the registry was sent."""
    found = re.findall(r'"PUT /v2/\S+digest=(sha256(?::|%3A)\w+)\S* HTTP/1.1" 201', options.log.read_text())
    return [digest.replace("%3A", ":") for digest in found]


def best(rounds: int, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    readings = [work() for _ in range(rounds)]
    return min(reading[0] for reading in readings), min(reading[1] for reading in readings)


def watched(project: Project, name: str, work: Callable[[], tuple[float, float]], rounds: int = 1) -> None:
    """A row: time, and what was asked of the channel and sent to the registry meanwhile, by the first round."""
    asked, sent = len(Channels.seen), len(uploads(project.options))
    wall, cpu = work()
    asked = Channels.seen[asked:]
    archives = sum(1 for path in asked if ARCHIVE.search(path))
    new = uploads(project.options)[sent:]
    sizes = {layer["digest"]: layer["size"] for layer in project.layers().values()}
    layer_bytes = sum(sizes.get(digest, 0) for digest in new)
    if rounds > 1:
        again = best(rounds - 1, work)
        wall, cpu = min(wall, again[0]), min(cpu, again[1])
    print(f"| {project.name}: {name} | {wall:.2f} | {cpu:.2f} | {archives} | {len(asked)} | {layer_bytes} |", flush=True)


def measure(project: Project) -> None:
    rounds, count = project.options.rounds, 0

    def bare(repository: str, *flags: str) -> Callable[[], tuple[float, float]]:
        def work() -> tuple[float, float]:
            shutil.rmtree(project.folder / "bare", ignore_errors=True)
            return project.build("bare", repository, *flags)

        return work

    cache = ["--cache-registry", f"{project.options.registry}/{project.name}/cache"]
    watched(project, "cold, archives in the store", lambda: project.build("one", f"{project.name}/env"))
    digest, before = project.metadata()["digest"], project.layers()
    watched(project, "nothing changed, warm", lambda: project.build("one", f"{project.name}/env"), rounds)
    watched(project, "bare runner, image at the tag", bare(f"{project.name}/env"), rounds)
    project.build("one", f"{project.name}/env", *cache)
    watched(project, "bare runner, cache registry, new repository", bare(f"{project.name}/new", *cache))
    if project.metadata()["digest"] != digest:
        sys.exit("the bare runner made another image")

    def bump(version: str) -> None:
        release(project.channel, version)
        project.lock("--upgrade", "bumped")

    def bumped() -> tuple[float, float]:
        nonlocal count
        count += 1
        # The first is prepared already.
        if count > 1:
            bump(f"1.{count}")
        return project.build("one", f"{project.name}/env")

    bump("1.1")
    count = 0
    watched(project, "one small package changed", bumped, rounds)
    after = project.layers()
    changed = [f"{name} ({layer['size']} B)" for name, layer in after.items() if before.get(name, {}).get("digest") != layer["digest"]]
    print(f"\n{project.name}: {len(after)} layers, {sum(layer['size'] for layer in after.values()) / 1e6:.0f} MB; changed: "
          f"{', '.join(changed)}\n", flush=True)


def buildah(options: argparse.Namespace) -> None:
    """The same environment, already installed, as one COPY."""
    folder = options.work / "buildah"
    folder.mkdir()
    run([options.installer, Path(__file__).parent / "rattler_install.py", f"file://{options.channel}", folder / "prefix", *SPECS])
    module = folder / "prefix/lib/python3.11/site-packages/bumped.py"
    module.write_text("VERSION = '1.0'\n")
    (folder / "Dockerfile").write_text("FROM oci:base:debian\nCOPY prefix /opt/conda/envs/default\n")
    # buildah makes a name of the path.
    (folder / "base").symlink_to(options.base)
    program = ["buildah", "--root", folder / "root", "--runroot", folder / "runroot", "--storage-driver", "overlay"]
    target = f"docker://{options.registry}/buildah/env:1"

    def work() -> tuple[float, float]:
        built = run([*program, "bud", "--quiet", "--layers", "-t", "image", "-f", "Dockerfile",
                     "--ignorefile", "/dev/null", "."], cwd=folder)
        pushed = run([*program, "push", "--quiet", "--tls-verify=false", "image", target], cwd=folder)
        return built[0] + pushed[0], built[1] + pushed[1]

    print("| buildah bud --layers, then push; the environment is installed | wall s | CPU s |\n|---|---|---|")
    for name in ["cold", "nothing changed", "one small package changed"]:
        if name.startswith("one"):
            module.write_text("VERSION = '1.1'\n")
        wall, cpu = work()
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ["condaimg", "registry"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["channel", "base", "log", "work", "installer", "largest"]:
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()

    served = options.work / "served"
    served.mkdir(parents=True)
    (served / "main").symlink_to(options.channel)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Channels, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    environments = {
        "main": "channels: []\ndependencies:\n" + "".join(f"  - {spec}\n" for spec in [*SPECS, "bumped"]),
        "largest": options.largest.read_text().rstrip() + "\n  - bumped\n",
    }
    print("| what | wall s | CPU s | archives asked for | requests to the channel | layer bytes sent |\n|---|---|---|---|---|---|")
    for name, environment in environments.items():
        measure(Project(options, name, environment, url, served / f"extra-{name}"))
        if name != "largest":
            print("| what | wall s | CPU s | archives asked for | requests to the channel | layer bytes sent |\n|---|---|---|---|---|---|")
    buildah(options)


if __name__ == "__main__":
    main()
