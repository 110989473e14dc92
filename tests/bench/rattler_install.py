"""rattler_install.py CHANNEL PREFIX SPEC...: solves and installs with py-rattler, as pixi does."""

import asyncio
import os
import sys
import tempfile

from rattler import BuildString, Gateway, GenericVirtualPackage, MatchSpec, PackageName, Platform, Version, install, solve


async def main(channel: str, prefix: str, specs: list[str]) -> None:
    glibc = GenericVirtualPackage(PackageName("__glibc"), Version("2.36"), BuildString("0"))
    unix = GenericVirtualPackage(PackageName("__unix"), Version("0"), BuildString("0"))
    linux = GenericVirtualPackage(PackageName("__linux"), Version("4.18"), BuildString("0"))
    records = await solve(
        sources=[channel],
        specs=[MatchSpec(spec) for spec in specs],
        gateway=Gateway(),
        platforms=[Platform("linux-64"), Platform("noarch")],
        virtual_packages=[glibc, unix, linux],
    )
    with tempfile.TemporaryDirectory() as cache:
        await install(records=records, target_prefix=prefix, cache_dir=cache, show_progress=False)


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
# Its threads sometimes crash while the interpreter ends, when all is done.
os._exit(0)
