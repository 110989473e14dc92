"""Packages from PyPI: wheels as noarch Python or, when compiled, as conda packages of their subdir."""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from condapkg import EPOCH, PLACEHOLDER, Package, put, short_hash
from debian import MACHINES, PYTHON, Machine, is_elf

SITE = f"lib/python{PYTHON}/site-packages"
# Names that differ from PyPI's; `tzdata` is the time zone files for everybody, not the Python module.
CONDA_NAMES = {"typing-extensions": "typing_extensions", "tzdata": "python-tzdata", "msgpack": "msgpack-python"}
# Both formats must be read; small packages, because bzip2 is slow.
AS_TAR_BZ2 = {"idna", "jinja2", "markupsafe", "pytz", "six", "toolz", "wheel", "click", "iniconfig", "jmespath"}
LIBRARIES = {
    "libgcc_s.so.1": "libgcc >=12",
    "libstdc++.so.6": "libstdcxx >=12",
    "libz.so.1": "libzlib",
    "libgomp.so.1": "libgomp",
}
# What a marker sees: CPython 3.11 on Linux, whatever runs this script.
MARKERS = {
    "python_version": PYTHON,
    "python_full_version": "3.11.2",
    "implementation_name": "cpython",
    "implementation_version": "3.11.2",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_release": "",
    "platform_version": "",
    "extra": "",
}


def conda_name(name: str) -> str:
    normal = canonicalize_name(name)
    return CONDA_NAMES.get(normal, normal)


def conda_depends(metadata: RawMetadata, machine: Machine) -> list[str]:
    """Requires-Dist without extras, as match specs."""
    depends = []
    for line in metadata.get("requires_dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({**MARKERS, "platform_machine": machine.name}):
            specifiers = ",".join(sorted(str(specifier) for specifier in requirement.specifier))
            depends.append(f"{conda_name(requirement.name)} {specifiers}".strip())
    return depends


def python_depends(metadata: RawMetadata, pure: bool) -> list[str]:
    if not pure:
        return [f"python >={PYTHON},<3.12.0a0", f"python_abi {PYTHON}.* *_cp311"]
    return [f"python {metadata.get('requires_python', '>=3.8').replace(' ', '')}"]


def entry_points(text: str) -> list[str]:
    """`name = module:function` of the console scripts."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    if not parser.has_section("console_scripts"):
        return []
    # An extra in brackets asks for nothing here.
    return [f"{name} = {target.split('[')[0].strip()}" for name, target in sorted(parser.items("console_scripts"))]


def script_for(entry: str) -> str:
    module, function = entry.split("=", 1)[1].strip().split(":")
    top = function.split(".")[0]
    return (
        f"#!{PLACEHOLDER}/bin/python\n# -*- coding: utf-8 -*-\nimport re\nimport sys\n\nfrom {module} import {top}\n\n"
        f"if __name__ == '__main__':\n    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n"
        f"    sys.exit({function}())\n"
    )


def mtime_of(item: zipfile.ZipInfo) -> int:
    """The archive's own times; many wheels say 1980, which means nothing."""
    time = int(datetime(*item.date_time, tzinfo=timezone.utc).timestamp())
    return time if item.date_time[0] > 1985 else EPOCH


def place(name: str, pure: bool) -> str | None:
    """Where a file of a wheel goes, in the prefix or (noarch) in the archive."""
    site, scripts = ("site-packages", "python-scripts") if pure else (SITE, "bin")
    match = re.match(r"[^/]+\.data/(\w+)/(.+)$", name)
    if match is None:
        return f"{site}/{name}"
    folders = {"purelib": site, "platlib": site, "scripts": scripts, "data": ".", "headers": "include"}
    return os.path.normpath(f"{folders[match[1]]}/{match[2]}")


def unpack(wheel: zipfile.ZipFile, root: Path, pure: bool) -> None:
    for item in wheel.infolist():
        target = place(item.filename, pure)
        if item.is_dir() or target is None:
            continue
        data = wheel.read(item)
        is_script = ".data/scripts/" in item.filename
        if is_script and data.startswith(b"#!python"):
            data = f"#!{PLACEHOLDER}/bin/python".encode() + data[len(b"#!python") :]
        executable = is_script or (item.external_attr >> 16) & 0o100
        put(root / target, data, 0o755 if executable else 0o644, mtime_of(item))


def needed_libraries(root: Path) -> Iterator[str]:
    """Packages with the libraries that the extension modules want and the wheel does not bring."""
    for path in sorted(root.rglob("*.so*")):
        if path.is_file() and is_elf(path):
            printed = subprocess.run(["patchelf", "--print-needed", str(path)], check=True, capture_output=True, text=True)
            yield from (LIBRARIES[name] for name in printed.stdout.split() if name in LIBRARIES)


def machine_of(platforms: set[str]) -> Machine:
    """The machine that a wheel is for; those for all are of the first."""
    return next((machine for machine in MACHINES if any(name.endswith(machine.name) for name in platforms)), MACHINES[0])


def glibc_of(filename: str) -> str:
    """manylinux tags name the oldest glibc that will do."""
    minors = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", filename)]
    return f"__glibc >=2.{min(minors, default=17)},<3.0.a0"


def compile_python(root: Path, folder: str, python: Path) -> None:
    """Ships byte code with the source, as conda packages do, with paths relative to the prefix in it."""
    libraries = ":".join(str(python / name / "root/lib") for name in ("libzlib", "libexpat"))
    command = [str(python / "python/root/bin/python3.11"), *"-S -B -m compileall -q --invalidation-mode timestamp".split()]
    environment = {"LD_LIBRARY_PATH": libraries, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
    subprocess.run([*command, folder], cwd=root, env=environment, check=True)
    for path in sorted((root / folder).rglob("*.pyc")):
        source = path.parent.parent / (path.name.split(".")[0] + ".py")
        mtime = int(source.stat().st_mtime)
        path.chmod(0o644)
        os.utime(path, (mtime, mtime))


def license_of(metadata: RawMetadata) -> str:
    # Some put the whole text there.
    text = metadata.get("license_expression") or metadata.get("license") or "unknown"
    return text.strip().splitlines()[0][:80]


def stage(wheel: Path, work: Path, python: Path) -> Package:
    """The tree of one conda package; `python` is the folder of the staged Debian packages."""
    root = work / "root"
    _, version, _, tags = parse_wheel_filename(wheel.name)
    pure = all(tag.platform == "any" for tag in tags)
    machine = machine_of({tag.platform for tag in tags})
    with zipfile.ZipFile(wheel) as archive:
        unpack(archive, root, pure)
        (info,) = {name.split("/")[0] for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")}
        metadata, _ = parse_email(archive.read(f"{info}/METADATA"))
        points = f"{info}/entry_points.txt"
        entries = entry_points(archive.read(points).decode()) if points in archive.namelist() else []
    put(root / str(place(f"{info}/INSTALLER", pure)), "conda\n")
    name = conda_name(metadata["name"])
    depends = python_depends(metadata, pure) + conda_depends(metadata, machine)
    if not pure:
        for entry in entries:
            put(root / "bin" / entry.split("=")[0].strip(), script_for(entry), 0o755)
        compile_python(root, SITE, python)
        depends += sorted(set(needed_libraries(root))) + [glibc_of(wheel.name)]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Package(
        name=name,
        version=str(version),
        build="pyhd8ed1ab_0" if pure else f"py311h{short_hash(name, digest)}_0",
        root=root,
        depends=depends,
        license=license_of(metadata),
        summary=metadata.get("summary", ""),
        subdir="noarch" if pure else machine.subdir,
        noarch="python" if pure else None,
        entry_points=entries if pure else [],
        extension=".tar.bz2" if name in AS_TAR_BZ2 else ".conda",
    )
