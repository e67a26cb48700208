"""Warm containers: started and verified before anybody needs them, used once, never given back.

How many wait follows from a setting and from what was taken lately; fewer where memory is short. They hold
nothing of any repository: that enters after the take.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog

from services.kit.errors import MillraceError
from services.sandbox_runner.box import Box, Record, Records
from services.sandbox_runner.memory import Memory, read_memory
from services.sandbox_runner.profile import Shape, shape_of
from services.sandbox_runner.sandbox import SandboxSpec

IDLE_SECONDS = 1800.0
"""The longest that a container waits; its lifetime is that much longer."""
LATELY = 120.0
"""Seconds of takes that say how many will be taken next."""
_LOOK_SECONDS = 10.0
_AFTER_TAKE = 0.3
"""Seconds that a start waits after a take: the checkout of the one that was taken comes first."""
_LONGEST_PAUSE = 60.0

logger = structlog.get_logger(__name__)


class Starter(Protocol):
    """What the pool needs of ``podman_host.PodmanHost``."""

    records: Records

    async def start(self, shape: Shape, *, idle: float = 0.0) -> Box:
        """A new verified container."""

    async def discard(self, record: Record) -> None:
        """Remove a container."""

    def is_current(self, record: Record, idle: float) -> bool:
        """Whether it is what would be started today."""


def targets(
    takes: Sequence[tuple[float, Shape]], now: float, floor: Mapping[Shape, int], most: int
) -> dict[Shape, int]:
    """How many containers of each shape should wait (pure).

    As many as were taken within ``LATELY``, at least the floor, at most ``most`` in all; the floors come
    first, then what was taken last.

    Args:
        takes: when something of which shape was taken, oldest first.
    """
    wanted = {shape: min(number, most) for shape, number in floor.items()}
    seen: dict[Shape, int] = {}
    for at, shape in reversed(takes):
        if now - at > LATELY:
            break
        seen[shape] = seen.get(shape, 0) + 1
        if seen[shape] > wanted.get(shape, 0) and sum(wanted.values()) < most:
            wanted[shape] = wanted.get(shape, 0) + 1
    return wanted


class Pool:
    """The warm containers of one host.

    Args:
        host: starts and removes them.
        memory: what is left of the machine's memory.
    """

    def __init__(self, host: Starter, memory: Callable[[], Memory] = read_memory) -> None:
        self._host = host
        self._memory = memory
        self._warm: dict[Shape, deque[Box]] = {}
        self._takes: deque[tuple[float, Shape]] = deque(maxlen=1000)
        self._floor: dict[Shape, int] = {}
        self._most = 0
        self._wake = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._discarding: set[asyncio.Task[None]] = set()
        self.problem = ""

    @property
    def waiting(self) -> int:
        """How many containers are warm."""
        return sum(map(len, self._warm.values()))

    async def take(self, spec: SandboxSpec) -> Box:
        """A container for this sandbox, warm if one is; recorded as taken before it is handed out.

        One that sees more than the others, such as what a setup left, is always started for its sandbox.
        """
        shape = shape_of(spec)
        if shape.plain and spec.key is not None:  # what is for no run says nothing of what comes next
            self._takes.append((time.monotonic(), shape))
        box = await self._healthy(shape) or await self._host.start(shape)
        box.record = msgspec.structs.replace(
            box.record, sandbox=spec.sandbox_id, key=spec.key, change=spec.change
        )
        self._host.records.write(box.record)
        self._wake.set()
        return box

    def put(self, box: Box) -> None:
        """Let an unused container wait here: one that a predecessor had started."""
        self._warm.setdefault(box.record.shape, deque()).append(box)

    def keep(self, shape: Shape, floor: int, most: int) -> None:
        """From now on keep at least ``floor`` of this shape, and at most ``most`` of all shapes."""
        self._floor, self._most = {shape: floor}, most
        self._wake.set()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def drain(self) -> None:
        """Start no more and remove those that wait."""
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        for boxes in self._warm.values():
            while boxes:
                self._drop(boxes.pop())
        if self._discarding:
            await asyncio.wait(self._discarding)

    async def _healthy(self, shape: Shape) -> Box | None:
        """The one that waited longest and still answers."""
        boxes = self._warm.get(shape, deque())
        while boxes:
            box = boxes.popleft()
            if await box.alive():
                return box
            logger.warning("a warm container did not answer", box=box.name)
            self._drop(box)
        return None

    async def _keep(self) -> None:
        failures = 0
        while True:
            pause = min(_LONGEST_PAUSE, _LOOK_SECONDS * 2 ** (failures - 1)) if failures else _LOOK_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                    await asyncio.sleep(_AFTER_TAKE if not failures else pause)
            self._wake.clear()
            try:
                await self._look_through()
                await self._fill()
            except MillraceError as error:
                failures += 1
                if self.problem != str(error):
                    logger.warning("no warm container", why=str(error))
                self.problem = str(error)
            except Exception:
                failures += 1
                logger.exception("keeping containers warm failed")
            else:
                failures, self.problem = 0, ""

    async def _look_through(self) -> None:
        """Drop what does not answer, waited too long, is of yesterday's making, or is not needed any more."""
        wanted = self._wanted()
        for shape, boxes in list(self._warm.items()):
            for _ in range(len(boxes)):
                if not boxes:
                    break
                box = boxes.popleft()  # not to be taken while it is asked: no answer would break its channel
                old = time.monotonic() - box.born > IDLE_SECONDS
                surplus = len(boxes) >= wanted.get(shape, 0)
                if old or surplus or not self._host.is_current(box.record, IDLE_SECONDS):
                    self._drop(box)
                elif await box.alive():
                    boxes.append(box)
                else:
                    logger.warning("a warm container did not answer", box=box.name)
                    self._drop(box)

    async def _fill(self) -> None:
        while True:
            lacking = [
                shape for shape, number in self._wanted().items() if len(self._warm.get(shape, ())) < number
            ]
            if not lacking:
                return
            self.put(await self._host.start(lacking[0], idle=IDLE_SECONDS))

    def _wanted(self) -> dict[Shape, int]:
        if not self._memory().enough_to_wait():
            return {}
        return targets(list(self._takes), time.monotonic(), self._floor, self._most)

    def _drop(self, box: Box) -> None:
        async def discard() -> None:
            await box.channel.close()
            try:
                await self._host.discard(box.record)
            except MillraceError as error:  # the reaper comes again
                logger.warning("a warm container was left behind", box=box.name, error=str(error))

        task = asyncio.create_task(discard())
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)
