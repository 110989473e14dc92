"""solve.py CONDAIMG BASE ROUNDS [CHANNEL ENVIRONMENT.yml]...: the table of solve.sh, as Markdown."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rattler import BuildString, Gateway, GenericVirtualPackage, MatchSpec, PackageName, Platform, Version, solve

# What the example base has.
GLIBC = "2.36"


@dataclass
class Row:
    """A way to solve or lock, with the best readings so far, in seconds."""

    name: str
    # Of the solve: reading the index, and the solver.
    solve: float = float("inf")
    # Of the whole command.
    whole: float = float("inf")

    def add(self, solve_seconds: float, whole: float = float("inf")) -> None:
        self.solve, self.whole = min(self.solve, solve_seconds), min(self.whole, whole)


def specs_of(environment: Path) -> list[str]:
    lines = (line.strip() for line in environment.read_text().splitlines())
    return [line.removeprefix("- ").strip('"') for line in lines if line.startswith("- ")]


async def by_rattler(channel: str, specs: list[str]) -> tuple[float, int]:
    """Seconds and packages of one solve with nothing in memory; files are in the system's cache."""
    versions = {"__glibc": GLIBC, "__unix": "0", "__linux": "4.18"}
    virtual = [GenericVirtualPackage(PackageName(name), Version(version), BuildString("0")) for name, version in versions.items()]
    wanted = [MatchSpec(spec) for spec in specs]
    begun = time.perf_counter()
    records = await solve(sources=[channel], specs=wanted, gateway=Gateway(),
                          platforms=[Platform("linux-64"), Platform("noarch")], virtual_packages=virtual)
    return time.perf_counter() - begun, len(records)


@dataclass
class Bench:
    """One channel and one environment."""

    program: str
    base: str
    channel: str
    environment: Path
    folder: Path
    packages: int = 0
    # Why the last lock failed.
    why: str = ""
    rows: dict[str, Row] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        return self.rows.setdefault(name, Row(name))

    def lock(self, *flags: str) -> tuple[float, float] | None:
        """Seconds of the solve step and of the whole command; nothing when it fails."""
        lock = self.folder / "condaimg.lock"
        lock.unlink(missing_ok=True)
        command = [self.program, "lock", "--file", str(self.environment), "--lock-file", str(lock), "--override-channels",
                   "--channel", self.channel, "--base", self.base, "--cache-dir", str(self.folder / "cache"),
                   "--progress", "json", *flags]
        begun = time.perf_counter()
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        whole = time.perf_counter() - begun
        told = [json.loads(line) for line in done.stderr.splitlines()]
        if done.returncode != 0:
            self.why = next((line["message"] for line in told if line["type"] == "error"), "")
            return None
        return next(line["seconds"] for line in told if line["type"] == "end" and line["step"] == "solve"), whole

    def forget_facts(self) -> None:
        shutil.rmtree(self.folder / "cache/v1/records/facts", ignore_errors=True)

    def run(self, rounds: int) -> None:
        specs = specs_of(self.environment)
        if self.lock("--no-facts") is None:
            sys.exit(f"{self.environment}: {self.why}")
        with_archives = self.lock() is not None
        # All in each round, so that a noisy moment hits all of them.
        for _ in range(rounds):
            seconds, self.packages = asyncio.run(by_rattler(self.channel, specs))
            self.row("py-rattler").add(seconds)
            self.row("condaimg lock --no-facts").add(*self.lock("--no-facts"))
            if with_archives:
                self.row("condaimg lock").add(*self.lock())
                self.forget_facts()
                self.row("condaimg lock, each archive read").add(*self.lock())

    def print(self) -> None:
        reference = self.rows["py-rattler"].solve
        for row in self.rows.values():
            whole = f"{row.whole:.3f}" if row.whole < float("inf") else ""
            print(f"| {self.environment.stem} | {self.packages} | {row.name} | {row.solve:.3f} | {row.solve / reference:.2f} | {whole} |")


def main() -> None:
    program, base, rounds, *pairs = sys.argv[1:]
    if not pairs or len(pairs) % 2:
        sys.exit(__doc__)
    benches = []
    for channel, environment in zip(pairs[::2], pairs[1::2]):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            bench = Bench(os.path.abspath(program), base, channel, Path(environment), Path(folder))
            bench.run(int(rounds))
            benches.append(bench)
    print("| environment | packages | what | solve s | of py-rattler's | whole command s |\n|---|---|---|---|---|---|")
    for bench in benches:
        bench.print()
    sys.stdout.flush()
    # py-rattler's threads sometimes crash while the interpreter ends, when all is done.
    os._exit(0)


main()
