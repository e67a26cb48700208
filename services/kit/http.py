"""An HTTP server inside the service's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from services.kit.errors import Misconfigured
from services.kit.slow_clients import Deadlines, with_deadlines


def bind(address: str, variable: str) -> socket.socket:
    """A listening socket on ``HOST:PORT``; ``Misconfigured`` names ``variable`` if it is taken."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"{address} cannot be listened on ({error.strerror}): is another Millrace running? "
            f"Set {variable} to a free HOST:PORT."
        ) from error
    return listener


@contextlib.asynccontextmanager
async def serving(
    app: Any, listener: socket.socket, *, deadlines: Deadlines | None = None, **options: Any
) -> AsyncIterator[str]:
    """Serve an ASGI application on a bound socket; yields its URL.

    Args:
        app: the application.
        listener: from ``bind``.
        deadlines: for what clients send.
        options: further fields of ``uvicorn.Config``.
    """
    config = uvicorn.Config(
        app, interface="asgi3", lifespan="off", log_config=None, access_log=False, server_header=False,
        http=with_deadlines(deadlines or Deadlines()), ws="none", proxy_headers=False,
        timeout_graceful_shutdown=5, **options,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[listener]))  # noqa: SLF001  serve() takes the signals
    host, port = listener.getsockname()[:2]
    try:
        while not server.started:
            if task.done():
                task.result()
                raise Misconfigured(f"the HTTP server on {host}:{port} ended at once")
            await asyncio.sleep(0.005)
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        listener.close()
