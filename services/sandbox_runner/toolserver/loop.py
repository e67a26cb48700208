"""One thread that waits for descriptors, times and ended children, and is told of work that others did."""

from __future__ import annotations

import _thread
import os
import select
import signal
import time
from collections import deque
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Timer:
    """Something to be done at a time, unless it is cancelled before."""

    def __init__(self, when: float, act: Callable[[], None]) -> None:
        self.when = when
        self._act: Callable[[], None] | None = act

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        """Not any more."""
        self._act = None

    def fire(self) -> None:
        """Do it, once."""
        act, self._act = self._act, None
        if act is not None:
            act()


class Loop:
    """Calls what waits, one after the other; ``on_child`` after a child of this process has ended."""

    def __init__(self, on_child: Callable[[], None]) -> None:
        self._on_child = on_child
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._times: list[Timer] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._wake, wake = os.pipe()
        self._knock = wake
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        self.watch(self._wake, self._woken)
        # A signal's byte on the pipe ends the wait. SIGCHLD only: process 1 is deaf to what has no handler.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)

    def watch(self, descriptor: int, act: Callable[[], None], events: int = READ) -> None:
        """Call ``act`` whenever the descriptor is ready, or has nobody at its other end any more."""
        if descriptor in self._watched:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._watched[descriptor] = act

    def forget(self, descriptor: int) -> None:
        """Watch it no more; before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Call ``act`` after some seconds."""
        timer = Timer(time.monotonic() + seconds, act)
        heappush(self._times, timer)
        return timer

    def post(self, act: Callable[[], None]) -> None:
        """Call ``act`` soon; the only method for other threads."""
        self._posted.append(act)
        if _thread.get_ident() != self._thread:
            try:
                os.write(self._knock, b"\0")
            except BlockingIOError:
                pass  # it is being woken anyway

    def run(self) -> None:
        """For ever."""
        self._thread = _thread.get_ident()
        while True:
            self._turn()

    _thread = 0

    def _turn(self) -> None:
        for descriptor, _ in self._epoll.poll(self._patience()):
            act = self._watched.get(descriptor)
            if act is not None:  # another one may just have closed it
                act()
        now = time.monotonic()
        while self._times and self._times[0].when <= now:
            heappop(self._times).fire()
        for _ in range(len(self._posted)):
            self._posted.popleft()()

    def _patience(self) -> float:
        if self._posted:
            return 0.0
        return max(0.0, self._times[0].when - time.monotonic()) if self._times else -1.0

    def _woken(self) -> None:
        try:
            while len(os.read(self._wake, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        self._on_child()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal without a Python handler would not wake anybody."""
