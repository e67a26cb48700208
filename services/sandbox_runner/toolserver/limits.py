"""Which limits of the sandbox were reached: the model should not have to guess from an exit code."""

from __future__ import annotations

import os

_COUNTERS = {
    "memory": (("memory.events", "oom_kill"), ("memory/memory.oom_control", "oom_kill")),
    "processes": (("pids.events", "max"), ("pids/pids.events", "max")),
}
"""cgroups(7), versions 2 and 1: which line of which file counts how often a limit was reached."""

_DISKS = ("/workspace", "/tmp", "/home/agent", "/run/millrace", "/dev/shm")  # noqa: S108  it is a mount


class Limits:
    """Counts of the kernel since the last look."""

    def __init__(self, root: str = "/sys/fs/cgroup") -> None:
        self._files: dict[str, tuple[str, str]] = {}
        for name, places in _COUNTERS.items():
            for path, key in places:
                if os.path.exists(f"{root}/{path}"):
                    self._files.setdefault(name, (f"{root}/{path}", key))
        self._seen = {name: self._count(name) for name in self._files}

    def reached(self) -> list[str]:
        """``memory``, ``processes``, and ``disk`` if one of the file systems is full now."""
        found = []
        for name, seen in self._seen.items():
            self._seen[name] = count = self._count(name)
            if count > seen:
                found.append(name)
        if any(_full(disk) for disk in _DISKS):
            found.append("disk")
        return found

    def _count(self, name: str) -> int:
        path, key = self._files[name]
        try:
            with open(path) as file:
                return int(next(line.split()[1] for line in file if line.startswith(key + " ")))
        except (OSError, StopIteration, ValueError):
            return 0


def _full(path: str) -> bool:
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_blocks > 0 and status.f_bavail == 0
