"""Children of process 1: start them, reap them and every orphan, end a whole tree."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_undumpable() -> None:
    """Nobody of the same user can trace this process or read its memory, environment and descriptors."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _become_subreaper() -> None:
    # Whatever the command leaves behind stays below it, daemons too, until the command itself ends.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """A process that was started here. ``ended`` becomes readable when it is gone; close it after use."""

    def __init__(self, pid: int, ended: int, signal_end: int) -> None:
        self.pid = pid
        self.ended = ended
        self.status: int | None = None
        self._signal_end = signal_end
        self._gone = threading.Event()

    def finish(self, status: int) -> None:
        """Called by the reaper: ``status`` as from ``waitpid``."""
        self.status = os.waitstatus_to_exitcode(status)
        self._gone.set()
        os.close(self._signal_end)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code (128 + signal if it was killed), or None if it still runs after ``seconds``."""
        if not self._gone.wait(seconds) or self.status is None:
            return None
        return self.status if self.status >= 0 else 128 - self.status


class Processes:
    """All children. Only ``reap`` waits for processes, so that no exit is lost and no zombie stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._started = threading.Event()

    def reap(self) -> None:
        """Collect ended processes for ever; runs in a thread of its own."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:  # none is left, so no orphan can come either
                self._started.wait()
                self._started.clear()
                continue
            with self._lock:
                child = self._children.pop(pid, None)
            if child is not None:
                child.finish(status)

    def start(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.STDOUT,
        keep: Sequence[int] = (),
    ) -> Child:
        """Start a program in its own session, as the parent of everything it leaves behind.

        Args:
            keep: descriptors that it inherits under the same numbers.
        """
        ended, signal_end = os.pipe()
        try:
            with self._lock:
                process = subprocess.Popen(
                    argv,
                    env=dict(env),
                    cwd=cwd,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=tuple(keep),
                    start_new_session=True,
                    preexec_fn=_become_subreaper,  # noqa: PLW1509  it only makes one system call
                )
                process.returncode = 0  # the reaper waits for it, Popen must not
                child = Child(process.pid, ended, signal_end)
                self._children[child.pid] = child
        except BaseException:
            os.close(ended)
            os.close(signal_end)
            raise
        finally:
            self._started.set()
        return child


def kill_tree(root: int, seconds: float = 2.0) -> None:
    """End a child and all that descends from it; if they multiply faster, end every other process."""
    with suppress(ProcessLookupError):
        os.kill(root, signal.SIGSTOP)  # it stays the parent of orphans while they are found
        deadline = time.monotonic() + seconds
        while living := descendants(root):
            if time.monotonic() > deadline:
                kill_everything()
                return
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os.kill(root, signal.SIGKILL)


def kill_everything() -> None:
    """End every process but this one; nothing can fork its way out of it (kill(2), pid -1)."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def descendants(root: int) -> list[int]:
    """The living processes below ``root``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            # proc(5): the name is in parentheses and may hold anything; state and parent follow it
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                parents[int(entry.name)] = int(parent)
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found - {root})
