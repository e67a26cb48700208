"""The runner's plans carried out: clone, sandbox, verification. Each returns the facts that came of it."""

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import assert_never

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
from services.sandbox_runner.detect import inputs
from services.sandbox_runner.grounds import Ground, Grounds, readable
from services.sandbox_runner.held import Shelf
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.paths import protected, sensitive
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.reports import compare
from services.sandbox_runner.sandbox import Limits
from services.sandbox_runner.substance import same_substance
from services.sandbox_runner.verification import Baselines

INSTRUCTIONS = ("AGENTS.md", "CLAUDE.md")
INSTRUCTION_BYTES = 16_000
MOST_READ = 10_000_000

logger = structlog.get_logger(__name__)


class Workshop:
    """Carries plans out on the mirror, on Podman and on the sandboxes of other runners.

    Args:
        grounds: what base commits stand on: their project, image and setup.
        baselines: what unchanged bases say to their tests.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        host: PodmanHost,
        mirror: Mirror,
        shelf: Shelf,
        grounds: Grounds,
        baselines: Baselines,
        limits: Limits,
        github_url: str,
    ) -> None:
        self._bus = bus
        self._host = host
        self._mirror = mirror
        self._shelf = shelf
        self._grounds = grounds
        self._baselines = baselines
        self._limits = limits
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
            ground = await self._grounds.find(heard.key, base, pack)
            spec = ground.spec(name, heard.key, self._limits, self._grounds.change)
            ready = await box.prepare(spec, pack, base)
            tree = ready.tree
            if plan.checkpoint is not None:
                change = decode_change(await self._bus.objects.get(plan.checkpoint.digest))
                await box.restore(change)
                tree = change.tree
            instructions = await self._instructions(plan.request.repository.id, base)
            await self._shelf.put(name, box, base, heard.key)
        except BaseException:
            self._shelf.room.leave(name)
            await asyncio.shield(box.abandon())
            raise
        self._baselines.begin(ground, heard.key, ready.tree)
        return f.SandboxReady(
            sandbox_id=name,
            runner=self._host.runner,
            generation=plan.generation,
            base=base,
            base_ref=plan.request.repository.default_branch,
            tree=tree,
            image=ground.image.name,
            test_command=ground.project.test_command,
            about=ground.about,
            instructions=instructions,
            setup=ground.setup,
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
        base, pack = await self._repository(plan.request, plan.base)
        # What the base says counts: a change must not choose its own examination.
        ground = await self._grounds.find(heard.key, base, pack)
        touched = [*(entry.path for entry in change.written), *change.deleted]
        if forbidden := protected(touched, ground.project.settings.protected):
            reason = "it touches protected files: " + ", ".join(sorted(set(forbidden)))
            return replace(result, verdict="refused", reason=reason)
        result = replace(result, files=_files(change, ground.paths))
        if not await self._has_substance(plan.request.repository.id, change):
            reason = "only white space and file modes differ"
            return replace(result, verdict="unchanged", reason=reason)
        if ground.project.test_command is None:
            return result
        name = f"{sandbox_id(heard.key.run, plan.attempt)}-v"
        after = await self._baselines.verifier.check(ground, name, heard.key, change)
        before = await self._baselines.get(ground, heard.key, plan.base.tree)
        return replace(
            result,
            verdict="passed" if after.check.exit_code == 0 else "failed",
            checks=(after.check,),
            base_checks=(before.check,) if before is not None else (),
            comparison=compare(before.tests, after.tests) if before is not None else None,
            notes=_notes(ground, touched),
        )

    async def _has_substance(self, repository_id: int, change: Change) -> bool:
        """Whether anything but white space and file modes differs from the base."""
        if change.deleted:
            return True
        for entry in change.written:
            path = os.fsdecode(entry.path)
            before = await self._mirror.read_file(repository_id, change.base, path, MOST_READ)
            if before is None or not same_substance(entry.path, before, entry.content):
                return True
        return False

    async def _drop(self, name: str) -> None:
        if name in self._shelf.names:
            await self._shelf.drop(name)
            return
        try:
            await self._bus.ask(sandbox_subject(name), msgspec.json.encode(Release(id="release")), timeout=5)
        except Later as error:
            if error.kind != "no_responders":
                raise

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


def _notes(ground: Ground, touched: Sequence[bytes]) -> tuple[str, ...]:
    """What a reader should know about how the tests ran."""
    notes = list(ground.notes)
    if looked := sensitive(touched):
        named = ", ".join(f"`{path}`" for path in looked[:8]) + (" and more" if len(looked) > 8 else "")
        notes.append(f"Sensitive files changed: {named}. They decide what runs on others' machines.")
    changed = inputs([readable(path) for path in touched], ground.project.settings)
    if changed and ground.setup is not None:
        named = ", ".join(changed[:10])
        notes.append(f"The change edits {named}; the tests ran with the dependencies of the unchanged base.")
    return tuple(notes)


def _files(change: Change, known: Collection[str]) -> tuple[f.ChangedFile, ...]:
    files = [
        f.ChangedFile(path=path, status="modified" if path in known else "added")
        for path in (readable(entry.path) for entry in change.written)
    ]
    files += [f.ChangedFile(path=readable(path), status="deleted") for path in change.deleted]
    return tuple(sorted(files, key=lambda file: file.path))
