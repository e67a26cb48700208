"""uvicorn's HTTP protocol with limits that it lacks: deadlines for requests, a size for what is no body."""

import asyncio
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""About what request line and headers may occupy, and trailers after a body; GitHub sends less than 2 KiB."""


class Deadlines(NamedTuple):
    """Seconds.

    ``head`` is from the connection, or the first byte after an answer, to the end of the headers; ``body``
    from there to the end of the body (applications give up sooner and can still say why); ``farewell`` is
    how long a client with too large a head may take to read that.
    """

    head: float = 10.0
    body: float = 14.0
    farewell: float = 2.0


class DeadlineProtocol(HttpToolsProtocol):
    """Hangs up on clients whose next request does not arrive in time; answers may take as long as they do."""

    deadlines = Deadlines()
    _deadline: asyncio.TimerHandle | None = None
    _loose = 0  # bytes since the last that were a whole head or a piece of a body
    _in_head = True
    _refused = False

    def connection_made(self, transport: Any) -> None:
        """The client must begin."""
        super().connection_made(transport)
        self._arm(self.deadlines.head)

    def data_received(self, data: bytes) -> None:
        """Something arrived."""
        if self._refused:
            return
        self._loose += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._loose > HEAD_BYTES:
            self._refuse()
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            # It begins no request yet (a line break, the end of a body that was answered before it was
            # whole), and uvicorn has ended its own wait for the next one.
            self._arm(self.deadlines.head)

    def on_message_begin(self) -> None:
        """A request begins: also a later one on the same connection."""
        super().on_message_begin()
        self._in_head = True
        if self._deadline is None:
            self._arm(self.deadlines.head)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. A trailer is none, though the parser reports it alike and uvicorn takes it for one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are whole."""
        self._in_head, self._loose = False, 0
        self._arm(self.deadlines.body)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser passes over the body: nothing after it can be trusted

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._loose = 0
        self._disarm()
        super().on_message_complete()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn never stays
        """The client sends no more. Who has asked and waits is still answered."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_started:
            return None
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """Another protocol was asked for; the answer stays in this one, and that is no news."""

    def _refuse(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        # To close with bytes unread would reset the connection, and take the answer back.
        self._refused = True
        words = b"The request's head is too large."
        self.transport.write(
            STATUS_LINE[400]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%b" % (len(words), words)
        )
        self.transport.write_eof()
        self._arm(self.deadlines.farewell)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._hang_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()


def with_deadlines(deadlines: Deadlines) -> type[DeadlineProtocol]:
    """The protocol with these deadlines."""

    class Protocol(DeadlineProtocol):
        pass

    Protocol.deadlines = deadlines
    return Protocol
