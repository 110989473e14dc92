"""CPython and its C libraries: Debian's packages, taken apart and made relocatable."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from condapkg import PLACEHOLDER, Package, link, put, short_hash

PYTHON = "3.11"
# Debian 12's own; what is linked against it runs on nothing older.
GLIBC = "__glibc >=2.36,<3.0.a0"

Finish = Callable[[Path, Path, "Machine"], None]


@dataclass(frozen=True)
class Machine:
    """What a kind of machine is called."""

    subdir: str
    debian: str
    name: str

    @property
    def triplet(self) -> str:
        return f"{self.name}-linux-gnu"


# The first is the one that the script runs on.
MACHINES = (Machine("linux-64", "amd64", "x86_64"), Machine("linux-aarch64", "arm64", "aarch64"))


@dataclass(frozen=True)
class Recipe:
    """A conda package made of Debian's; the first of `debs` gives the version."""

    name: str
    debs: tuple[str, ...]
    depends: tuple[str, ...] = ()
    license: str = ""
    extension: str = ".conda"
    build_suffix: str = ""
    generic: bool = False
    finish: Finish | None = None


def place(path: str, machine: Machine) -> str | None:
    """Where a file of a Debian package goes in the prefix; None when it is left out."""
    path = re.sub(r"^usr/", "", path)
    path = re.sub(r"^lib/terminfo/", "share/terminfo/", path)
    path = re.sub(rf"^lib/{machine.triplet}/", "lib/", path)
    path = re.sub(rf"^include/{machine.triplet}/", "include/", path)
    path = re.sub(r"^etc/ssl/openssl.cnf$", "ssl/openssl.cnf", path)
    if path.endswith((".a", ".la")) or path.startswith(("lib/ssl/", "lib/binfmt.d/", "bin/c_rehash")):
        return None
    wanted = ("bin/", "lib/", "include/", "ssl/", "share/terminfo/", "share/tabset/", "share/zoneinfo/", "share/readline/")
    return path if path.startswith(wanted) else None


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def set_run_path(path: Path, name: str) -> None:
    """Libraries are found beside the file, wherever that is, and by a path that holds only when relocation was right.

    Python's extension modules have the second way alone, as RUNPATH, which shuts out what the executable would lend them.
    """
    if "/lib-dynload/" in name:
        command = ["patchelf", "--set-rpath", f"{PLACEHOLDER}/lib"]
    else:
        to_lib = os.path.relpath("lib", os.path.dirname(name))
        run_path = f"$ORIGIN/{to_lib}:{PLACEHOLDER}/lib"
        command = ["patchelf", "--force-rpath", "--set-rpath", run_path]
    subprocess.run([*command, str(path)], check=True)


def relocatable_text(text: str, machine: Machine) -> str:
    """Paths below /usr, as they stand in .pc files, *-config scripts, shebangs and sysconfig's data."""
    text = text.replace(f"/usr/lib/{machine.triplet}", f"{PLACEHOLDER}/lib")
    text = text.replace(f"${{prefix}}/lib/{machine.triplet}", "${prefix}/lib")
    return re.sub(r"""(?<![\w./])/usr(?=[/\s'":]|$)""", PLACEHOLDER, text, flags=re.MULTILINE)


def holds_build_paths(name: str) -> bool:
    return name.endswith((".pc", "-config")) or "/_sysconfigdata" in name or name == f"bin/pydoc{PYTHON}"


def relocate(root: Path, name: str, machine: Machine) -> None:
    path = root / name
    mtime = int(path.stat().st_mtime)
    if is_elf(path):
        set_run_path(path, name)
    elif holds_build_paths(name):
        path.write_text(relocatable_text(path.read_text(), machine))
    os.utime(path, (mtime, mtime))


def place_link(raw: Path, name: str, root: Path, new: str, machine: Machine) -> None:
    """Absolute links become relative ones: a prefix can be anywhere."""
    source = raw / name
    target = os.readlink(source)
    old = target.lstrip("/") if os.path.isabs(target) else os.path.normpath(os.path.join(os.path.dirname(name), target))
    moved = place(old, machine)
    if moved is not None and not (root / new).is_symlink():
        link(root / new, os.path.relpath(moved, os.path.dirname(new)), int(source.lstat().st_mtime))


def place_file(raw: Path, name: str, root: Path, new: str, machine: Machine) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(raw / name, root / new)
    executable = (root / new).stat().st_mode & 0o100
    (root / new).chmod(0o755 if executable else 0o644)
    relocate(root, new, machine)


def drop_dangling_links(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and not path.exists():
            path.unlink()


def finish_python(raw: Path, root: Path, machine: Machine) -> None:
    lib = root / f"lib/python{PYTHON}"
    # Need libraries that the channel does not have.
    for name in ("nis", "_dbm"):
        (lib / f"lib-dynload/{name}.cpython-311-{machine.triplet}.so").unlink()
    # A second name for a file that relocation changes.
    (lib / f"_sysconfigdata__linux_{machine.triplet}.py").unlink()
    # Says that only apt may add packages.
    (lib / "EXTERNALLY-MANAGED").unlink()
    put(lib / "site-packages/README.txt", "This folder is for packages.\n")
    # Debian's interpreter looks for packages in dist-packages, and `site` is frozen into the executable.
    link(lib / "dist-packages", "site-packages")
    for name, target in {"python": "python3.11", "python3": "python3.11", "python3.1": "python3.11"}.items():
        link(root / "bin" / name, target)
    for name in ("pydoc", "pydoc3"):
        link(root / "bin" / name, "pydoc3.11")


def finish_certificates(raw: Path, root: Path, machine: Machine) -> None:
    sources = sorted((raw / "usr/share/ca-certificates").rglob("*.crt"))
    newest = max(int(path.stat().st_mtime) for path in sources)
    put(root / "ssl/cacert.pem", b"".join(path.read_bytes() for path in sources), mtime=newest)
    link(root / "ssl/cert.pem", "cacert.pem", newest)


def finish_openssl(raw: Path, root: Path, machine: Machine) -> None:
    # The compiled-in folder is /usr/lib/ssl: too short for a prefix.
    put(root / "etc/conda/activate.d/openssl.sh", 'export SSL_CERT_FILE="${CONDA_PREFIX}/ssl/cacert.pem"\n')
    put(root / "etc/conda/deactivate.d/openssl.sh", "unset SSL_CERT_FILE\n")


def finish_ncurses(raw: Path, root: Path, machine: Machine) -> None:
    put(root / "etc/conda/activate.d/ncurses.sh", "export TERMINFO=$CONDA_PREFIX/share/terminfo\n")
    put(root / "etc/conda/deactivate.d/ncurses.sh", "unset TERMINFO\n")


RECIPES = (
    Recipe("libgcc", ("libgcc-s1",), (), "GPL-3.0-only WITH GCC-exception-3.1"),
    Recipe("libstdcxx", ("libstdc++6",), ("libgcc",), "GPL-3.0-only WITH GCC-exception-3.1"),
    Recipe("libgomp", ("libgomp1",), ("libgcc",), "GPL-3.0-only WITH GCC-exception-3.1", ".tar.bz2"),
    Recipe("libzlib", ("zlib1g", "zlib1g-dev"), (), "Zlib", ".tar.bz2"),
    Recipe("bzip2", ("bzip2", "libbz2-1.0", "libbz2-dev"), (), "bzip2-1.0.6", ".tar.bz2"),
    Recipe("xz", ("xz-utils", "liblzma5", "liblzma-dev"), (), "LGPL-2.1-or-later AND GPL-2.0-or-later", ".tar.bz2"),
    Recipe("libffi", ("libffi8", "libffi-dev"), (), "MIT", ".tar.bz2"),
    Recipe("libexpat", ("libexpat1", "libexpat1-dev"), (), "MIT"),
    Recipe("libuuid", ("libuuid1", "uuid-dev"), (), "BSD-3-Clause"),
    Recipe("libxcrypt", ("libcrypt1",), (), "LGPL-2.1-or-later"),
    Recipe(
        "ncurses",
        ("libncursesw6", "libncurses6", "libtinfo6", "ncurses-base", "ncurses-bin", "libncurses-dev"),
        (),
        "X11",
        finish=finish_ncurses,
    ),
    Recipe("readline", ("libreadline8", "readline-common", "libreadline-dev"), ("ncurses",), "GPL-3.0-or-later"),
    Recipe("libsqlite", ("libsqlite3-0", "libsqlite3-dev"), (), "blessing"),
    Recipe("sqlite", ("sqlite3",), ("libsqlite", "libzlib", "readline", "ncurses"), "blessing"),
    Recipe("openssl", ("libssl3", "openssl", "libssl-dev"), ("ca-certificates",), "Apache-2.0", finish=finish_openssl),
    Recipe("ca-certificates", ("ca-certificates",), (), "MPL-2.0", generic=True, finish=finish_certificates),
    Recipe("tzdata", ("tzdata",), (), "LicenseRef-Public-Domain", generic=True),
    Recipe(
        "python",
        (
            "python3.11-minimal",
            "libpython3.11-minimal",
            "libpython3.11-stdlib",
            "python3.11",
            "python3-distutils",
            "python3-lib2to3",
        ),
        (
            "bzip2",
            "ca-certificates",
            "libexpat",
            "libffi",
            "libsqlite",
            "libuuid",
            "libxcrypt",
            "libzlib",
            "ncurses",
            "openssl >=3.0,<4.0a0",
            "readline",
            "tzdata",
            "xz",
        ),
        "Python-2.0",
        build_suffix="_cpython",
        finish=finish_python,
    ),
)


def upstream_version(version: str) -> str:
    """`1:1.2.13.dfsg-1` → `1.2.13`"""
    version = re.sub(r"^\d+:", "", version)
    return re.sub(r"([.+]dfsg.*|[-~+].*)$", "", version)


def deb_field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", str(deb), name], check=True, capture_output=True, text=True).stdout.strip()


def find_deb(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}_*.deb")
    return found


def copyrights(raw: Path) -> dict[str, bytes]:
    files = sorted((raw / "usr/share/doc").glob("*/copyright"))
    return {f"{path.parent.name}-copyright": path.read_bytes() for path in files if path.is_file()}


def unpack(debs: list[Path], raw: Path) -> None:
    for deb in debs:
        subprocess.run(["dpkg-deb", "--extract", str(deb), str(raw)], check=True)


def stage(recipe: Recipe, machine: Machine, folder: Path, work: Path) -> Package:
    """The tree of one conda package, from the machine's Debian packages in `folder`."""
    debs = [find_deb(folder, name) for name in recipe.debs]
    raw, root = work / "raw", work / "root"
    raw.mkdir(parents=True)
    root.mkdir()
    unpack(debs, raw)
    for source in sorted(path for path in raw.rglob("*") if path.is_symlink() or path.is_file()):
        name = str(source.relative_to(raw))
        new = place(name, machine)
        if new is not None:
            (place_link if source.is_symlink() else place_file)(raw, name, root, new, machine)
    if recipe.finish:
        recipe.finish(raw, root, machine)
    drop_dangling_links(root)
    digests = [hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs]
    return Package(
        name=recipe.name,
        version=upstream_version(deb_field(debs[0], "Version")),
        build=f"h{short_hash(recipe.name, *digests)}_0{recipe.build_suffix}",
        root=root,
        depends=list(recipe.depends) + ([] if recipe.generic else [GLIBC]),
        constrains=[f"python_abi {PYTHON}.* *_cp311"] if recipe.name == "python" else [],
        license=recipe.license,
        summary=deb_field(debs[0], "Description").splitlines()[0],
        subdir="noarch" if recipe.generic else machine.subdir,
        noarch="generic" if recipe.generic else None,
        extension=recipe.extension,
        licenses=copyrights(raw),
    )


def deb_names() -> list[str]:
    return sorted({name for recipe in RECIPES for name in recipe.debs})
