"""The hardened container as the specification that Podman's REST API takes (pure).

The specification is posted as it stands, because podman-py drops parts of it on the way
(tmpfs options, the user namespace of ``nsmode: auto`` without ``idmappings``). It holds nothing of a run:
a container is started ahead, and labels cannot change afterwards.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from services.sandbox_runner.sandbox import Limits, SandboxSpec

LABEL = "dev.millrace"
UID = 1000
USER = f"{UID}:{UID}"
WORKSPACE = "/workspace"
TOOLS = "/opt/millrace/toolserver"
CHANNEL = "/run/channel"
DEPS = "/deps"
OUTSIDE = "/run/setup"
SHM = 64 * 1024 * 1024
# How the sandbox's disk is divided: the workspace, git's objects, /tmp, the home directory.
_SHARES = (("/workspace", 50), ("/run/millrace", 20), ("/tmp", 15), ("/home/agent", 15))  # noqa: S108
_START = "import sys; sys.path.insert(0, '/opt/millrace'); from toolserver.__main__ import main; main({}, {})"
PATIENCE = 600.0
"""Seconds for which a sandbox waits for a runner that went away, then ends by itself."""

GUARANTEES = {
    "user-namespace": "user ids of its own, unknown to the host and to other sandboxes",
    "capabilities": "no capability, not even one that it could gain",
    "no-new-privileges": "no program can raise its privileges",
    "seccomp": "only the system calls of Millrace's own list",
    "mounts": "a read-only root, sized memory file systems, nothing of the host",
    "network": "no network interface but its own loopback",
    "environment": "no variable of the host, no proxy",
    "process-1": "its first process can be neither read nor traced",
    "memory-limit": "no more memory than it was given, no swap",
    "process-limit": "no more processes than it was given",
    "cpu-limit": "no more processor time than it was given",
    "file-limits": "limits on open files and processes, no core dumps",
}
"""What a sandbox promises, by the names under which an operator can give one up."""


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The most that the service which starts containers can give: its own hard limits (None: no limit).

    A runtime without CAP_SYS_RESOURCE fails on limits above its own, and on Podman's default of
    1,048,576 as well, so both are always set explicitly. ``ids`` is how many user ids each sandbox gets.
    """

    files: int | None = None
    processes: int | None = None
    ids: int = 65536


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What two sandboxes must have in common for one to stand in for the other.

    ``deps``, ``scratch`` and ``outside`` are those of ``sandbox.SandboxSpec``; empty where there are none.
    """

    image: str
    limits: Limits = Limits()
    deps: str = ""
    scratch: int = 0
    outside: str = ""

    @property
    def plain(self) -> bool:
        """Whether it shows nothing of a repository, so that it may be started before it is asked for."""
        return not (self.deps or self.scratch or self.outside)


def shape_of(spec: SandboxSpec) -> Shape:
    """What a container for this sandbox must be."""
    return Shape(
        image=spec.image,
        limits=spec.limits,
        deps=str(spec.deps or ""),
        scratch=spec.scratch,
        outside=str(spec.outside or ""),
    )


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one container's things are on the host, and what the host can give.

    ``tools`` holds the folder ``toolserver``; in ``channel`` the runner listens; ``seccomp`` is the filter's
    file, None where the operator gave it up; ``accepted`` are the guarantees that the operator gave up.
    """

    tools: Path
    channel: Path
    seccomp: Path | None
    ceiling: Ceiling = Ceiling()
    accepted: frozenset[str] = frozenset()


def container_spec(
    name: str, shape: Shape, runner: str, place: Place, *, idle: float = 0.0
) -> dict[str, Any]:
    """The body of ``POST /libpod/containers/create``.

    Args:
        idle: seconds that it may wait for its run, on top of its lifetime.
    """
    limits = shape.limits
    filtered = {"seccomp_profile_path": str(place.seccomp)} if place.seccomp else {}
    return {
        "name": name,
        "image": shape.image,
        "labels": {f"{LABEL}.runner": runner, f"{LABEL}.box": name},
        "entrypoint": ["/usr/bin/env", "python3", "-I", "-S", "-B", "-c"],
        "command": [_START.format(f"{limits.seconds + idle:.0f}", f"{PATIENCE:.0f}")],
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
        "remove": True,
        "image_volume_mode": "ignore",
        "use_image_resolve_conf": True,
        "use_image_hosts": True,
        "privileged": False,
        "cap_drop": ["all"],
        "no_new_privileges": True,
        **filtered,
        "read_only_filesystem": True,
        "userns": {"nsmode": "auto", "value": f"size={place.ceiling.ids}"},
        "idmappings": {"AutoUserNs": True, "AutoUserNsOpts": {"Size": place.ceiling.ids}},
        "netns": {"nsmode": "none"},
        "pidns": {"nsmode": "private"},
        "ipcns": {"nsmode": "private"},
        "utsns": {"nsmode": "private"},
        "cgroupns": {"nsmode": "private"},
        "log_configuration": {"driver": "none"},
        "shm_size": SHM,
        "mounts": [
            _mount(TOOLS, place.tools / "toolserver"),
            _mount(CHANNEL, place.channel),
            *(_tmpfs(target, (limits.disk - SHM) * share // 100) for target, share in _SHARES),
            *_setup_mounts(shape),
        ],
        "resource_limits": resources(limits, place.accepted),
        "r_limits": rlimits(limits, place.ceiling),
    }


def fingerprint(body: dict[str, Any]) -> str:
    """What a container was made from, but for its name: equal for containers that can replace each other."""
    mounts = [m for m in body["mounts"] if m["destination"] != CHANNEL]
    rest = {**body, "name": "", "labels": {}, "mounts": mounts}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def resources(limits: Limits, accepted: Collection[str] = ()) -> dict[str, Any]:
    """Limits by cgroup; those that the operator gave up are not even asked for, for Podman would refuse."""
    asked = {
        "memory-limit": ("memory", {"limit": limits.memory, "swap": limits.memory}),
        "cpu-limit": ("cpu", {"period": 100_000, "quota": int(limits.cpus * 100_000)}),
        "process-limit": ("pids", {"limit": limits.pids}),
    }
    return {key: value for name, (key, value) in asked.items() if name not in accepted}


def rlimits(limits: Limits, ceiling: Ceiling) -> list[dict[str, Any]]:
    """Limits per process, never above what the service may hand out."""
    files = min(limits.files, ceiling.files if ceiling.files is not None else limits.files)
    processes = min(4096, ceiling.processes if ceiling.processes is not None else 4096)
    return [
        {"type": "nofile", "soft": files, "hard": files},
        {"type": "nproc", "soft": processes, "hard": processes},
        {"type": "core", "soft": 0, "hard": 0},
    ]


def _setup_mounts(shape: Shape) -> list[dict[str, Any]]:
    """What a repository's setup sees more than others, and what it left for those that come after it."""
    found = []
    if shape.outside:
        found.append(_mount(OUTSIDE, Path(shape.outside)))
    if shape.scratch:
        found.append(_tmpfs(DEPS, shape.scratch))
    elif shape.deps:
        found.append(_mount(DEPS, Path(shape.deps), noexec=False))
    return found


def _mount(target: str, source: Path, *, noexec: bool = True) -> dict[str, Any]:
    options = ["ro", "bind", "nosuid", "nodev", *(["noexec"] if noexec else []), "rprivate"]
    return {"destination": target, "type": "bind", "source": str(source), "options": options}


def _tmpfs(target: str, size: int) -> dict[str, Any]:
    options = ["rw", "nosuid", "nodev", f"size={size}", "mode=1777"]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
