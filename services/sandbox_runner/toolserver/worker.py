"""One thread for what takes long and goes one after the other: everything that git does."""

from __future__ import annotations

import _thread
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Worker:
    """Does jobs in the order they came. Its thread is there from the start: a full sandbox has no room."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._waiting = _thread.allocate_lock()
        self._waiting.acquire()

    def start(self) -> None:
        """Begin to work."""
        _thread.start_new_thread(self._work, ())

    def add(self, job: Callable[[], None]) -> None:
        """One more; it must not raise."""
        self._jobs.append(job)
        if self._waiting.locked():  # only the worker locks it, only this opens it
            self._waiting.release()

    def _work(self) -> None:
        while True:
            self._waiting.acquire()
            while self._jobs:
                self._jobs.popleft()()
