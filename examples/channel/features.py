"""Packages made by hand, each for one thing that conda packages may do and that builders of images get wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from condapkg import PLACEHOLDER, Package, link, put


def package(root: Path, name: str, summary: str, **more: object) -> Package:
    return Package(name, "1.0", "0", root, license="Apache-2.0", summary=summary, **more)  # type: ignore[arg-type]


def activate(root: Path) -> Package:
    """All of it can be said by variables: nothing needs to run when a container starts."""
    put(
        root / "etc/conda/activate.d/feature-activate.sh",
        "#!/bin/sh\n"
        "# Literals and the prefix only.\n"
        'export FEATURE_LITERAL="a literal value"\n'
        "export FEATURE_SINGLE='single $quoted'\n"
        "export FEATURE_HOME=$CONDA_PREFIX/share/feature-activate\n"
        'export FEATURE_DATA="${CONDA_PREFIX}/share/feature-activate/data.txt"\n'
        "unset FEATURE_UNSET\n",
    )
    put(
        root / "etc/conda/deactivate.d/feature-activate.sh",
        "unset FEATURE_LITERAL\nunset FEATURE_SINGLE\nunset FEATURE_HOME\nunset FEATURE_DATA\n",
    )
    put(root / "etc/conda/env_vars.d/feature-activate.json", '{"FEATURE_FROM_JSON": "from env_vars.d"}\n')
    put(root / "share/feature-activate/data.txt", "data\n")
    return package(root, "feature-activate", "activation by variables only", subdir="noarch", noarch="generic")


def activate_dynamic(root: Path) -> Package:
    """Only a shell can tell what this does."""
    put(
        root / "etc/conda/activate.d/feature-activate-dynamic.sh",
        "#!/bin/sh\n"
        'if [ -d "$CONDA_PREFIX/share/feature-activate-dynamic" ]; then\n'
        '    export FEATURE_DYNAMIC="found in $CONDA_PREFIX"\n'
        "else\n"
        '    export FEATURE_DYNAMIC="missing"\n'
        "fi\n",
    )
    put(root / "etc/conda/deactivate.d/feature-activate-dynamic.sh", "unset FEATURE_DYNAMIC\n")
    put(root / "share/feature-activate-dynamic/data.txt", "data\n")
    summary = "activation that has to run"
    return package(root, "feature-activate-dynamic", summary, subdir="noarch", noarch="generic", extension=".tar.bz2")


def postlink(root: Path) -> Package:
    script = '#!/bin/sh\necho "linked" > "$PREFIX/share/feature-postlink/ran"\n'
    put(root / "bin/.feature-postlink-post-link.sh", script, 0o755)
    put(root / "share/feature-postlink/data.txt", f"installed in {PLACEHOLDER}\n")
    return package(root, "feature-postlink", "a script that wants to run after linking")


def links(root: Path) -> Package:
    """Odd paths, modes and links."""
    base = root / "share/feature-links"
    put(base / "file.txt", "content\n")
    put(base / "empty", "")
    put(base / "secret", "mode 0600\n", 0o600)
    put(base / "script.sh", f"#!/bin/sh\necho {PLACEHOLDER}\n", 0o755)
    put(base / "folder/inside.txt", "reached through a link to its folder\n")
    put(base / "naïve-\N{CYRILLIC SMALL LETTER DE}-\N{CJK UNIFIED IDEOGRAPH-65E5}.txt", "a name that is not ASCII\n")
    put(base / "with space and 'quotes'.txt", "a name that needs care\n")
    put(base / ("a" * 60) / ("b" * 60) / "over-100-bytes.txt", "more than the name field of a tar header\n")
    put(base / ("c" * 90) / ("d" * 90) / ("e" * 90) / "over-255-bytes.txt", "more than ustar can say\n")
    link(base / "link.txt", "file.txt")
    link(base / "link-to-folder", "folder")
    link(base / "dangling", "does/not/exist")
    link(base / "absolute", "/etc/hostname")
    link(base / "up", "../feature-links/folder/inside.txt")
    put(base / "hard-1", "one file, two names\n")
    os.link(base / "hard-1", base / "hard-2")
    return package(root, "feature-links", "odd paths, modes and links", extension=".tar.bz2")


def clobber_a(root: Path) -> Package:
    put(root / "share/feature-clobber/both.txt", "from a\n")
    put(root / "share/feature-clobber/a.txt", "a\n")
    return package(root, "feature-clobber-a", "owns a path that feature-clobber-b owns too", subdir="noarch", noarch="generic")


def clobber_b(root: Path) -> Package:
    put(root / "share/feature-clobber/both.txt", "from b\n")
    put(root / "share/feature-clobber/b.txt", "b\n")
    return package(root, "feature-clobber-b", "owns a path that feature-clobber-a owns too", subdir="noarch", noarch="generic")


def python_abi(root: Path) -> Package:
    """No files at all: a name that holds packages for one Python together."""
    root.mkdir(parents=True)
    return Package(
        "python_abi",
        "3.11",
        "4_cp311",
        root,
        constrains=["python 3.11.* *_cpython"],
        license="BSD-3-Clause",
        summary="which Python compiled packages are for",
        subdir="noarch",
        noarch="generic",
    )


ALL: tuple[Callable[[Path], Package], ...] = (
    activate,
    activate_dynamic,
    postlink,
    links,
    clobber_a,
    clobber_b,
    python_abi,
)
