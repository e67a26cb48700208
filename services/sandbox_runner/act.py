"""The runner's plans carried out: clone, sandbox, verification. Each returns the facts that came of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

import msgspec
import structlog

from contracts import facts as f
from contracts.change import Change, decode_change
from contracts.envelope import Recorded
from contracts.subjects import sandbox_subject
from contracts.tools import Release
from contracts.vault import AskCloneToken, Token
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.errors import Later, Refused
from services.sandbox_runner.decide import Drop, Plan, Prepare, Verify, sandbox_id
from services.sandbox_runner.detect import READ, Project, detect
from services.sandbox_runner.held import Shelf
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.paths import protected
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.sandbox import Limits, SandboxSpec

INSTRUCTIONS = ("AGENTS.md", "CLAUDE.md")
INSTRUCTION_BYTES = 16_000
CHECK_SECONDS = 900.0

logger = structlog.get_logger(__name__)


class Workshop:
    """Carries plans out on the mirror, on Podman and on the sandboxes of other runners.

    Args:
        image: the name of the sandbox image, made on first need.
        runner: this runner's name.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        host: PodmanHost,
        mirror: Mirror,
        shelf: Shelf,
        image: Callable[[], Awaitable[str]],
        limits: Limits,
        runner: str,
        github_url: str,
    ) -> None:
        self._bus = bus
        self._host = host
        self._mirror = mirror
        self._shelf = shelf
        self._image = image
        self._limits = limits
        self._runner = runner
        self._github_url = github_url

    async def __call__(self, plan: Plan, heard: Recorded) -> Sequence[f.AnyFact]:
        """The facts that came of ``plan``; ``Later`` or ``Refused`` if it could not be carried out."""
        match plan:
            case Prepare():
                return [await self._prepare(plan, heard)]
            case Verify():
                return [await self._verify(plan, heard)]
            case Drop():
                for generation in plan.generations:
                    await self._drop(sandbox_id(heard.key.run, generation))
                return []
            case _:
                assert_never(plan)

    async def _prepare(self, plan: Prepare, heard: Recorded) -> f.SandboxReady:
        name = sandbox_id(heard.key.run, plan.generation)
        await self._shelf.drop(name)  # prepared before, but not recorded
        self._shelf.room.enter(name, plan.request.repository.id)
        box = PodmanSandbox(self._host, self._mirror.path(plan.request.repository.id))
        try:
            base, pack = await self._repository(plan.request, plan.base)
            image = await self._image()
            spec = SandboxSpec(sandbox_id=name, key=heard.key, image=image, limits=self._limits)
            ready = await box.prepare(spec, pack, base)
            tree = ready.tree
            if plan.checkpoint is not None:
                change = decode_change(await self._bus.objects.get(plan.checkpoint.digest))
                await box.restore(change)
                tree = change.tree
            project = await self._project(plan.request.repository.id, base)
            absent = await self._mirror.absent(plan.request.repository.id, base)
            instructions = await self._instructions(plan.request.repository.id, base)
            await self._shelf.put(name, box, base, heard.key)
        except BaseException:
            self._shelf.room.leave(name)
            await asyncio.shield(box.abandon())
            raise
        return f.SandboxReady(
            sandbox_id=name,
            runner=self._runner,
            generation=plan.generation,
            base=base,
            base_ref=plan.request.repository.default_branch,
            tree=tree,
            image=image,
            test_command=project.test_command,
            about=" ".join(part for part in (project.about, project.problem, absent) if part),
            instructions=instructions,
        )

    async def _repository(self, request: f.RunRequested, settled: f.SandboxReady | None) -> tuple[str, Path]:
        """The base commit and a pack that holds it; a rejected token is asked for once more."""
        repository = request.repository
        question = AskCloneToken(
            installation_id=request.installation_id, repository_id=repository.id, app_id=request.app_id
        )
        granted = await ask_vault(self._bus, "sandbox_runner", question, Token)
        url = f"{self._github_url}/{repository.full_name}.git"
        wanted = settled.base if settled else repository.default_branch
        try:
            base = await self._mirror.fetch(repository.id, url, granted.token.reveal(), wanted)
        except Refused as error:
            if error.kind != "clone_unauthorized":
                raise
            question = msgspec.structs.replace(question, rejected=granted.token.fingerprint())
            granted = await ask_vault(self._bus, "sandbox_runner", question, Token)
            base = await self._mirror.fetch(repository.id, url, granted.token.reveal(), wanted)
        return base, await self._mirror.shallow_pack(repository.id, base)

    async def _verify(self, plan: Verify, heard: Recorded) -> f.VerificationFinished:
        change = decode_change(await self._bus.objects.get(plan.change.digest))
        result = f.VerificationFinished(attempt=plan.attempt, verdict="untested", change=plan.change)
        replace = msgspec.structs.replace
        if change.empty:
            return replace(result, verdict="unchanged")
        forbidden = protected(entry.path for entry in change.written) + protected(change.deleted)
        if forbidden:
            reason = "it touches protected files: " + ", ".join(sorted(set(forbidden)))
            return replace(result, verdict="refused", reason=reason)
        base, pack = await self._repository(plan.request, plan.base)
        listing = await self._mirror.list_tree(plan.request.repository.id, base, recursive=True)
        result = replace(result, files=_files(change, {entry.path for entry in listing}))
        # What the base says counts: a change must not choose its own examination.
        command = plan.base.test_command
        if command is None:
            return result
        check = await self._check(plan, heard, pack, change, command, "v")
        if check.exit_code == 0:
            return replace(result, verdict="passed", checks=(check,))
        nothing = Change(base=base, tree=plan.base.tree)
        before = await self._check(plan, heard, pack, nothing, command, "b")
        return replace(result, verdict="failed", checks=(check,), base_checks=(before,))

    async def _check(
        self, plan: Verify, heard: Recorded, pack: Path, change: Change, command: str, mark: str
    ) -> f.Check:
        name = f"{sandbox_id(heard.key.run, plan.attempt)}-{mark}"
        image = await self._image()
        spec = SandboxSpec(sandbox_id=name, key=heard.key, image=image, limits=self._limits)
        box = PodmanSandbox(self._host, self._mirror.path(plan.request.repository.id))
        result = await box.verify(spec, pack, change.base, change, command, CHECK_SECONDS)
        return f.Check(
            command=result.command,
            tree=result.tree,
            exit_code=result.exit_code,
            seconds=round(result.seconds, 3),
            output=result.output[-20_000:],
            omitted=result.omitted,
        )

    async def _drop(self, name: str) -> None:
        if name in self._shelf.names:
            await self._shelf.drop(name)
            return
        try:
            await self._bus.ask(sandbox_subject(name), msgspec.json.encode(Release(id="release")), timeout=5)
        except Later as error:
            if error.kind != "no_responders":
                raise

    async def _project(self, repository_id: int, base: str) -> Project:
        listing = await self._mirror.list_tree(repository_id, base)
        names = [_readable(entry.path) + ("/" if entry.mode == "040000" else "") for entry in listing]
        contents = {
            name: await self._text(repository_id, base, name, 200_000) for name in READ if name in names
        }
        return detect(names, {name: text for name, text in contents.items() if text is not None})

    async def _instructions(self, repository_id: int, base: str) -> tuple[f.Document, ...]:
        documents = []
        for path in INSTRUCTIONS:
            text = await self._text(repository_id, base, path, 1_000_000)
            if text:
                cut = text[:INSTRUCTION_BYTES]
                documents.append(f.Document(path=path, text=cut, truncated=len(cut) < len(text)))
        return tuple(documents)

    async def _text(self, repository_id: int, base: str, path: str, limit: int) -> str | None:
        body = await self._mirror.read_file(repository_id, base, path, limit)
        return None if body is None else body.decode(errors="replace")


def _readable(path: Any) -> str:
    return path.decode(errors="backslashreplace") if isinstance(path, bytes) else str(path)


def _files(change: Change, before: set[Any]) -> tuple[f.ChangedFile, ...]:
    known = {_readable(path) for path in before}
    files = [
        f.ChangedFile(path=path, status="modified" if path in known else "added")
        for path in (_readable(entry.path) for entry in change.written)
    ]
    files += [f.ChangedFile(path=_readable(path), status="deleted") for path in change.deleted]
    return tuple(sorted(files, key=lambda file: file.path))
