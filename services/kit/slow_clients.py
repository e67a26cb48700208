"""uvicorn's HTTP protocol with a deadline for requests, which it lacks: slow clients are hung up on."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""From the connection, or the first byte of a later request, to the end of the headers."""
BODY_SECONDS = 14.0
"""From there to the end of the body; applications give up sooner and can still say why."""


class DeadlineProtocol(HttpToolsProtocol):
    """Closes connections whose next request does not arrive in time; answers may take as long as they want."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The client must begin."""
        super().connection_made(transport)
        self._arm(HEADER_SECONDS)

    def on_message_begin(self) -> None:
        """A request begins: also a later one on the same connection."""
        super().on_message_begin()
        if self._deadline is None:
            self._arm(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        """The headers are whole."""
        self._arm(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._disarm()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

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
