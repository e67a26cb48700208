"""One container: what the runner knows of it while it lives, and what a successor reads when it does not."""

import time
from contextlib import suppress
from pathlib import Path

import msgspec

from contracts.envelope import RunKey
from services.sandbox_runner.change import DEFAULT_LIMITS, ChangeLimits
from services.sandbox_runner.channel import Channel
from services.sandbox_runner.profile import Shape
from services.sandbox_runner.sandbox import SandboxGone

_PING_SECONDS = 1.0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What lies on disk about a container, so that it can be found, adopted or removed after a kill.

    Labels cannot tell whose it is: it was started before anybody needed it, and labels never change.
    ``made`` is the fingerprint of its specification. ``sandbox``, ``key`` and ``change``, the largest change
    that is taken from it, are set once it is taken.
    """

    box: str
    shape: Shape
    made: str
    container: str = ""
    sandbox: str = ""
    key: RunKey | None = None
    change: ChangeLimits = DEFAULT_LIMITS


class Box(msgspec.Struct, kw_only=True, eq=False):
    """A verified container with an open tool channel.

    ``image`` is the image's id, ``uid_map`` the host's first uid of its user namespace (0: not visible from
    here). ``born`` is monotonic time.
    """

    record: Record
    container: str
    channel: Channel
    image: str
    uid_map: int
    python: str
    born: float = msgspec.field(default_factory=time.monotonic)
    pings: int = 0

    @property
    def name(self) -> str:
        """The container's name, and that of its directory and its record."""
        return self.record.box

    async def alive(self) -> bool:
        """Whether its tool server answers at once; one that was stopped, or is starved, does not."""
        if self.channel.closed.is_set():
            return False
        self.pings += 1
        with suppress(SandboxGone):
            await self.channel.ask(f"ping/{id(self)}/{self.pings}", {"op": "ping"}, seconds=_PING_SECONDS)
            return True
        return False


class Records:
    """The records of one runner's containers; each is a file that is written whole or not at all.

    Nobody else writes them while the runner lives, so that they are read once.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Record] | None = None

    def write(self, record: Record) -> None:
        """Keep a record; an earlier one of the same container is replaced."""
        self._all()[record.box] = record
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.box)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(record))
        part.replace(path)

    def read(self) -> list[Record]:
        """All records, oldest first."""
        return list(self._all().values())

    def forget(self, box: str) -> None:
        """Remove a record; nothing happens if there is none."""
        self._all().pop(box, None)
        self._path(box).unlink(missing_ok=True)

    def _all(self) -> dict[str, Record]:
        if self._known is None:
            self._known = {}
            for path in sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime):
                # One that cannot be read is no record: the container's label still finds it.
                with suppress(msgspec.DecodeError, OSError):
                    self._known[path.stem] = msgspec.json.decode(path.read_bytes(), type=Record)
        return self._known

    def _path(self, box: str) -> Path:
        return self._directory / f"{box}.json"
