"""What throughput.sh measures: builds against their limit, and codecs against each other."""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

# What is built: name, flags of the build, codec of the limit.
BUILDS = [
    ("gzip (default)", "gzip", "gzip:{default}"),
    ("zstd:1", "zstd:1", "zstd:1"),
    ("zstd:3", "zstd:3", "zstd:3"),
]
# As src/model/compression.rs has it.
DEFAULT_GZIP = 1


def run(command: list[str], **options) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, **options)
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def limits(options: argparse.Namespace, codecs: list[str], archives: list[str]) -> dict[str, dict]:
    done = subprocess.run([options.limit, str(options.jobs), ",".join(codecs), *archives], stdout=subprocess.PIPE, text=True,
                          check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {limit["codec"]: limit for limit in found}


def build(options: argparse.Namespace, compression: str, bytecode: str) -> tuple[float, float]:
    """A build whose archives are all there and whose layers are not."""
    for known in ["cache/v1/blobs", "cache/v1/records/layers", "cache/v1/records/segments", "image"]:
        shutil.rmtree(options.work / known, ignore_errors=True)
    return run([options.condaimg, "build", options.environment, "--override-channels", "-c", options.channel, "--base", options.base,
                "--lock-file", "condaimg.lock", "--cache-dir", "cache", "--frozen", "--offline", "--quiet", "-o", "oci:image",
                "--compression", compression, "--bytecode", bytecode, "-j", str(options.jobs)], cwd=options.work)


def by_hand(options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """The same tree, unpacked, through tar and the usual programs."""
    tree = options.work / "tree"
    if not tree.exists():
        tree.mkdir()
        layout = options.work / "image"
        manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        manifest = json.loads((layout / "blobs/sha256" / manifest.removeprefix("sha256:")).read_text())
        for layer in manifest["layers"][1:]:
            blob = layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")
            subprocess.run(["tar", "-C", str(tree), "-xf", str(blob)], check=True)
    pipes = {"tar \\| gzip": "gzip", "tar \\| zstd -1 -T2": "zstd -q -1 -T2", "tar \\| zstd -3 -T2": "zstd -q -3 -T2"}
    return {name: run(["bash", "-euo", "pipefail", "-c", f"tar -C tree -cf - . | {pipe} >/dev/null"], cwd=options.work)
            for name, pipe in pipes.items()}


def better(best: dict, name: str, reading: tuple[float, float]) -> None:
    known = best.get(name, reading)
    best[name] = (min(known[0], reading[0]), min(known[1], reading[1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ["condaimg", "limit", "channel", "environment", "base", "levels"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()

    subprocess.run([options.condaimg, "build", options.environment, "--override-channels", "-c", options.channel, "--base", options.base,
                    "--lock-file", "condaimg.lock", "--cache-dir", "cache", "--quiet", "-o", "oci:image"], cwd=options.work, check=True,
                   stdout=subprocess.DEVNULL)
    used = {line.split("sha256: ")[1].strip() for line in (options.work / "condaimg.lock").read_text().splitlines()
            if "  sha256: " in line}
    archives = [str(path) for path in sorted((options.work / "cache/v1/archives").iterdir())
                if path.name.split(".")[0] in used and path.name.endswith((".conda", ".tar.bz2"))]
    codecs = [codec.format(default=DEFAULT_GZIP) for _, _, codec in BUILDS]

    limit: dict[str, dict] = {}
    built: dict[str, tuple[float, float]] = {}
    hand: dict[str, tuple[float, float]] = {}
    for _ in range(options.rounds):
        for codec, reading in limits(options, codecs, archives).items():
            known = limit.setdefault(codec, reading)
            known["wall"] = min(known["wall"], reading["wall"])
        for name, compression, _ in BUILDS:
            for bytecode in ["off", "on"]:
                better(built, f"{name}/{bytecode}", build(options, compression, bytecode))
        for name, reading in by_hand(options).items():
            better(hand, name, reading)

    size = next(iter(limit.values()))["tar"]
    print(f"{len(archives)} archives, {size / 1e6:.0f} MB of tar, {options.jobs} threads, best of {options.rounds}\n")
    print("| codec | limit s | build s, `--bytecode off` | of the limit | CPU s | with byte code s | CPU s |\n|---|---|---|---|---|---|---|")
    for (name, _, _), codec in zip(BUILDS, codecs):
        wall, cpu = built[f"{name}/off"]
        with_wall, with_cpu = built[f"{name}/on"]
        share = limit[codec]["wall"] / wall
        print(f"| {name} | {limit[codec]['wall']:.2f} | {wall:.2f} | {share:.0%} | {cpu:.2f} | {with_wall:.2f} | {with_cpu:.2f} |")
    print("\n| the same tree, already unpacked | wall s | CPU s |\n|---|---|---|")
    for name, (wall, cpu) in hand.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")

    print("\n| codec | decode, hash and compress, CPU s | MB | of the tar | decompress CPU s |\n|---|---|---|---|---|")
    for codec, reading in limits(options, options.levels.split(","), archives).items():
        print(f"| {codec} | {reading['cpu']:.2f} | {reading['compressed'] / 1e6:.1f} | {reading['compressed'] / reading['tar']:.1%} "
              f"| {reading['decompress']:.2f} |")


if __name__ == "__main__":
    main()
