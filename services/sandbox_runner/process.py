"""Programs on the host, run to their end, their deadline or a cancellation; nothing of them stays.

Threads do the waiting: a task that is cancelled while asyncio starts a subprocess hangs for ever
(CPython issue 119710), and a runner is cancelled at every moment there is.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

MARK = "MILLRACE_RUNNER"
"""The variable by which a runner's programs are known, and found by its successor if they outlive it."""

_owner = ""
_waiting = ThreadPoolExecutor(32, thread_name_prefix="process")  # starts no thread before it is used


def own(name: str) -> None:
    """From now on this process is the runner ``name``."""
    global _owner  # noqa: PLW0603  one process is one runner
    _owner = name


def marked() -> dict[str, str]:
    """The mark of this runner's programs, for their environment."""
    return {MARK: _owner} if _owner else {}


def kill_left_behind(name: str) -> int:
    """End what a runner of this name started and did not live to end; says how many programs that were.

    Only for a runner that is dead: its slot must be held by whoever calls.
    """
    mark, ended = f"{MARK}={name}".encode(), 0
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
                ended += 1
    return ended


class Finished(msgspec.Struct, frozen=True):
    """How a program ended: exit code (negative: a signal), standard output, standard error."""

    code: int
    output: bytes
    errors: bytes


async def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    seconds: float,
    feed: bytes | None = None,
    output: int | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program in a session of its own; whatever ends this call ends that session.

    Args:
        env: its whole environment.
        feed: its standard input.
        output: a descriptor that takes its standard output.
        on_line: is told each line of output and error as it comes; then ``errors`` is empty.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: it did not end within ``seconds``.
    """
    process = subprocess.Popen(  # noqa: ASYNC220  a vfork: about a millisecond
        argv,
        stdin=subprocess.PIPE if feed is not None else subprocess.DEVNULL,
        stdout=output if output is not None else subprocess.PIPE,
        stderr=subprocess.STDOUT if on_line is not None else subprocess.PIPE,
        cwd="/",
        env=dict(env),
        start_new_session=True,
    )
    loop = asyncio.get_running_loop()

    def wait() -> Finished:
        with process:
            if on_line is None:
                out, errors = process.communicate(feed)
                return Finished(process.returncode, out or b"", errors or b"")
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                text = line.decode("utf-8", "replace").rstrip()
                with suppress(RuntimeError):  # nobody listens any more
                    loop.call_soon_threadsafe(on_line, text)
            return Finished(process.wait(), b"".join(lines), b"")

    ending = loop.run_in_executor(_waiting, wait)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(ending)
    finally:
        if not ending.done():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait([ending])
