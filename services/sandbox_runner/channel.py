"""The runner's end of the tool channel: one connection, many calls, each answered once.

What arrives was written inside a sandbox: lengths are bounded before anything is read, and a peer that
breaks the protocol is treated as gone.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from services.kit.errors import Later
from services.sandbox_runner.sandbox import SandboxGone
from services.sandbox_runner.toolserver.wire import HEADER, check_lengths, pack_frame

_REMEMBERED = 256
_BACKLOG_BYTES = 1024 * 1024
Answer = tuple[dict[str, Any], bytes]


class Listener:
    """A socket in a directory that one sandbox sees; it takes one connection and disappears."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "s"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:  # the path of a unix socket is at most 107 bytes (unix(7)); this one always fits
            self._socket.bind(f"/proc/self/fd/{handle}/s")
        finally:
            os.close(handle)
        self._path.chmod(0o666)  # the directory above is the runner's alone
        self._socket.listen(1)

    async def accept(self, seconds: float, pid: int = 0) -> "Channel":
        """The connection of the tool server; ``Later`` if none comes in time.

        Args:
            pid: its process; others of the sandbox, where work goes on already, are turned away.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                    peer = _peer(connection)
                    if not pid or peer in (0, pid):
                        break
                    connection.close()
        except TimeoutError as error:
            raise Later(f"the sandbox did not report within {seconds:.0f} s", kind="sandbox_start") from error
        finally:
            self.close()
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_BACKLOG_BYTES)
        return Channel(reader, writer, peer)

    def close(self) -> None:
        """Nobody can connect any more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


def _peer(connection: socket.socket) -> int:
    """Who called connect, as seen from here (SO_PEERCRED, unix(7)); 0 for a process that cannot be seen."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


class Channel:
    """Calls to one tool server. ``peer_pid`` is 0 if its process cannot be seen from here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer_pid: int) -> None:
        self.peer_pid = peer_pid
        self._reader = reader
        self._writer = writer
        self._asked: OrderedDict[str, asyncio.Future[Answer]] = OrderedDict()
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._hello.add_done_callback(_look)
        self.closed = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def hello(self, seconds: float) -> dict[str, Any]:
        """What the tool server says about itself first."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._hello)
        except TimeoutError as error:
            raise SandboxGone(f"the sandbox said nothing within {seconds:.0f} s") from error

    async def ask(
        self,
        call: str,
        message: dict[str, Any],
        *,
        seconds: float,
        blob: bytes = b"",
        upload: AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Send a call and wait for its answer; an id that was used before is not sent again.

        Args:
            seconds: after that the sandbox counts as gone: its own deadlines are shorter.
            upload: parts that follow the call, none of them empty.

        Raises:
            SandboxGone: it ended, broke the protocol or did not answer in time.
        """
        future = self._asked.get(call)
        if future is None:
            if self.closed.is_set():
                raise SandboxGone("the sandbox has ended")
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_look)
            self._asked[call] = future
            self._forget()
            await self._send(pack_frame({"id": call, **message}, blob))
            if upload is not None:
                async for part in upload:
                    await self._send(pack_frame({"id": call, "op": "data"}, part))
                await self._send(pack_frame({"id": call, "op": "data"}))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError as error:
            self._break(f"the sandbox did not answer within {seconds:.0f} s")
            raise SandboxGone(f"the sandbox did not answer within {seconds:.0f} s") from error

    async def cancel(self, call: str) -> None:
        """Ask to end a running call; its ``ask`` returns as soon as it has."""
        with contextlib.suppress(SandboxGone):
            await self._send(pack_frame({"id": "", "op": "cancel", "target": call}))

    async def close(self) -> None:
        """Give up the connection; whoever still waits is told that the sandbox is gone."""
        self._break("the sandbox was released")
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening

    async def _send(self, frame: bytes) -> None:
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            self._break("the connection to the sandbox broke")
            raise SandboxGone("the connection to the sandbox broke") from error

    async def _listen(self) -> None:
        try:
            while True:
                text, blob = check_lengths(await self._reader.readexactly(HEADER.size))
                message = json.loads(await self._reader.readexactly(text))
                attachment = await self._reader.readexactly(blob)
                if not isinstance(message, dict):
                    raise ValueError("not an object")  # noqa: TRY004, TRY301
                if message.get("op") == "hello" and not self._hello.done():
                    self._hello.set_result(message)
                    continue
                future = self._asked.get(str(message.get("id")))
                if future is not None and not future.done():
                    future.set_result((message, attachment))
        except (asyncio.IncompleteReadError, OSError):
            self._break("the sandbox ended")
        except (ValueError, RecursionError):
            self._break("the sandbox broke the protocol of its tool channel")

    def _break(self, why: str) -> None:
        self.closed.set()
        waiting: list[asyncio.Future[Any]] = [self._hello, *self._asked.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(SandboxGone(why))
        self._writer.close()

    def _forget(self) -> None:
        for call, future in list(self._asked.items())[: max(0, len(self._asked) - _REMEMBERED)]:
            if future.done():
                del self._asked[call]


def _look(future: asyncio.Future[Any]) -> None:
    """Nobody may be waiting any more; that is not worth asyncio's warning."""
    if not future.cancelled():
        future.exception()
