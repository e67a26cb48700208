"""The tool ``bash``: each command in a bash of its own, which begins where the last one ended.

A shell that lives on would share its streams with hostile code; so the working directory, the variables
and the functions are written down at the end of each command and read at the beginning of the next. The
next command's bash is started while nobody waits for it: a spare one stands ready, with all that read.
"""

from __future__ import annotations

import os
import time

from .clip import Clip
from .limits import Limits
from .processes import kill, kill_below, kill_everything

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .loop import Loop, Timer
    from .processes import Children

MAX_STATE = 1024 * 1024
MAX_AT_ONCE = 64
"""Commands that run side by side, and background processes whose output is still taken."""

_READ = 65536
_READS = 32
"""More than a pipe holds; a background process that never stops writing must not hold up an answer."""

_KILLING = 2.0
"""Seconds after which a tree that multiplies faster than it is ended takes everything else with it."""

_GO, _STATE, _COMMAND, _AFTER = 250, 251, 252, 253
"""A shell's descriptors while it waits. Only the last stays open in the command: numbers nobody uses."""

# ``builtin`` because a command may have left functions of those names behind. The command gets its lines'
# own numbers in messages, and sees BASH_EXECUTION_STRING as with ``bash -c``; its exit code lies there while
# the state is written. A command that sets a trap on EXIT itself replaces ours, so the state is also written
# before the end. The shell is what the kernel ends first when memory runs out, not process 1.
_NOTE = "{ BASH_EXECUTION_STRING=$?; builtin set +eux; } 2>/dev/null"
_WRITE = (
    '{ { builtin declare -p; builtin printf "\\0"; builtin declare -f;'
    ' builtin printf "builtin cd -- %q; OLDPWD=%q\\n" "$PWD" "${OLDPWD-}"; exec 253>&-; } >&253; }'
    " 2>/dev/null"
)
_SCRIPT = (
    "{ echo 900 >/proc/self/oom_score_adj; } 2>/dev/null;"
    " builtin read -ru 250 _ || builtin exit; builtin source /dev/fd/251 2>/dev/null;"
    " builtin read -ru 250 _ || builtin exit;"
    ' [[ $PWD -ef . ]] || { builtin echo "[$PWD is gone; the working directory is now /workspace]";'
    " builtin cd -- /workspace; };"
    " IFS= builtin read -rd '' -u 252 BASH_EXECUTION_STRING; exec 250<&- 251<&- 252<&-;"
    f" builtin trap '{_NOTE}; {_WRITE}' EXIT;"
    ' builtin eval "$BASH_EXECUTION_STRING";'
    f" {_NOTE}; {_WRITE}; builtin exit $BASH_EXECUTION_STRING"
)


_OWN = frozenset(
    b"BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND"
    b" BASH_EXECUTION_STRING BASH_LINENO BASH_LOADABLES_PATH BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO"
    b" BASH_VERSION COMP_WORDBREAKS DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD HOSTNAME"
    b" HOSTTYPE LINENO MACHTYPE OPTERR OPTIND OSTYPE PIPESTATUS PPID RANDOM SECONDS SHELLOPTS SHLVL SRANDOM"
    b" UID _".split()
)
"""What bash sets by itself (bash(1), Shell Variables)."""


class Bash:
    """A bash that waits for a state, then for a command, then runs it.

    ``fed`` tells which state it has, ``ended`` what is done with its exit code. ``output`` and ``after`` (the
    state it leaves) are to be closed by who takes them.
    """

    def __init__(self, children: Children, directory: str, env: Mapping[str, str]) -> None:
        self.fed: int | None = None
        self.ended: Callable[[int], None] = lambda _: None
        self._waiting = [os.memfd_create(name) for name in ("state", "command")]
        self.after = os.memfd_create("after")
        self.output, write = os.pipe()
        read, go = os.pipe()
        self._waiting.append(go)
        null = os.open(os.devnull, os.O_RDONLY)
        files = {0: null, 1: write, 2: write, _GO: read, _AFTER: self.after}
        files |= {_STATE: self._waiting[0], _COMMAND: self._waiting[1]}
        argv = ["/bin/bash", "--noprofile", "--norc", "-c", _SCRIPT, "bash"]
        try:
            self.pid = children.start_root(argv, env, directory, files, self._over)
        except BaseException:
            self.drop()
            raise
        finally:
            for descriptor in (null, write, read):
                os.close(descriptor)

    def _over(self, code: int) -> None:
        self.ended(code)  # whoever wants to know by then

    def feed(self, state: bytes, version: int) -> None:
        """Give it the directory, variables and functions that the last command left."""
        _fill(self._waiting[0], state)
        os.write(self._waiting[2], b"\n")
        self.fed = version

    def begin(self, command: bytes) -> None:
        """Let it run a command; ``BrokenPipeError`` if somebody ended it while it waited."""
        _fill(self._waiting[1], command)
        os.write(self._waiting[2], b"\n")
        self._stop_waiting()

    def drop(self) -> None:
        """It is not needed: by the closed pipe it ends."""
        self._stop_waiting()
        os.close(self.output)
        os.close(self.after)

    def _stop_waiting(self) -> None:
        while self._waiting:
            os.close(self._waiting.pop())


class Command:
    """One command that runs. ``done`` is called with its answer when the shell itself has ended."""

    def __init__(self, bash: Bash, clip: Clip, done: Callable[[dict[str, Any]], None]) -> None:
        self.bash = bash
        self.clip = clip
        self.done = done
        self.began = time.monotonic()
        self.cancelled = False
        self.timed_out = False
        self.killed = 0.0
        self.deadline: Timer | None = None


class Shell:
    """Runs commands; ``directory`` is where the first one begins, ``env`` what it finds set."""

    def __init__(self, loop: Loop, children: Children, directory: str, env: Mapping[str, str]) -> None:
        self._loop = loop
        self._children = children
        self._directory = directory
        self._env = env
        self._state, self._version = b"", 0
        self._spare: Bash | None = None
        self._running = 0
        self._left: list[int] = []
        self._limits = Limits()

    def restart(self) -> dict[str, Any]:
        """End everything that was ever started and forget directory, variables and functions."""
        kill_everything()
        self._retire()
        self._state, self._version = b"", self._version + 1
        return {"content": "The shell has been restarted."}

    def stand_by(self) -> None:
        """Have a spare shell ready, with the newest state if no command is about to change it."""
        if self._spare is not None and self._spare.fed not in (None, self._version):
            self._retire()
        try:
            if self._spare is None:
                self._spare = bash = Bash(self._children, self._directory, self._env)
                bash.ended = lambda _: self._lost(bash)
            if self._spare.fed is None and not self._running:
                self._spare.feed(self._state, self._version)
        except OSError:  # no room, or somebody ended it: the next command starts its own
            self._retire()

    def run(
        self, command: str, *, seconds: float, head: int, tail: int, done: Callable[[dict[str, Any]], None]
    ) -> Command:
        """Run a command to its end or to its deadline, whichever comes first.

        Args:
            seconds: after that the command and everything below it is killed.
            head: bytes of the output that are kept from its beginning.
            tail: bytes that are kept from its end.
            done: is called with the answer.

        Raises:
            OSError: there is no room for another process.
        """
        if self._running >= MAX_AT_ONCE:
            raise OSError(f"{MAX_AT_ONCE} commands are running already")
        bash = self._begin(command.encode("utf-8", "replace").replace(b"\0", b""))
        running = Command(bash, Clip(head, tail), done)
        bash.ended = lambda code: self._ended(running, code)
        os.set_blocking(bash.output, False)
        self._running += 1
        self._loop.watch(bash.output, lambda: self._heard(running))
        running.deadline = self._loop.later(seconds, lambda: self._late(running))
        self._loop.post(self.stand_by)
        return running

    def cancel(self, running: Command) -> None:
        """End a command and everything it started."""
        running.cancelled = True
        self._kill(running)

    def _begin(self, command: bytes) -> Bash:
        """A shell that runs the command: the spare one, if it has the state and is still there."""
        bash, self._spare = self._spare, None
        if bash is not None:
            try:
                if bash.fed is None:
                    bash.feed(self._state, self._version)
                if bash.fed == self._version:
                    bash.begin(command)
                    return bash
            except OSError:
                pass
            bash.drop()
        bash = Bash(self._children, self._directory, self._env)
        try:
            bash.feed(self._state, self._version)
            bash.begin(command)
        except OSError:
            bash.drop()
            raise
        return bash

    def _heard(self, running: Command) -> None:
        try:
            data = os.read(running.bash.output, _READ)
        except BlockingIOError:
            return
        running.clip.add(data)
        if not data:
            self._loop.forget(running.bash.output)

    def _late(self, running: Command) -> None:
        running.timed_out = True
        self._kill(running)

    def _kill(self, running: Command) -> None:
        """End the tree, as often as it takes; the answer comes when the shell is gone."""
        pid, now = running.bash.pid, time.monotonic()
        if not self._children.lives(pid):
            return
        running.killed = running.killed or now
        if not kill_below(pid):
            kill(pid)
        elif now - running.killed > _KILLING:
            kill_everything()
        else:
            self._loop.later(0.002, lambda: self._kill(running))

    def _ended(self, running: Command, code: int) -> None:
        self._running -= 1
        if running.deadline is not None:
            running.deadline.cancel()
        bash = running.bash
        self._loop.forget(bash.output)
        over = _drain(bash.output, running.clip)
        kept = self._keep(bash.after)
        content, omitted = running.clip.result()
        running.done(
            {
                "content": content,
                "omitted": omitted,
                "exit_code": None if running.timed_out else code,
                "timed_out": running.timed_out,
                "cancelled": running.cancelled,
                "state_kept": kept,
                "limits": self._limits.reached(),
                "seconds": round(time.monotonic() - running.began, 3),
            }
        )
        if over:
            os.close(bash.output)
        else:
            self._leave(bash.output)
        self.stand_by()

    def _keep(self, after: int) -> bool:
        """Remember the state that a command left; False if it is too large."""
        size = os.fstat(after).st_size
        if 0 < size <= MAX_STATE:
            state = essence(os.pread(after, size, 0), self._env)
            if state != self._state:
                self._state, self._version = state, self._version + 1
        os.close(after)
        return size <= MAX_STATE

    def _leave(self, output: int) -> None:
        """Take what background processes still write: with no reader they would be killed by SIGPIPE."""

        def drain() -> None:
            if _drain(output, None):
                self._loop.forget(output)
                self._left.remove(output)
                os.close(output)

        self._left.append(output)
        self._loop.watch(output, drain)
        if len(self._left) > MAX_AT_ONCE:
            oldest = self._left.pop(0)
            self._loop.forget(oldest)
            os.close(oldest)

    def _lost(self, bash: Bash) -> None:
        if self._spare is bash:
            self._retire()

    def _retire(self) -> None:
        bash, self._spare = self._spare, None
        if bash is not None:
            bash.drop()


def essence(state: bytes, env: Mapping[str, str]) -> bytes:
    """What the next shell must be told of a state: not what it finds in its environment, or makes itself.

    Args:
        state: the output of ``declare -p``, a NUL, functions and directory.
        env: what each shell finds set.
    """
    variables, _, rest = state.partition(b"\0")
    given = {f'declare -x {name}="{value}"\n'.encode() for name, value in env.items()}
    names, kept, keeps = set(), [], True
    for line in variables.splitlines(keepends=True):
        if line.startswith(b"declare -"):  # not the second line of a value
            name = line.split(b" ", 2)[2].partition(b"=")[0].rstrip()
            names.add(name)
            keeps = name not in _OWN and line not in given
        if keeps:
            kept.append(line)
    gone = [b"unset %b\n" % name.encode() for name in env if name.encode() not in names]
    return b"".join([*kept, *gone, rest])


def _fill(descriptor: int, data: bytes) -> None:
    at = 0  # not with write: the shell shares the file position
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], at)


def _drain(output: int, clip: Clip | None) -> bool:
    """Take what lies in the pipe. True when no process holds its other end any more."""
    for _ in range(_READS):
        try:
            data = os.read(output, _READ)
        except BlockingIOError:
            return False
        if not data:
            return True
        if clip is not None:
            clip.add(data)
    return False
