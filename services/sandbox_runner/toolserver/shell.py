"""The tool ``bash``: each command in a bash of its own, which begins where the last one ended.

A shell that lives on would share its streams with hostile code; so the working directory, the variables
and the functions are written down at the end of each command and read at the beginning of the next.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .clip import Clip
from .processes import Child, Processes, kill_everything, kill_tree

_MAX_STATE = 1024 * 1024
_PIPE_READS = 32
"""More than a pipe holds; a background process that never stops writing must not hold up the answer."""

# One line, so that the lines of a command keep their numbers in error messages. The shell of a command is
# what the kernel ends first when memory runs out, not process 1.
_PRELUDE = (
    "unset BASH_EXECUTION_STRING;"
    " {{ echo 900 >/proc/self/oom_score_adj; source /dev/fd/{before}; }} 2>/dev/null; exec {before}<&-;"
    ' trap \'{{ printf "cd -- %q\\n" "$PWD"; declare -p; declare -f; }} >&{after} 2>/dev/null\' EXIT; '
)
_ARGUMENT = 100_000
"""A longer command is read from a descriptor: one argument holds at most 128 KiB (execve(2))."""


class Shell:
    """Runs commands; ``directory`` is where the first one begins, ``env`` what it finds set."""

    def __init__(self, processes: Processes, directory: str, env: Mapping[str, str]) -> None:
        self._processes = processes
        self._directory = directory
        self._env = env
        self._lock = threading.Lock()
        self._state = b""

    def extend(self, variables: Mapping[str, str], path: Sequence[str]) -> None:
        """Variables for every command from now on, after restarts too; ``path`` comes first in PATH."""
        merged = {**self._env, **variables}
        merged["PATH"] = ":".join([*path, merged.get("PATH", os.defpath)])
        self._env = merged

    def restart(self) -> dict[str, Any]:
        """End everything that was ever started and forget directory, variables and functions."""
        kill_everything()
        with self._lock:
            self._state = b""
        return {"content": "The shell has been restarted."}

    def run(
        self,
        command: str,
        *,
        seconds: float,
        head: int,
        tail: int,
        started: Callable[[Child], bool] = lambda _: True,
    ) -> tuple[dict[str, Any], int | None]:
        """Run one command to its end or to its deadline, whichever comes first.

        Args:
            seconds: after that the command and everything below it is killed.
            head: bytes of the output that are kept from its beginning.
            tail: bytes that are kept from its end.
            started: is told the process; if it answers False, the command is killed at once.

        Returns:
            The answer, and the output's descriptor if a background process still writes to it: drain it.
        """
        began = time.monotonic()
        clip = Clip(head, tail)
        read_end, write_end = os.pipe()
        before, after, text = (os.memfd_create(name) for name in ("before", "after", "command"))
        try:
            with self._lock:
                _fill(before, self._state)
            raw = command.encode("utf-8", "replace").replace(b"\0", b"")
            if len(raw) > _ARGUMENT:
                _fill(text, raw)
                raw = b"source /dev/fd/%d" % text
            script = _PRELUDE.format(before=before, after=after).encode() + raw
            child = self._processes.start(
                ["/bin/bash", "--noprofile", "--norc", "-c", script],
                env=self._env,
                cwd=self._directory,
                stdout=write_end,
                keep=(before, after, text),
            )
        except BaseException:
            os.close(read_end)
            os.close(after)
            raise
        finally:
            for descriptor in (write_end, before, text):
                os.close(descriptor)
        if not started(child):
            kill_tree(child.pid)
        timed_out = _read_until_end(child, read_end, clip, began + seconds)
        exit_code = None if timed_out else child.wait()
        self._keep(after)
        content, omitted = clip.result()
        answer = {
            "content": content,
            "omitted": omitted,
            "exit_code": exit_code,
            "timed_out": timed_out,
            "seconds": round(time.monotonic() - began, 3),
        }
        if _drain_now(read_end, None):
            os.close(read_end)
            return answer, None
        return answer, read_end

    def _keep(self, after: int) -> None:
        size = os.fstat(after).st_size
        if 0 < size <= _MAX_STATE:
            with self._lock:
                self._state = os.pread(after, size, 0)
        os.close(after)


def _fill(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_until_end(child: Child, output: int, clip: Clip, deadline: float) -> bool:
    """Collect output until the child ends; kill it at the deadline. Says whether that was necessary."""
    timed_out = False
    poller = select.poll()
    poller.register(output, select.POLLIN)
    poller.register(child.ended, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 and not timed_out:
            timed_out = True
            kill_tree(child.pid)
        ready = dict(poller.poll(1000 if timed_out else max(1.0, min(left, 3600) * 1000)))
        if output in ready:
            data = os.read(output, 65536)
            clip.add(data)
            if not data:
                poller.unregister(output)
        if child.ended in ready:
            os.close(child.ended)
            _drain_now(output, clip)
            return timed_out


def _drain_now(output: int, clip: Clip | None) -> bool:
    """Take what lies in the pipe. True when no process holds its other end any more."""
    os.set_blocking(output, False)
    with suppress(BlockingIOError):
        for _ in range(_PIPE_READS):
            data = os.read(output, 65536)
            if not data:
                return True
            if clip is not None:
                clip.add(data)
    return False
