"""Who may have a sandbox next when there are not enough: fair over repositories, with a visible place.

A run that does not get in knocks again after a while (its message comes back from the log); a place that
nobody knocks for any more was given up, or the run went to another runner.
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from services.kit.errors import Later

_FIRST, _STEP, _LONGEST = 0.5, 0.5, 5.0
"""Seconds until the next knock: by place."""
_LATE = 1.5
"""Seconds after which a run that should have knocked counts as gone; the log is not that punctual."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that is wanted: since when, and when its run knocks again (monotonic time)."""

    sandbox: str
    repository: int
    since: float
    due: float


def in_turn(waiting: list[Waiting], held: Mapping[int, int]) -> list[Waiting]:
    """The order in which they get in (pure): whose repository has fewest sandboxes, then who came first.

    Args:
        held: sandboxes by repository.
    """
    ranks: dict[int, int] = dict(held)
    ranked = []
    for each in sorted(waiting, key=lambda entry: (entry.since, entry.sandbox)):
        rank = ranks[each.repository] = ranks.get(each.repository, 0) + 1
        ranked.append((rank, each.since, each.sandbox, each))
    return [entry for _, _, _, entry in sorted(ranked, key=lambda row: row[:3])]


class Room:
    """Room for ``limit`` sandboxes.

    Args:
        enough: whether there is memory for one more; without any sandbox the first gets in regardless.
    """

    def __init__(
        self,
        limit: int,
        enough: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._enough = enough
        self._clock = clock
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, Waiting] = {}

    def enter(self, sandbox: str, repository: int) -> None:
        """Take a place; it is kept until ``leave``. One who is inside already stays there.

        Raises:
            Later: ``queued``; the text says the place in the queue, ``seconds`` when to knock again.
        """
        now = self._clock()
        if sandbox in self._inside:
            return
        self._waiting = {name: each for name, each in self._waiting.items() if each.due + _LATE > now}
        known = self._waiting.get(sandbox)
        entry = Waiting(sandbox=sandbox, repository=repository, since=known.since if known else now, due=now)
        self._waiting[sandbox] = entry
        order = self._order()
        place = order.index(sandbox)
        if place < self._free():
            del self._waiting[sandbox]
            self._inside[sandbox] = repository
            return
        wait = min(_LONGEST, _FIRST + _STEP * place)
        self._waiting[sandbox] = msgspec.structs.replace(entry, due=now + wait)
        raise Later(
            f"All sandboxes are busy: number {place + 1} of {len(order)} in the queue.",
            seconds=wait,
            kind="queued",
        )

    def add(self, sandbox: str, repository: int) -> None:
        """One who is inside already: a sandbox that was adopted."""
        self._inside[sandbox] = repository

    def leave(self, sandbox: str) -> None:
        """Give a place back; nothing happens if it has none."""
        self._inside.pop(sandbox, None)

    @property
    def queue(self) -> tuple[str, ...]:
        """Who waits, the next one first."""
        now = self._clock()
        return tuple(name for name in self._order() if self._waiting[name].due + _LATE > now)

    def _order(self) -> list[str]:
        held: dict[int, int] = {}
        for repository in self._inside.values():
            held[repository] = held.get(repository, 0) + 1
        return [entry.sandbox for entry in in_turn(list(self._waiting.values()), held)]

    def _free(self) -> int:
        free = self.limit - len(self._inside)
        if free > 0 and self._inside and not self._enough():
            return 0
        return free
