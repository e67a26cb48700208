"""The test command on exactly one tree, in a sandbox of its own; and what the unchanged base says to it."""

import asyncio
import hashlib
import uuid
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from contracts import facts as f
from contracts.change import Change
from contracts.envelope import RunKey
from services.kit.errors import MillraceError
from services.sandbox_runner.grounds import Ground
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.reports import Tests, count, read_reports
from services.sandbox_runner.sandbox import CheckResult, Limits, SandboxGone
from services.sandbox_runner.wrapping import objected

_OUTPUT = 20_000
_KEPT = 20

logger = structlog.get_logger(__name__)


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A check and every test that its reports list."""

    check: f.Check
    tests: Tests = {}


class Verifier:
    """Runs checks.

    Args:
        limits: of the sandboxes.
        seconds: the longest that a repository may let its tests take.
    """

    def __init__(self, host: PodmanHost, mirror: Mirror, limits: Limits, seconds: float) -> None:
        self._host = host
        self._mirror = mirror
        self._limits = limits
        self._seconds = seconds

    async def check(self, ground: Ground, sandbox_id: str, run: RunKey, change: Change) -> Checked:
        """The test command on base and change; a sandbox that did not survive the tests is a failed check."""
        command = ground.project.test_command
        assert command is not None  # noqa: S101  the caller looked
        try:
            result = await self._run(ground, sandbox_id, run, change, command, report=True)
            if objected(result.exit_code, result.output):
                result = await self._run(ground, sandbox_id, run, change, command, report=False)
        except SandboxGone:
            try:  # it may have been the machine's fault; tests that end their sandbox do so twice
                result = await self._run(ground, sandbox_id, run, change, command, report=False)
            except SandboxGone as error:
                why = f"The sandbox ended twice while this ran, perhaps for want of memory ({error})."
                return Checked(
                    check=f.Check(command=command, tree=change.tree, exit_code=None, seconds=0.0, output=why)
                )
        tests = await asyncio.to_thread(read_reports, result.reports, result.output)
        return Checked(
            check=f.Check(
                command=command,
                tree=result.tree,
                exit_code=result.exit_code,
                seconds=round(result.seconds, 3),
                output=result.output[-_OUTPUT:],
                omitted=result.omitted + max(0, len(result.output) - _OUTPUT),
                tests=count(tests),
            ),
            tests=tests,
        )

    async def _run(
        self, ground: Ground, sandbox_id: str, run: RunKey, change: Change, command: str, *, report: bool
    ) -> CheckResult:
        minutes = ground.project.settings.test_minutes
        seconds = min(self._seconds, minutes * 60 if minutes else self._seconds)
        box = PodmanSandbox(self._host, self._mirror.path(ground.repository_id))
        spec = ground.spec(sandbox_id, run, self._limits)
        return await box.verify(spec, ground.pack, ground.base, change, command, seconds, report=report)


class Baselines:
    """The test command on unchanged bases: begun while the agent works, run once, remembered.

    Args:
        directory: where results are kept, per repository.
        at_once: how many may run at the same time in this process.
    """

    def __init__(self, verifier: Verifier, directory: Path, at_once: int = 1) -> None:
        self.verifier = verifier
        self._directory = directory
        self._permits = asyncio.Semaphore(at_once)
        self._running: dict[str, asyncio.Task[Checked | None]] = {}

    def begin(self, ground: Ground, run: RunKey, tree: str) -> None:
        """Start finding out, unless it is known or under way."""
        if ground.project.test_command is None:
            return
        key = _key(ground)
        if key not in self._running and self._recall(ground, key) is None:
            task = asyncio.create_task(self._run(ground, key, run, tree))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))

    async def get(self, ground: Ground, run: RunKey, tree: str) -> Checked | None:
        """What the base says to its tests; None if that cannot be found out now."""
        found = self._recall(ground, _key(ground))
        if found is None:
            self.begin(ground, run, tree)
            found = await asyncio.shield(self._running[_key(ground)])
        return found

    async def close(self) -> None:
        """Give up what is under way; nothing of it stays."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, ground: Ground, key: str, run: RunKey, tree: str) -> Checked | None:
        async with self._permits:
            try:
                name = f"base-{uuid.uuid4().hex[:12]}"
                seen = await self.verifier.check(ground, name, run, Change(base=ground.base, tree=tree))
            except MillraceError as error:
                logger.warning("the base could not be tested", base=ground.base, why=str(error))
                return None
            self._remember(ground, key, seen)
            return seen

    def _recall(self, ground: Ground, key: str) -> Checked | None:
        try:
            return msgspec.json.decode(self._file(ground, key).read_bytes(), type=Checked)
        except (OSError, msgspec.DecodeError):
            return None

    def _remember(self, ground: Ground, key: str, seen: Checked) -> None:
        file = self._file(ground, key)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_suffix(f".{uuid.uuid4().hex}")
        part.write_bytes(msgspec.json.encode(seen))
        part.rename(file)
        found = sorted(file.parent.glob("*.json"), key=lambda each: each.stat().st_mtime, reverse=True)
        for old in found[_KEPT:]:
            with suppress(OSError):
                old.unlink()

    def _file(self, ground: Ground, key: str) -> Path:
        return self._directory / f"{ground.repository_id:d}" / f"{key}.json"


def _key(ground: Ground) -> str:
    """Equal where the same command would run on the same files with the same tools."""
    settings = ground.project.settings
    setup = ground.stored.tree.parent.name if ground.stored is not None and ground.stored.tree else ""
    told = msgspec.json.encode(
        [
            ground.repository_id,
            ground.base,
            ground.image.id,
            ground.project.test_command,
            settings.test_minutes,
            sorted(settings.environment.items()),
            setup,
        ]
    )
    return hashlib.sha256(told).hexdigest()[:40]
