"""What a sandbox is to the runner, whatever it is made of."""

from pathlib import Path
from typing import Protocol

import msgspec

from contracts.change import Change
from contracts.envelope import RunKey
from contracts.tools import ToolCall, ToolResult
from services.kit.errors import Later
from services.sandbox_runner.change import DEFAULT_LIMITS, ChangeLimits

MIB = 1024 * 1024


class SandboxGone(Later):
    """The sandbox ended or does not answer any more: start another from the last checkpoint."""

    def __init__(self, why: str) -> None:
        super().__init__(why, kind="sandbox_lost")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one sandbox may use. Sizes in bytes, ``seconds`` is its whole life.

    ``disk`` is memory too (tmpfs): it must leave room below ``memory``, or full disks would end the sandbox.
    """

    memory: int = 4096 * MIB
    cpus: float = 2.0
    pids: int = 512
    disk: int = 3072 * MIB
    files: int = 4096
    seconds: float = 4 * 3600.0

    def __post_init__(self) -> None:
        if self.disk > self.memory - 256 * MIB:
            raise ValueError("disk must be at least 256 MiB below memory: a sandbox's disk is memory")


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox to be. ``sandbox_id`` names it everywhere; preparing it again replaces what has its name.

    ``key`` is the run that it is for, None if it is for none. ``deps`` is a host directory that it sees
    read-only as ``/deps``: what the repository's setup left.
    ``environment`` is added to the variables of every command, ``path`` before the directories of PATH.
    For a setup alone: ``scratch`` is the size of a writable ``/deps`` in bytes, and ``outside`` a host
    directory with sockets that it sees as ``/run/setup``. ``change`` is the largest change that is taken.
    """

    sandbox_id: str
    key: RunKey | None = None
    image: str
    limits: Limits = Limits()
    deps: Path | None = None
    environment: dict[str, str] = {}
    path: tuple[str, ...] = ()
    scratch: int = 0
    outside: Path | None = None
    change: ChangeLimits = DEFAULT_LIMITS


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that holds the repository.

    ``tree`` is the base's tree id. ``image`` is the image's id, ``uid_map`` the host's first uid of the
    sandbox's user namespace. ``seconds`` is how long it took.
    """

    container: str
    tree: str
    image: str
    uid_map: int
    python: str
    seconds: float


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One command on exactly ``tree``, in a sandbox that ran nothing else.

    ``exit_code`` is None if it did not end within its time. ``output`` is head and tail, ``omitted`` the
    number of bytes cut between them. ``reports`` are names and texts of the files in which test runners say
    what became of each test; the tested code wrote them.
    """

    command: str
    tree: str
    exit_code: int | None
    seconds: float
    output: str
    omitted: int = 0
    reports: tuple[tuple[str, str], ...] = ()


class Sandbox(Protocol):
    """One isolated copy of a repository in which hostile code may run.

    Every method raises ``SandboxGone`` when the sandbox ended, ``Later`` when the machinery did not
    answer, and ``Refused`` when trying again cannot help.
    """

    async def prepare(self, spec: SandboxSpec, pack: Path, base: str) -> Ready:
        """Start it and lay out commit ``base`` from ``pack``, which holds that commit and all it names."""

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. The same id gives the first answer, also while the first call is still running."""

    async def cancel(self, call_id: str) -> None:
        """End a running call and everything it started; it is answered as cancelled."""

    async def checkpoint(self, base: str) -> Change:
        """What differs from ``base`` now, recomputed outside from its bytes.

        Raises:
            Refused: the workspace holds what cannot be published; the text says which path and why.
        """

    async def restore(self, change: Change) -> None:
        """Bring a freshly prepared sandbox to a checkpoint; ``Refused`` if it does not yield its tree."""

    async def verify(
        self,
        spec: SandboxSpec,
        pack: Path,
        base: str,
        change: Change,
        command: str,
        seconds: float,
        *,
        report: bool = False,
    ) -> CheckResult:
        """Run a command on base and change in a fresh sandbox of its own, which is gone afterwards.

        Args:
            report: make test runners say what became of each test.
        """

    async def release(self) -> None:
        """End it and leave nothing behind; a sandbox that is gone already is fine."""
