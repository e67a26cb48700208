"""What the runner asks for, carried out.

Everything happens in one thread (``loop``) but git (``worker``), so that a sandbox which has no room for
another process or thread still answers.
"""

from __future__ import annotations

import errno
import os
import sys

from .calls import FORGOTTEN, Calls
from .connection import Connection
from .editor import EditError, Editor
from .look import look
from .loop import Loop
from .processes import Children
from .shell import Shell
from .snapshot import Repository, SnapshotError
from .wire import VERSION, pack_frame
from .worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .shell import Command

    Message = dict[str, Any]
    Answer = tuple[Message, bytes]

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/home/agent",
    "USER": "agent",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
_NO_ROOM = "the sandbox has no room for another process; restart the shell"
_DAY = 86400.0
_PROBLEMS = (SnapshotError, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


class Server:
    """One sandbox's tools.

    Args:
        address: the socket on which the runner listens.
        workspace: where the repository lies.
        private: where git's objects lie.
        patience: seconds to wait for a runner that went away, before ``gone`` is called.
    """

    def __init__(
        self, address: str, workspace: str, private: str, *, patience: float, gone: Callable[[], None]
    ) -> None:
        children = Children()
        self.loop = Loop(children.reap)
        self._connection = Connection(self.loop, address, self, patience=patience, gone=gone)
        self._shell = Shell(self.loop, children, workspace, _ENVIRONMENT)
        self._editor = Editor(workspace)
        self._repository = Repository(children, workspace, private)
        self._private = private
        self._worker = Worker()
        self._calls = Calls()
        self._commands: dict[str, Command] = {}
        self._streams: dict[str, tuple[str, int]] = {}

    def run(self) -> None:
        """Serve for ever."""
        self._worker.start()
        self._connection.connect()
        self.loop.run()

    def connected(self) -> bytes:
        """Greet a runner."""
        self._calls.connected()
        python = sys.version.split()[0]
        return pack_frame({"op": "hello", "version": VERSION, "python": python, "profile": look()})

    def disconnected(self) -> None:
        """What was still being sent will not come any more."""
        for call, (_, pack) in self._streams.items():
            os.close(pack)
            self._finish(call, {"ok": False, "why": "the runner went away"})
        self._streams.clear()

    def heard(self, message: Message, blob: bytes, descriptors: list[int]) -> None:
        """Carry out what the runner says; a call that was made before gets its first answer."""
        try:
            self._heard(message, blob, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _heard(self, message: Message, blob: bytes, descriptors: list[int]) -> None:
        call, op = str(message["id"]), message["op"]
        if op == "data":
            self._data(call, blob)
        elif op == "cancel":
            if (command := self._commands.get(str(message["target"]))) is not None:
                self._shell.cancel(command)
        elif (known := self._calls.answer(call)) is not None:
            self._connection.send(known or pack_frame({"id": call, "ok": False, "why": FORGOTTEN}))
        elif self._calls.begin(call):
            try:
                self._carry_out(call, op, message, blob, descriptors)
            except _PROBLEMS as error:
                self._finish(call, _problem(error))

    def _carry_out(self, call: str, op: Any, message: Message, blob: bytes, descriptors: list[int]) -> None:
        match op:
            case "ping":
                self._finish(call, {})
            case "bash":
                self._bash(call, message)
            case "edit":
                self._edit(call, message["input"])
            case "checkout":
                self._checkout(call, str(message["base"]), descriptors, stream=bool(message.get("stream")))
            case "manifest":
                base, files, size = str(message["base"]), int(message["files"]), int(message["size"])
                self._later(call, lambda: self._repository.manifest(base, files=files, size=size))
            case "apply":
                base, written, deleted = str(message["base"]), message["written"], message["deleted"]
                self._later(call, lambda: self._repository.apply(base, written, deleted, blob))
            case other:
                raise ValueError(f"there is no operation {other!r}")

    def _bash(self, call: str, message: Message) -> None:
        if message["input"].get("restart"):
            self._finish(call, self._shell.restart(), keep=True)
            return

        def done(answer: Message) -> None:
            del self._commands[call]
            self._finish(call, answer, keep=True)

        self._commands[call] = self._shell.run(
            str(message["input"]["command"]),
            seconds=min(max(0.0, float(message["seconds"])), _DAY),
            head=int(message["head"]),
            tail=int(message["tail"]),
            done=done,
        )

    def _edit(self, call: str, arguments: Message) -> None:
        try:
            answer: Message = {"content": _plain(self._editor.run(arguments))}
        except EditError as error:
            answer = {"content": _plain(str(error)), "is_error": True}
        self._finish(call, answer, keep=True)

    def _checkout(self, call: str, base: str, descriptors: list[int], *, stream: bool) -> None:
        if stream:
            path = f"{self._private}/pack"
            self._streams[call] = base, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(path)
            return
        if not descriptors:
            raise ValueError("no descriptor came with the call")
        self._lay_out(call, base, descriptors.pop())

    def _data(self, call: str, part: bytes) -> None:
        if call not in self._streams:
            return
        base, pack = self._streams[call]
        if not part:
            del self._streams[call]
            os.lseek(pack, 0, os.SEEK_SET)
            self._lay_out(call, base, pack)
            return
        try:
            while part:
                part = part[os.write(pack, part) :]
        except OSError as error:
            del self._streams[call]
            os.close(pack)
            self._finish(call, _problem(error))

    def _lay_out(self, call: str, base: str, pack: int) -> None:
        def work() -> Answer:
            try:
                return self._repository.checkout(base, pack)
            finally:
                os.close(pack)

        self._later(call, work)

    def _later(self, call: str, work: Callable[[], Answer]) -> None:
        """Do it in the other thread, one after the other."""

        def job() -> None:
            try:
                answer, blob = work()
            except _PROBLEMS as error:
                answer, blob = _problem(error), b""
            self.loop.post(lambda: self._worked(call, answer, blob))

        self._worker.add(job)

    def _worked(self, call: str, answer: Message, blob: bytes) -> None:
        self._finish(call, answer, blob)
        self._shell.stand_by()

    def _finish(self, call: str, answer: Message, blob: bytes = b"", *, keep: bool = False) -> None:
        try:
            frame = pack_frame({"id": call, "ok": True, **answer}, blob)
        except ValueError as error:
            frame = pack_frame({"id": call, **_problem(error)})
        if self._calls.end(call, frame, keep=keep):
            self._connection.send(frame)


def _problem(error: BaseException) -> Message:
    if isinstance(error, OSError) and error.errno == errno.EAGAIN:  # fork(2): the limit of processes
        return {"ok": False, "why": _NO_ROOM}
    return {"ok": False, "why": _plain(f"{type(error).__name__}: {error}")}


def _plain(text: str) -> str:
    """Names that are no text come from the file system with lone surrogates, which no decoder takes."""
    return text.encode("utf-8", "backslashreplace").decode()
