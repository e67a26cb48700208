"""The connection to the runner: made again whenever it ends, until nobody has come for too long."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque

from .loop import READ, WRITE, Loop
from .wire import MAX_BLOB, MAX_TEXT, Frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Listener(Protocol):
        """What a connection tells."""

        def connected(self) -> bytes:
            """A runner listens; the frame to greet it with."""

        def heard(self, message: dict[str, Any], blob: bytes, descriptors: list[int]) -> None:
            """It said something; the descriptors are to be closed. What is raised ends the connection."""

        def disconnected(self) -> None:
            """It is gone."""


_RECEIVED = 256 * 1024
_DESCRIPTORS = 4
"""The most that one message of the socket brings along."""

_SOON, _LATER, _SOON_FOR = 0.02, 0.5, 5.0


class Connection:
    """Speaks to whoever listens on ``address``.

    Args:
        patience: seconds to wait for a runner that went away, before ``gone`` is called.
    """

    def __init__(
        self, loop: Loop, address: str, listener: Listener, *, patience: float, gone: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._address = address
        self._listener = listener
        self._patience = patience
        self._gone = gone
        self._socket: socket.socket | None = None
        self._frames = Frames(_room)
        self._unsent: deque[memoryview] = deque()
        self._descriptors: deque[int] = deque()
        self._alone_since = time.monotonic()

    def connect(self) -> None:
        """Try now, and again until it works."""
        alone = time.monotonic() - self._alone_since
        if alone > self._patience:
            self._gone()
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(self._address)
        except OSError:  # nobody listens (yet), or others wait before us
            connection.close()
            self._loop.later(_SOON if alone < _SOON_FOR else _LATER, self.connect)
            return
        self._socket = connection
        self._frames = Frames(_room)
        self._loop.watch(connection.fileno(), self._ready)
        self.send(self._listener.connected())

    def send(self, frame: bytes) -> None:
        """Send as soon as there is room; what cannot be sent before the connection ends is forgotten."""
        if self._socket is not None:
            self._unsent.append(memoryview(frame))
            self._flush()

    def _flush(self) -> None:
        connection = self._socket
        if connection is None:
            return
        was_full = bool(self._unsent)
        try:
            while self._unsent:
                rest = self._unsent[0][connection.send(self._unsent[0]) :]
                if rest:
                    self._unsent[0] = rest
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.watch(connection.fileno(), self._ready, READ | WRITE)
        except OSError:
            self._end()
        else:
            if was_full:
                self._loop.watch(connection.fileno(), self._ready)

    def _ready(self) -> None:
        if self._unsent:
            self._flush()
        if self._socket is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _RECEIVED, _DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not data:
            self._end()
            return
        try:
            for text, blob in self._frames.feed(data):
                message = json.loads(text)
                brought = min(int(message.get("descriptors", 0)), len(self._descriptors))
                self._listener.heard(message, blob, [self._descriptors.popleft() for _ in range(brought)])
                if self._socket is None:
                    return
        except Exception:  # noqa: BLE001  a runner does not say this: end it, and wait for another
            self._end()

    def _end(self) -> None:
        if self._socket is None:
            return
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._unsent.clear()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._listener.disconnected()
        self._alone_since = time.monotonic()
        self._loop.later(0, self.connect)


def _room() -> tuple[int, int]:
    return MAX_TEXT, MAX_BLOB
