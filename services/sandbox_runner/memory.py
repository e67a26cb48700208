"""How much memory the machine has left, and whether that is enough for one sandbox more (proc(5), PSI)."""

import re
from pathlib import Path

import msgspec

from services.sandbox_runner.sandbox import MIB

_RESERVE = 256 * MIB
_STALLED = 20.0
"""Percent of the last 10 s in which something waited for memory: more sandboxes would only wait as well."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that programs can still get without swapping, bytes in all, percent of time lost waiting."""

    available: int
    total: int
    stalled: float = 0.0

    def enough_for_run(self, limit: int) -> bool:
        """Whether one more sandbox may start that is allowed ``limit`` bytes; most use far less."""
        room = min(limit // 2, self.total // 4) + _RESERVE
        return self.available >= room and self.stalled < _STALLED

    def enough_to_wait(self) -> bool:
        """Whether containers may be kept that nobody needs yet."""
        return self.available >= self.total // 10 + _RESERVE and self.stalled < _STALLED / 2


def read_memory(proc: Path = Path("/proc")) -> Memory:
    """The machine now; where it cannot be read, there is enough."""
    try:
        info = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
        available, total = int(info["MemAvailable"]) * 1024, int(info["MemTotal"]) * 1024
    except (OSError, KeyError):
        return Memory(available=1 << 62, total=0)
    try:
        found = re.search(r"^some avg10=([\d.]+)", (proc / "pressure/memory").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return Memory(available=available, total=total, stalled=float(found[1]) if found else 0.0)
