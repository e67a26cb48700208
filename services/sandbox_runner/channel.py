"""The runner's end of the tool channel: one connection, many calls, each answered once.

What arrives was written inside a sandbox. Only what was asked for may come, and only as much as was said
beforehand; a peer that sends anything else is treated as gone. ``docs/tool-protocol.md`` has the rules.
"""

import asyncio
import os
import socket
import struct
import uuid
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from services.kit.errors import Later
from services.sandbox_runner.sandbox import SandboxGone
from services.sandbox_runner.toolserver.wire import CHUNK, VERSION, Frames, pack_frame

ANSWER_TEXT = 1024 * 1024
"""Bytes of JSON that an ordinary answer may have: 60,000 characters of a file, each as an escape."""

_HELLO_TEXT = 256 * 1024
_RECEIVED = 256 * 1024
_BROKE = "the sandbox broke the protocol of its tool channel"
T = TypeVar("T")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool server says about itself first; ``profile`` is what it sees of its confinement."""

    op: str
    version: int
    python: str = ""
    profile: dict[str, Any] = {}


class _Envelope(msgspec.Struct, frozen=True):
    id: str


class Room(msgspec.Struct, frozen=True):
    """The largest answer to a call: bytes of its JSON and of its attachment."""

    text: int = ANSWER_TEXT
    blob: int = 0


ORDINARY = Room()


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
            pid: the only process that may have it, if it is known already: in a sandbox that was used,
                others may try. One that cannot be seen from here (0) is taken.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                    # SO_PEERCRED (unix(7)): who called connect, as seen from here
                    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    peer_pid = int(struct.unpack("3i", peer)[0])
                    if not pid or peer_pid in (0, pid):
                        return Channel(connection, peer_pid)
                    connection.close()
        except TimeoutError as error:
            raise Later(f"the sandbox did not report within {seconds:.0f} s", kind="sandbox_start") from error
        finally:
            self.close()

    def close(self) -> None:
        """Nobody can connect any more."""
        self._path.unlink(missing_ok=True)
        self._socket.close()


class _Asked:
    """A call without an answer: who waits for it."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.waiting: list[asyncio.Future[tuple[bytes, bytes]]] = []


class Channel:
    """Calls to one tool server, over a connection that this object owns from now on.

    ``peer_pid`` is 0 if its process cannot be seen from here. ``closed`` is set when the sandbox is gone.
    """

    def __init__(self, connection: socket.socket, peer_pid: int = 0) -> None:
        self.peer_pid = peer_pid
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._socket.setblocking(False)
        self._frames = Frames(self._room)
        self._asked: dict[str, _Asked] = {}
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._drained = asyncio.Event()
        self._why = ""
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._hello.add_done_callback(_look)
        self._loop.add_reader(connection, self._read)

    async def hello(self, seconds: float) -> Hello:
        """What the tool server says first.

        Raises:
            SandboxGone: it said nothing, or speaks another version of the protocol than this runner.
        """
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._hello)
        except TimeoutError as error:
            self._break(f"the sandbox said nothing within {seconds:.0f} s")
            raise SandboxGone(self._why) from error

    async def ping(self, seconds: float) -> None:
        """Whether the tool server answers; ``SandboxGone`` if not."""
        answer, _ = await self.ask("", {"op": "ping"}, dict[str, Any], seconds=seconds)
        if answer.get("ok") is not True:
            raise SandboxGone(_BROKE)

    async def ask(
        self,
        call: str,
        message: dict[str, Any],
        kind: type[T],
        *,
        seconds: float,
        blob: bytes = b"",
        descriptors: Sequence[int] = (),
        upload: AsyncIterator[bytes] | None = None,
        room: Room = ORDINARY,
    ) -> tuple[T, bytes]:
        """Send a call and wait for its answer; one that is still being worked on is not sent again.

        Args:
            call: its id, under which the tool server knows it again; empty for one that nobody repeats.
            kind: what the answer is decoded as.
            seconds: after that the sandbox counts as gone: its own deadlines are shorter.
            descriptors: of regular files, sent along; they stay open here.
            upload: parts that follow the call, none of them empty.
            room: how large the answer may be.

        Raises:
            SandboxGone: it ended, broke the protocol or did not answer in time.
        """
        if self.closed.is_set():
            raise SandboxGone(self._why)
        call = call or f"{message['op']}/{uuid.uuid4().hex}"
        waiter: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()
        late = self._loop.call_later(
            seconds, self._break, f"the sandbox did not answer within {seconds:.0f} s"
        )
        asked = self._asked.get(call)
        begun = asked is None
        if asked is None:
            asked = self._asked[call] = _Asked(room)
        asked.waiting.append(waiter)
        try:
            if begun:
                more = {"descriptors": len(descriptors)} if descriptors else {}
                self._send(pack_frame({"id": call, **message, **more}, blob), descriptors)
                if upload is not None:
                    await self._upload(call, upload, waiter)
            text, attachment = await waiter
        finally:
            late.cancel()
            if not waiter.done():
                waiter.cancel()
            _look(waiter)
        try:
            return msgspec.json.decode(text, type=kind), attachment
        except (ValueError, RecursionError) as error:
            self._break(_BROKE)
            raise SandboxGone(_BROKE) from error

    async def cancel(self, call: str) -> None:
        """Ask to end a running command; its ``ask`` returns as soon as it has."""
        self._send(pack_frame({"id": "", "op": "cancel", "target": call}))

    async def close(self) -> None:
        """Give up the connection; whoever still waits is told that the sandbox is gone."""
        self._break("the sandbox was released")

    async def _upload(self, call: str, parts: AsyncIterator[bytes], answered: asyncio.Future[Any]) -> None:
        async for part in parts:
            self._send(pack_frame({"id": call, "op": "data"}, part))
            while self._unsent and not answered.done():
                self._drained.clear()
                await self._drained.wait()
            if answered.done():
                break
        self._send(pack_frame({"id": call, "op": "data"}))

    def _send(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send what there is room for now; the rest follows by itself, in order.

        Descriptors are duplicated by the kernel when they are sent; until then a copy is kept open.
        """
        if self.closed.is_set():
            return
        self._unsent.append((memoryview(frame), [os.dup(one) for one in descriptors]))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                view, descriptors = self._unsent[0]
                if descriptors:
                    sent = socket.send_fds(self._socket, [view[:CHUNK]], list(descriptors))
                    _close_all(descriptors)
                else:
                    sent = self._socket.send(view)
                if sent < len(view):
                    self._unsent[0] = view[sent:], ()
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._break("the connection to the sandbox broke")
            return
        self._loop.remove_writer(self._socket)
        self._drained.set()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._break("the sandbox ended")
            return
        try:
            for text, blob in self._frames.feed(data):
                self._hear(text, blob)
        except (ValueError, RecursionError):
            self._break(_BROKE)

    def _hear(self, text: bytes, blob: bytes) -> None:
        if not self._hello.done():
            self._greet(msgspec.json.decode(text, type=Hello))
            return
        call = msgspec.json.decode(text, type=_Envelope).id
        asked = self._asked.pop(call, None)
        if asked is None or len(text) > asked.room.text or len(blob) > asked.room.blob:
            raise ValueError("an answer that nobody asked for")
        for waiter in asked.waiting:
            if not waiter.done():
                waiter.set_result((text, blob))
        self._drained.set()

    def _greet(self, hello: Hello) -> None:
        if hello.op != "hello":
            raise ValueError("no greeting")
        if hello.version != VERSION:
            self._break(
                f"the sandbox speaks version {hello.version} of the tool protocol, this runner {VERSION}"
            )
            raise ValueError("another version")
        self._hello.set_result(hello)

    def _room(self) -> tuple[int, int]:
        """The largest frame that may come now."""
        if not self._hello.done():
            return _HELLO_TEXT, 0
        rooms = [asked.room for asked in self._asked.values()]
        return max((room.text for room in rooms), default=0), max((room.blob for room in rooms), default=0)

    def _break(self, why: str) -> None:
        """The sandbox is gone; only the first reason counts."""
        if self.closed.is_set():
            return
        self._why = why
        self.closed.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._frames = Frames(self._room)
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        self._drained.set()
        waiting: list[asyncio.Future[Any]] = [self._hello]
        for asked in self._asked.values():
            waiting += asked.waiting
        self._asked.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(SandboxGone(why))


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _look(future: asyncio.Future[Any]) -> None:
    """Nobody may be waiting any more; that is not worth asyncio's warning."""
    if future.done() and not future.cancelled():
        future.exception()
