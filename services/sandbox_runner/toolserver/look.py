"""What process 1 sees of its own confinement, as the runner compares it with what was asked for.

Texts of proc(5) go out as they are; the runner reads them (``services.sandbox_runner.inspection``).
"""

import ctypes
import os
import socket
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # what these modules draw in would cost each start
    from typing import Any

_PR_GET_DUMPABLE = 3
_AF_VSOCK = 40
_CLONE_NEWUSER_AND_NONSENSE = 0x10000001
"""A kernel without a filter in front of it calls this invalid; nothing happens in either case."""

_TEXTS = ("uid_map", "gid_map", "status", "mountinfo", "limits", "net/dev")
_CGROUP_FILES = {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "swap": ("memory.swap.max",),
    "memory and swap": ("memory/memory.memsw.limit_in_bytes",),
    "pids": ("pids.max", "pids/pids.max"),
    "cpu": ("cpu.max",),
    "cpu quota": ("cpu/cpu.cfs_quota_us",),
    "cpu period": ("cpu/cpu.cfs_period_us",),
}


def look() -> "dict[str, Any]":
    """Identity, privileges, mounts, limits, network, environment and what the filter refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(_CLONE_NEWUSER_AND_NONSENSE)
    namespace = ctypes.get_errno()
    try:
        socket.socket(_AF_VSOCK, socket.SOCK_STREAM).close()
        family = 0
    except OSError as error:
        family = error.errno or 0
    return {
        **{name: _text(f"/proc/self/{name}") for name in _TEXTS},
        "cgroup": _cgroup(),
        "variables": sorted(os.environ),
        "dumpable": libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0,
        "refused": {"namespace": namespace, "family": family},
    }


def _cgroup() -> dict[str, str]:
    found = {name: _first(files) for name, files in _CGROUP_FILES.items()}
    if not found["swap"] and "\nSwapTotal:              0 kB" in _text("/proc/meminfo"):
        found["swap"] = "0"  # a kernel that counts no swap has none to give
    return found


def _first(files: tuple[str, ...]) -> str:
    return next((text for file in files if (text := _text(f"/sys/fs/cgroup/{file}"))), "")


def _text(path: str) -> str:
    with suppress(OSError), open(path, errors="replace") as file:  # noqa: PTH123  pathlib costs the start
        return file.read().strip()
    return ""
