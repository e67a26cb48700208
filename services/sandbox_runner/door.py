"""What an engine in a sandbox asks the model, held here until the agent has answered it.

A unix socket in the directory that this sandbox sees takes HTTP requests (one per connection) and keeps
them, the oldest first. The agent asks for them over NATS and sends the answers; the runner knows no key,
reads no body and decides nothing but how much it keeps. What arrives was written inside a sandbox: sizes
and times are bounded before anything is believed.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import structlog

from contracts.engine import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    PART_BYTES,
    Asked,
    EngineAnswer,
    EngineQuestion,
    Gone,
    Next,
    Part,
    Quiet,
    Read,
    Reply,
    Taken,
    Unanswerable,
)

PATIENCE = 5.0
"""Seconds for which a question waits for a request before ``Quiet`` is said; the asker waits 10."""
WAITING = 8
"""Requests that one sandbox may have waiting, and the bytes that they may have together."""
WAITING_BYTES = 32 * 1024 * 1024
_HEAD_BYTES = 32 * 1024
_ARRIVAL_SECONDS = 60.0
_CONNECTIONS = 32

logger = structlog.get_logger(__name__)
_questions: msgspec.json.Decoder[EngineQuestion] = msgspec.json.Decoder(EngineQuestion)


class Waiting:
    """A request whose connection is open. ``answered`` is set to status, headers and body."""

    def __init__(self, asked: Asked, body: bytes) -> None:
        self.asked = asked
        self.body = body
        self.answered: asyncio.Future[tuple[int, dict[str, str], bytes]] = (
            asyncio.get_running_loop().create_future()
        )
        self.reply = bytearray()


class Door:
    """Where one sandbox's requests to the model wait.

    Args:
        directory: the one that exactly this sandbox sees, as ``/run/channel``.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "model"
        self._directory = directory
        self._server: asyncio.Server | None = None
        self._waiting: dict[str, Waiting] = {}
        self._arrived = asyncio.Event()
        self._serial = 0
        self._connections = 0
        self._bytes = 0
        # Numbers begin anew with each runner process; an agent must not take one request for another.
        self._name = secrets.token_hex(4)

    async def answer(self, body: bytes) -> bytes:
        """The answer to one of the agent's questions; the first one opens the door."""
        try:
            question = _questions.decode(body)
            await self._open()
        except (msgspec.DecodeError, OSError) as error:
            return msgspec.json.encode(Unanswerable(why=f"{type(error).__name__}: {error}"))
        return msgspec.json.encode(await self._answer(question))

    async def close(self) -> None:
        """Take nothing more; who waits is hung up on."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for waiting in self._waiting.values():
            waiting.answered.cancel()

    async def _open(self) -> None:
        if self._server is not None:
            return
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        handle = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:  # the path of a unix socket is at most 107 bytes (unix(7)); this one always fits
            listener.bind(f"/proc/self/fd/{handle}/model")
        finally:
            os.close(handle)
        self._path.chmod(0o666)  # the directory above is the runner's alone
        self._server = await asyncio.start_unix_server(self._hear, sock=listener, limit=_HEAD_BYTES)

    async def _answer(self, question: EngineQuestion) -> EngineAnswer:
        match question:
            case Next(known=known):
                return await self._next(known)
            case Read(request=name, at=at):
                waiting = self._waiting.get(name)
                return Gone() if waiting is None else Part(data=waiting.body[at : at + PART_BYTES])
            case Reply():
                return self._reply(question)

    async def _next(self, known: str) -> Asked | Quiet:
        if not self._waiting:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), PATIENCE)
        waiting = next(iter(self._waiting.values()), None)
        if waiting is None:
            return Quiet()
        if waiting.asked.request == known:
            return waiting.asked
        return msgspec.structs.replace(waiting.asked, data=waiting.body[:PART_BYTES])

    def _reply(self, part: Reply) -> Taken | Gone:
        waiting = self._waiting.get(part.request)
        if waiting is None:
            return Gone()
        if part.at == 0:
            waiting.reply.clear()  # an agent that took over from another begins again
        if part.at != len(waiting.reply):
            return Taken()  # it came before
        waiting.reply += part.data
        if len(waiting.reply) > MAX_REPLY_BYTES:
            waiting.answered.cancel()
        elif part.last:
            waiting.answered.set_result((part.status, part.headers, bytes(waiting.reply)))
            del self._waiting[part.request]
        return Taken()

    # --- the sandbox's side --------------------------------------------------------------------------------

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > _CONNECTIONS:
                return
            async with asyncio.timeout(_ARRIVAL_SECONDS):
                waiting = await self._read(reader)
            if isinstance(waiting, HTTPStatus):
                writer.write(_refusal(waiting))
            else:
                await self._hold(waiting, reader, writer)
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
            pass  # it broke HTTP, hung up or took too long: hanging up says enough
        finally:
            self._connections -= 1
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> "Waiting | HTTPStatus":
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
        }
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return HTTPStatus.LENGTH_REQUIRED
        if int(length) > MAX_REQUEST_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if len(self._waiting) >= WAITING or self._bytes + int(length) > WAITING_BYTES:
            return HTTPStatus.SERVICE_UNAVAILABLE
        self._bytes += int(length)
        try:
            body = await reader.readexactly(int(length))
        except BaseException:
            self._bytes -= int(length)
            raise
        self._serial += 1
        asked = Asked(
            request=f"{self._name}-{self._serial}",
            method=method,
            target=target,
            headers=headers,
            size=len(body),
        )
        return Waiting(asked, body)

    async def _hold(
        self, waiting: Waiting, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name = waiting.asked.request
        self._waiting[name] = waiting
        self._arrived.set()
        # Whoever waits sends nothing more: the end of its stream, or another byte, means that it left.
        left = asyncio.ensure_future(reader.read(1))
        try:
            ends: set[asyncio.Future[Any]] = {waiting.answered, left}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if waiting.answered.done() and not waiting.answered.cancelled():
                writer.write(_response(*waiting.answered.result()))
        finally:
            left.cancel()
            self._waiting.pop(name, None)
            self._bytes -= len(waiting.body)


def _response(status: int, headers: dict[str, str], body: bytes) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # such as 529
        phrase = "Status"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def _refusal(status: HTTPStatus) -> bytes:
    """In the shape of the Messages API's errors."""
    inner = {"type": "invalid_request_error", "message": status.phrase}
    body = json.dumps({"type": "error", "error": inner}).encode()
    return _response(status.value, {"content-type": "application/json"}, body)
