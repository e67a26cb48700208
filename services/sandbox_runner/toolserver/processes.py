"""Children of process 1: start them, hear of their end, reap every orphan, end a whole tree."""

from __future__ import annotations

import _thread
import ctypes
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None).prctl
_IGNORED_HERE = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them, and a program that is started would inherit that."""


def become_undumpable() -> None:
    """Nobody of the same user can trace this process or read its memory, environment and descriptors."""
    _prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class Children:
    """All children of this process. Only ``reap`` waits for them, so no exit is lost and no zombie stays."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._ended: dict[int, Callable[[int], None]] = {}

    def reap(self) -> None:
        """Collect what has ended: children, whose ``ended`` is called here, and orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            with self._lock:
                ended = self._ended.pop(pid, None)
            if ended is not None:
                code = os.waitstatus_to_exitcode(status)
                ended(code if code >= 0 else 128 - code)

    def lives(self, pid: int) -> bool:
        """Whether this child has not been collected, so that its number means nobody else."""
        return pid in self._ended

    def start_root(
        self,
        argv: list[str],
        env: Mapping[str, str],
        directory: str,
        files: Mapping[int, int],
        ended: Callable[[int], None],
    ) -> int:
        """Start a program as the root of a tree that none of its descendants can leave.

        It has a session of its own and adopts orphans (prctl(2), PR_SET_CHILD_SUBREAPER): daemons stay below
        it until it ends itself. That needs a fork, which costs more than ``start``.

        Args:
            files: its descriptors and what they are here; targets above 2 must not be in use here.
            ended: is called with the exit code, 128 + signal if it was killed.

        Raises:
            OSError: there is no room for another process.
        """
        with self._lock:
            pid = os.fork()
            if pid == 0:
                try:
                    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
                    os.setsid()
                    os.chdir(directory)
                    for number in _IGNORED_HERE:
                        signal.signal(number, signal.SIG_DFL)
                    for target, source in files.items():
                        os.dup2(source, target)
                    os.execve(argv[0], argv, env)  # noqa: S606  no shell is wanted
                finally:
                    os._exit(127)
            self._ended[pid] = ended
        return pid

    def run(
        self,
        argv: list[str],
        env: Mapping[str, str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> int:
        """Run a program to its end and return its exit code; not from the thread that reaps.

        Raises:
            OSError: there is no room for another process.
        """
        over = _thread.allocate_lock()
        over.acquire()
        codes: list[int] = []

        def ended(code: int) -> None:
            codes.append(code)
            over.release()

        files = enumerate((stdin, stdout, stderr))
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in files]
        with self._lock:
            pid = os.posix_spawnp(
                argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=_IGNORED_HERE
            )
            self._ended[pid] = ended
        over.acquire()
        return codes[0]


def kill_below(root: int) -> bool:
    """End what descends from a child and leave the child itself stopped; False if nothing was left.

    A stopped root stays the parent of orphans while they are found. New ones may have been born meanwhile:
    repeat until it says False.
    """
    _signal(root, signal.SIGSTOP)
    living = descendants(root)
    for pid in living:
        _signal(pid, signal.SIGKILL)
    return bool(living)


def kill(pid: int) -> None:
    """End one process."""
    _signal(pid, signal.SIGKILL)


def kill_everything() -> None:
    """End every process but this one; nothing can fork its way out of it (kill(2), pid -1)."""
    if os.getpid() != 1:
        raise RuntimeError("only the first process of a sandbox may end all others")
    _signal(-1, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def descendants(root: int) -> list[int]:
    """The living processes below ``root``."""
    children: dict[int, list[int]] = {}
    dead = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            handle = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # proc(5): the name is in parentheses and may hold anything; state and parent follow it
            state, parent = os.read(handle, 512).rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        finally:
            os.close(handle)
        children.setdefault(int(parent), []).append(int(name))
        if state in (b"Z", b"X"):
            dead.add(int(name))
    found, look = [], [root]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return [pid for pid in found if pid not in dead]
