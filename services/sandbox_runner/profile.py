"""The hardened container as the specification that Podman's REST API takes (pure).

The specification is posted as it stands, because podman-py drops parts of it on the way
(tmpfs options, the user namespace of ``nsmode: auto`` without ``idmappings``).
"""

from pathlib import Path
from typing import Any

import msgspec

from services.sandbox_runner.sandbox import Limits, SandboxSpec

LABEL = "dev.millrace"
USER = "1000:1000"
WORKSPACE = "/workspace"
_ID_MAP_SIZE = 65536
_SHM = 64 * 1024 * 1024
# How the sandbox's disk is divided: the workspace, git's objects, /tmp, the home directory.
_SHARES = (("/workspace", 50), ("/run/millrace", 20), ("/tmp", 15), ("/home/agent", 15))  # noqa: S108
_START = "import sys; sys.path.insert(0, '/opt/millrace'); from toolserver.__main__ import main; main({}, {})"
PATIENCE = 600.0
"""Seconds for which a sandbox waits for a runner that went away, then ends by itself."""


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The most that the service which starts containers can give: its own hard limits (None: no limit).

    A runtime without CAP_SYS_RESOURCE fails on limits above its own, and on Podman's default of
    1,048,576 as well, so both are always set explicitly.
    """

    files: int | None = None
    processes: int | None = None


def container_name(home: str, sandbox_id: str) -> str:
    """Derived from the sandbox's id, so that a second try finds the first.

    ``home`` tells the Millraces of one machine apart: run ids derive from what GitHub says, so that two
    which hear of the same issue have the same ones.
    """
    return f"millrace-{home}-{sandbox_id}"


def labels(spec: SandboxSpec, runner: str) -> dict[str, str]:
    """What the reaper finds a container by."""
    return {
        **spec.labels,
        f"{LABEL}.run": spec.run_id,
        f"{LABEL}.sandbox": spec.sandbox_id,
        f"{LABEL}.runner": runner,
    }


def container_spec(
    spec: SandboxSpec, runner: str, *, home: str, tools: Path, channel: Path, ceiling: Ceiling
) -> dict[str, Any]:
    """The body of ``POST /libpod/containers/create``.

    Args:
        home: see ``container_name``.
        tools: host directory with the folder ``toolserver``.
        channel: host directory in which the runner listens.
    """
    limits = spec.limits
    lifetime = f"{limits.seconds:.0f}"
    return {
        "name": container_name(home, spec.sandbox_id),
        "image": spec.image,
        "labels": labels(spec, runner),
        "entrypoint": ["/usr/bin/env", "python3", "-I", "-S", "-B", "-c"],
        "command": [_START.format(lifetime, f"{PATIENCE:.0f}")],
        "env": {},
        "env_host": False,
        "httpproxy": False,
        "user": USER,
        "work_dir": "/",
        "hostname": "sandbox",
        "terminal": False,
        "stdin": False,
        "systemd": "false",
        "init": False,
        "stop_timeout": 0,
        "restart_policy": "no",
        "image_volume_mode": "ignore",
        "use_image_resolve_conf": True,
        "use_image_hosts": True,
        "privileged": False,
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "read_only_filesystem": True,
        "userns": {"nsmode": "auto", "value": f"size={_ID_MAP_SIZE}"},
        "idmappings": {"AutoUserNs": True, "AutoUserNsOpts": {"Size": _ID_MAP_SIZE}},
        "netns": {"nsmode": "none"},
        "pidns": {"nsmode": "private"},
        "ipcns": {"nsmode": "private"},
        "utsns": {"nsmode": "private"},
        "cgroupns": {"nsmode": "private"},
        "log_configuration": {"driver": "none"},
        "shm_size": _SHM,
        "mounts": [
            _mount("/opt/millrace/toolserver", tools / "toolserver"),
            _mount("/run/channel", channel),
            *(_tmpfs(target, (limits.disk - _SHM) * share // 100) for target, share in _SHARES),
        ],
        "resource_limits": {
            "memory": {"limit": limits.memory, "swap": limits.memory},
            "cpu": {"period": 100_000, "quota": int(limits.cpus * 100_000)},
            "pids": {"limit": limits.pids},
        },
        "r_limits": rlimits(limits, ceiling),
    }


def rlimits(limits: Limits, ceiling: Ceiling) -> list[dict[str, Any]]:
    """Limits per process, never above what the service may hand out."""
    files = min(limits.files, ceiling.files if ceiling.files is not None else limits.files)
    processes = min(4096, ceiling.processes if ceiling.processes is not None else 4096)
    return [
        {"type": "nofile", "soft": files, "hard": files},
        {"type": "nproc", "soft": processes, "hard": processes},
        {"type": "core", "soft": 0, "hard": 0},
    ]


def _mount(target: str, source: Path) -> dict[str, Any]:
    options = ["ro", "bind", "nosuid", "nodev", "noexec", "rprivate"]
    return {"destination": target, "type": "bind", "source": str(source), "options": options}


def _tmpfs(target: str, size: int) -> dict[str, Any]:
    options = ["rw", "nosuid", "nodev", f"size={size}", "mode=1777"]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
