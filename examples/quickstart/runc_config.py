"""runc_config.py CONFIG COMMAND...: makes umoci's runtime configuration as strict as the podman run beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def strict(config: dict[str, Any], command: list[str]) -> None:
    process = config["process"]
    process.update(args=command, terminal=False, user={"uid": 1000, "gid": 1000}, noNewPrivileges=True, capabilities={})
    # Not every machine allows raising limits.
    process.pop("rlimits", None)
    config["root"]["readonly"] = True
    # An empty network namespace: no network at all.
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
    config["mounts"] = [
        mount for mount in config["mounts"] if mount.get("type") != "bind" and mount["destination"] != "/sys/fs/cgroup"
    ]
    config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
    )


def main() -> None:
    path, command = Path(sys.argv[1]), sys.argv[2:]
    config = json.loads(path.read_text())
    strict(config, command)
    path.write_text(json.dumps(config))


if __name__ == "__main__":
    main()
