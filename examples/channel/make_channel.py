"""make_channel.py DEBS WHEELS OUT WORK: a conda channel in OUT, made of Debian packages and wheels that are there already."""

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


def make_debian(recipe: debian.Recipe, debs: Path, staged: Path) -> Package:
    return debian.stage(recipe, debs, staged / recipe.name)


def make_python(package: Package, staged: Path, channel: Path) -> None:
    wheels.compile_python(package.root, f"lib/python{debian.PYTHON}", staged)
    write_package(package, channel)


def make_wheel(wheel: Path, work: Path, staged: Path, channel: Path) -> None:
    write_package(wheels.stage(wheel, work, staged), channel)


def record_sources(debs: Path, wheel_files: list[Path], channel: Path) -> None:
    """What the channel was made of: Debian's packages are those that the mirror had that day."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in [*sorted(debs.glob("*.deb")), *wheel_files]
    ]
    put(channel / "sources.txt", "".join(lines))


def make(debs: Path, wheel_folder: Path, channel: Path, work: Path) -> int:
    # Large ones first, so that no core waits for the last one.
    wheel_files = sorted(wheel_folder.rglob("*.whl"), key=lambda path: (-path.stat().st_size, path.name))
    staged = work / "debian"
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        packages = list(pool.map(make_debian, debian.RECIPES, *zip(*[(debs, staged)] * len(debian.RECIPES))))
        # Byte code needs the interpreter as staged; it is packed once everybody is done with compiling.
        jobs: list[Future[None]] = []
        for number, path in enumerate(wheel_files):
            jobs.append(pool.submit(make_wheel, path, work / f"wheel-{number}", staged, channel))
        for package in packages:
            if package.name != "python":
                jobs.append(pool.submit(write_package, package, channel))
        for number, feature in enumerate(features.ALL):
            jobs.append(pool.submit(write_package, feature(work / f"feature-{number}"), channel))
        for job in jobs:
            job.result()
    make_python(next(package for package in packages if package.name == "python"), staged, channel)
    record_sources(debs, sorted(wheel_files, key=lambda path: path.name), channel)
    return sum(index_subdir(channel / subdir) for subdir in ("linux-64", "noarch"))


def main() -> None:
    if sys.argv[1:] == ["--list-debs"]:
        print("\n".join(debian.deb_names()))
        return
    count = make(*(Path(argument).resolve() for argument in sys.argv[1:]))
    print(f"{count} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
