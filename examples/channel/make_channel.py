"""make_channel.py DEBS WHEELS OUT WORK: a conda channel in OUT, made of Debian packages and wheels that are there already.

DEBS holds a folder for each architecture, named as Debian names it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import debian
import features
import wheels
from condapkg import Package, index_subdir, put, write_package


def make_debian(task: tuple[debian.Recipe, debian.Machine], debs: Path, staged: Path) -> Package:
    recipe, machine = task
    return debian.stage(recipe, machine, debs / machine.debian, staged / machine.subdir / recipe.name)


def make_python(package: Package, runs: Path, channel: Path) -> None:
    # The interpreter of this machine makes the byte code of all: it is the same.
    wheels.compile_python(package.root, f"lib/python{debian.PYTHON}", runs)
    write_package(package, channel)


def make_wheel(wheel: Path, work: Path, runs: Path, channel: Path) -> None:
    write_package(wheels.stage(wheel, work, runs), channel)


def debian_tasks() -> list[tuple[debian.Recipe, debian.Machine]]:
    """Every recipe for every machine; what is for all of them once."""
    first = debian.MACHINES[0]
    return [(recipe, machine) for machine in debian.MACHINES for recipe in debian.RECIPES if machine is first or not recipe.generic]


def record_sources(debs: Path, wheel_files: list[Path], channel: Path) -> None:
    """What the channel was made of: Debian's packages are those that the mirror had that day."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in [*sorted(debs.glob("*/*.deb")), *wheel_files]
    ]
    put(channel / "sources.txt", "".join(lines))


def make(debs: Path, wheel_folder: Path, channel: Path, work: Path) -> int:
    # Large ones first, so that no core waits for the last one.
    wheel_files = sorted(wheel_folder.rglob("*.whl"), key=lambda path: (-path.stat().st_size, path.name))
    staged = work / "debian"
    runs = staged / debian.MACHINES[0].subdir
    tasks = debian_tasks()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        packages = list(pool.map(make_debian, tasks, *zip(*[(debs, staged)] * len(tasks))))
        pythons = [package for package in packages if package.name == "python"]
        # Byte code needs the interpreter as staged; it is packed once everybody is done with compiling.
        jobs: list[Future[None]] = []
        for number, path in enumerate(wheel_files):
            jobs.append(pool.submit(make_wheel, path, work / f"wheel-{number}", runs, channel))
        for package in packages:
            if package not in pythons:
                jobs.append(pool.submit(write_package, package, channel))
        for number, feature in enumerate(features.ALL):
            jobs.append(pool.submit(write_package, feature(work / f"feature-{number}"), channel))
        for job in jobs:
            job.result()
    for python in reversed(pythons):
        make_python(python, runs, channel)
    record_sources(debs, sorted(wheel_files, key=lambda path: path.name), channel)
    subdirs = [machine.subdir for machine in debian.MACHINES] + ["noarch"]
    return sum(index_subdir(channel / subdir) for subdir in subdirs)


def main() -> None:
    if sys.argv[1:] == ["--list-debs"]:
        print("\n".join(debian.deb_names()))
        return
    count = make(*(Path(argument).resolve() for argument in sys.argv[1:]))
    print(f"{count} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
