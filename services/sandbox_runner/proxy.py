"""The way out of a setup: a CONNECT proxy on a unix socket that only that setup's sandbox sees.

It resolves a name once, connects to what it found, and copies bytes. When it is closed the socket and all
connections are gone. What was reached and what was refused is kept for the report.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from services.sandbox_runner.egress import (
    MAX_HEAD,
    Blocked,
    Policy,
    Target,
    check_addresses,
    check_target,
    read_request,
    server_name,
)

_HEAD_SECONDS = 10.0
_LOOK_UP_SECONDS = 10.0
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 120.0
_CONNECTIONS = 64
_CHUNK = 64 * 1024
_HELLO = 64 * 1024
_REMEMBERED = 50

logger = structlog.get_logger(__name__)

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Traffic(msgspec.Struct):
    """Bytes of all connections to one host, as seen from the sandbox."""

    connections: int = 0
    sent: int = 0
    received: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """What was asked for and why it was not given; ``target`` was written inside the sandbox."""

    target: str
    why: str


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as this machine's resolver knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Proxy:
    """Listens in a directory; see ``services.sandbox_runner.egress`` for what it lets through.

    Args:
        directory: where the socket ``proxy`` is made; the sandbox sees the directory.
        sent: bytes that may leave over all connections; more ends them. Packages come in, little goes out.
        received: bytes that may come in.
        look_up: how names become addresses.
        connections: how many may be open at once.
    """

    def __init__(
        self,
        directory: Path,
        policy: Policy,
        *,
        sent: int = 32 * 1024 * 1024,
        received: int = 8 * 1024**3,
        look_up: Resolve = resolve,
        connections: int = _CONNECTIONS,
    ) -> None:
        self._directory = directory
        self._policy = policy
        self._left = {"sent": sent, "received": received}
        self._look_up = look_up
        self._connections = connections
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.traffic: dict[Target, Traffic] = {}
        self.refused: dict[Refusal, int] = {}

    async def __aenter__(self) -> "Proxy":
        path = self._directory / "proxy"
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        handle = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:  # the path of a unix socket is at most 107 bytes (unix(7)); this one always fits
            listening.bind(f"/proc/self/fd/{handle}/proxy")
        finally:
            os.close(handle)
        path.chmod(0o666)  # the directory above is the runner's alone
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_HEAD)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing can be reached any more from the moment this is called."""
        if self._server is not None:
            self._server.close()
        (self._directory / "proxy").unlink(missing_ok=True)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio runs this as a task
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except _Silent as error:
            self._refuse(error)
        except Blocked as error:
            self._refuse(error)
            answer = f"HTTP/1.1 {error.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            with suppress(OSError, TimeoutError):
                writer.write(answer.encode())
                await asyncio.wait_for(writer.drain(), 1)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one of the two ends went away; the client tries again if it wants to
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) > self._connections:
            raise Blocked("too many connections at once", status="503 Service Unavailable")
        target = await self._request(reader)
        public = check_target(self._policy, target)
        upstream, answering = await self._connect(target, public)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            first = await self._hello(reader, target)
            traffic = self.traffic.setdefault(target, Traffic())
            traffic.connections += 1
            self._count("sent", len(first), traffic)
            answering.write(first)
            await self._copy_both(reader, writer, upstream, answering, traffic)
        finally:
            answering.close()

    async def _request(self, reader: asyncio.StreamReader) -> Target:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError as error:
            raise Blocked("no request within 10 s", status="408 Request Timeout") from error
        except asyncio.LimitOverrunError as error:
            raise Blocked("the request is too long", status="431 Request Header Fields Too Large") from error
        target = read_request(head)
        # The client has to wait for our answer; what is there already was meant for another parser.
        if reader._buffer:  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way to look
            raise Blocked("bytes before the answer", str(target), status="400 Bad Request")
        return target

    async def _connect(
        self, target: Target, public: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                addresses = await self._look_up(target.host, target.port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Blocked("its name was not found", str(target), status="502 Bad Gateway") from error
        if public:
            try:
                check_addresses(addresses, [each for each in addresses if _is_own(each)])
            except Blocked as error:
                raise Blocked(error.why, str(target)) from None
        for address in addresses:  # the very ones that were looked at: a second look-up could differ
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(address, target.port, limit=_CHUNK)
        raise Blocked("it does not answer", str(target), status="502 Bad Gateway")

    async def _hello(self, reader: asyncio.StreamReader, target: Target) -> bytes:
        """The first bytes, which must be TLS for exactly the host that was asked for."""
        data = b""
        async with asyncio.timeout(_HEAD_SECONDS):
            while len(data) < _HELLO:
                part = await reader.read(_CHUNK)
                if not part:
                    raise asyncio.IncompleteReadError(data, None)
                data += part
                try:
                    name = server_name(data)
                except Blocked as error:
                    raise _Silent(error.why, str(target)) from None
                if name == target.host:
                    return data
                if name is not None:
                    raise _Silent(f"its TLS names another host: {name}", str(target))
        raise _Silent("its TLS cannot be read", str(target))

    async def _copy_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamReader,
        answering: asyncio.StreamWriter,
        traffic: Traffic,
    ) -> None:
        moved = [asyncio.get_running_loop().time()]
        out = asyncio.create_task(self._copy(reader, answering, "sent", traffic, moved))
        back = asyncio.create_task(self._copy(upstream, writer, "received", traffic, moved))
        try:
            await asyncio.wait({out, back}, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (out, back):
                task.cancel()
            await asyncio.gather(out, back, return_exceptions=True)

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        way: str,
        traffic: Traffic,
        moved: list[float],
    ) -> None:
        """Copy one direction; ``moved`` is when either of them last brought something."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    data = await source.read(_CHUNK)
            except TimeoutError:
                if clock() - moved[0] < _IDLE_SECONDS:
                    continue  # the other direction is busy
                raise
            moved[0] = clock()
            if not data:
                if sink.can_write_eof():
                    sink.write_eof()
                return
            self._count(way, len(data), traffic)
            sink.write(data)
            async with asyncio.timeout(_IDLE_SECONDS):
                await sink.drain()

    def _count(self, way: str, size: int, traffic: Traffic) -> None:
        setattr(traffic, way, getattr(traffic, way) + size)
        self._left[way] -= size
        if self._left[way] < 0:
            self._refuse(Blocked(f"more bytes were {way} than a setup may"))
            raise ConnectionResetError

    def _refuse(self, error: Blocked) -> None:
        refusal = Refusal(_printable(error.target), error.why)
        if refusal in self.refused or len(self.refused) < _REMEMBERED:
            if refusal not in self.refused:
                logger.info("egress refused", target=refusal.target, why=refusal.why)
            self.refused[refusal] = self.refused.get(refusal, 0) + 1


class _Silent(Blocked):
    """Refused after the tunnel was open: there is no place for an answer any more."""


def _is_own(address: str) -> bool:
    """Whether an address belongs to this machine: only then can something be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:100])
