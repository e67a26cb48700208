"""The server: connects out to the runner, answers each call once, outlives a runner that died.

A call id that was seen before gets the first answer, also while the first one is still being worked on
and also on a new connection. Process 1 of a container is ended by nothing that the workload can send.
"""

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from .editor import EditError, Editor
from .look import look
from .processes import Child, Processes, become_undumpable, kill_tree
from .shell import Shell
from .snapshot import Repository, SnapshotError
from .wire import pack_frame, read_frame

WORKSPACE = Path("/workspace")
PRIVATE = Path("/run/millrace")
SOCKET = "/run/channel/s"
_REMEMBERED = 256
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
# The workspace is a mount that belongs to root, which git would not trust.
_GITCONFIG = (
    "[safe]\n\tdirectory = *\n[user]\n\tname = Millrace sandbox\n\temail = sandbox@millrace.invalid\n"
)
Answer = tuple[dict[str, Any], bytes]


class Server:
    """Calls by id: those that run, and the answers of the last ones."""

    def __init__(self) -> None:
        self._processes = Processes()
        self._shell = Shell(self._processes, str(WORKSPACE), _ENVIRONMENT)
        self._editor = Editor(WORKSPACE)
        self._repository = Repository(self._processes, WORKSPACE, PRIVATE)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._running: dict[str, Child | None] = {}
        self._cancelled: set[str] = set()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._uploads: dict[str, queue.Queue[bytes]] = {}

    def start_reaper(self) -> None:
        """From now on no zombie stays."""
        threading.Thread(target=self._processes.reap, daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Answer what comes on one connection until the runner is gone."""
        self._socket = connection
        self._send({"op": "hello", "version": 1, "python": sys.version.split()[0], "profile": look()})
        with suppress(EOFError, OSError):
            while True:
                self._hear(*read_frame(connection))

    def _hear(self, message: dict[str, Any], blob: bytes) -> None:
        call, op = str(message["id"]), message["op"]
        if op == "data":
            if (upload := self._uploads.get(call)) is not None:
                upload.put(blob)
            return
        if op == "cancel":
            self._cancel(str(message["target"]))
            return
        if op == "ping":
            self._send({"id": call, "ok": True})
            return
        with self._lock:
            known = self._answers.get(call)
            if known is None and call in self._running:
                return  # it is answered when it ends
            if known is None:
                self._running[call] = None
        if known is not None:
            self._send(*known)
            return
        if op == "checkout":
            self._uploads[call] = queue.Queue(maxsize=8)
        if op == "bash" and message["input"].get("restart"):
            self._finish(call, (self._shell.restart(), b""), keep=True)  # works when no thread can start
            return
        try:
            threading.Thread(target=self._work, args=(call, message, blob), daemon=True).start()
        except RuntimeError:
            why = "the sandbox has no room for another process; restart the shell"
            self._finish(call, ({"ok": False, "why": why}, b""), keep=False)

    def _work(self, call: str, message: dict[str, Any], blob: bytes) -> None:
        leftover: int | None = None
        keep = message["op"] in ("bash", "edit")
        try:
            if message["op"] == "bash":
                fields, leftover = self._bash(call, message)
                answer: Answer = (fields, b"")
            else:
                answer = self._do(call, message, blob)
        except (SnapshotError, OSError, RuntimeError, ValueError, KeyError) as error:
            answer, keep = ({"ok": False, "why": f"{type(error).__name__}: {error}"}, b""), False
        self._finish(call, answer, keep=keep)
        if leftover is not None:  # a background process that finds no reader would be killed by SIGPIPE
            with suppress(OSError):
                os.set_blocking(leftover, True)
                while os.read(leftover, 65536):
                    pass
            os.close(leftover)

    def _do(self, call: str, message: dict[str, Any], blob: bytes) -> Answer:
        match message["op"]:
            case "edit":
                try:
                    return {"content": self._editor.run(message["input"])}, b""
                except EditError as error:
                    return {"content": str(error), "is_error": True}, b""
            case "checkout":
                return self._checkout(call, message["base"]), b""
            case "environment":
                self._shell.extend(message["set"], message["path"])
                return {}, b""
            case "manifest":
                return self._repository.manifest(
                    message["base"], files=message["files"], size=message["size"]
                )
            case "apply":
                return self._repository.apply(
                    message["base"], message["written"], message["deleted"], blob
                ), b""
            case other:
                raise ValueError(f"there is no operation {other}")

    def _checkout(self, call: str, base: str) -> dict[str, Any]:
        chunks = iter(self._uploads[call].get, b"")
        try:
            return self._repository.checkout(base, lambda: next(chunks, b""))
        finally:
            for _ in chunks:  # what git did not want must still make room for the frames behind it
                pass
            del self._uploads[call]

    def _bash(self, call: str, message: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
        def started(child: Child) -> bool:
            with self._lock:
                self._running[call] = child
                return call not in self._cancelled

        fields, leftover = self._shell.run(
            str(message["input"]["command"]),
            seconds=float(message["seconds"]),
            head=int(message["head"]),
            tail=int(message["tail"]),
            started=started,
        )
        return fields | {"cancelled": call in self._cancelled}, leftover

    def _cancel(self, call: str) -> None:
        with self._lock:
            if call not in self._running:
                return
            self._cancelled.add(call)
            child = self._running[call]
        if child is not None and child.status is None:
            kill_tree(child.pid)

    def _finish(self, call: str, answer: Answer, *, keep: bool) -> None:
        fields = {"id": call, "ok": True, **answer[0]}
        with self._lock:
            self._running.pop(call, None)
            self._cancelled.discard(call)
            if keep:
                self._answers[call] = (fields, answer[1])
                if len(self._answers) > _REMEMBERED:
                    self._answers.popitem(last=False)
        self._send(fields, answer[1])

    def _send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        frame = pack_frame(message, blob)
        with self._sending, suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(frame)


def main(lifetime: float, patience: float) -> None:
    """Serve until the end.

    Args:
        lifetime: seconds after which the sandbox ends whatever it does.
        patience: seconds to wait for a runner that went away.
    """
    become_undumpable()
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler, process 1 ignores a signal
    threading.Timer(lifetime, os._exit, (3,)).start()
    (Path(_ENVIRONMENT["HOME"]) / ".gitconfig").write_text(_GITCONFIG)
    server = Server()
    server.start_reaper()
    waiting_since = time.monotonic()
    while time.monotonic() - waiting_since < patience:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(SOCKET)
        except OSError:
            time.sleep(0.02 if time.monotonic() - waiting_since < 5 else 0.5)
        else:
            server.serve(connection)
            waiting_since = time.monotonic()
        finally:
            connection.close()
    os._exit(4)
