"""A runner's place on a Podman service: starts its containers, verifies them, finds and removes them."""

import asyncio
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import structlog

from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner.box import Box, Record, Records
from services.sandbox_runner.channel import Channel, Listener
from services.sandbox_runner.inspection import Difference, View, broken, differences
from services.sandbox_runner.outside import look_at
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.pool import Pool
from services.sandbox_runner.profile import (
    GUARANTEES,
    LABEL,
    Ceiling,
    Place,
    Shape,
    container_spec,
    fingerprint,
)
from services.sandbox_runner.sandbox import SandboxGone, SandboxSpec

SANDBOX_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_ADOPT_SECONDS = 10.0
_AT_ONCE = 6
"""Starts at a time: more make each slower and none faster."""

logger = structlog.get_logger(__name__)


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A container that the runner does not hold; ids are empty where nobody had taken it yet."""

    container: str
    box: str
    sandbox_id: str
    run_id: str


class PodmanHost:
    """One runner's place on one Podman service.

    Args:
        api: the service.
        runner: the runner's name; its containers carry it as a label and in their names.
        directory: private directory of this runner, the same path for it and for Podman: here lie the
            sockets, a copy of the tool server, the records of its containers and its scratch files.
        ceiling: the service's own limits.
        accepted: the guarantees that the operator gave up, by name (``profile.GUARANTEES``).
    """

    def __init__(
        self,
        api: PodmanApi,
        runner: str,
        directory: Path,
        ceiling: Ceiling,
        accepted: Collection[str] = (),
    ) -> None:
        self.api = api
        self.runner = runner
        self.ceiling = ceiling
        self.accepted = frozenset(accepted)
        self.records = Records(directory / "boxes")
        self.scratch = directory / "scratch"
        self.pool = Pool(self)
        self._directory = directory
        self._prefix = f"millrace-{_digest([runner.encode()])[:8]}"
        self._files: tuple[Path, Path] | None = None
        self._held: set[str] = set()
        self._starting = asyncio.Semaphore(_AT_ONCE)
        self._told_blind = False

    async def take(self, spec: SandboxSpec) -> Box:
        """A verified container for this sandbox: a warm one if there is one of its shape, else a new one.

        An earlier container of the same sandbox is removed first.
        """
        await self.release(spec.sandbox_id)
        return await self.pool.take(spec)

    async def release(self, sandbox_id: str) -> None:
        """Remove the containers of a sandbox; one that is gone already is fine."""
        for record in self.records.read():
            if record.sandbox == sandbox_id:
                await self.discard(record)

    async def discard(self, record: Record) -> None:
        """Remove a container and what the runner kept for it."""
        await self.remove(record.container or record.box, record.box)

    async def start(self, shape: Shape, *, idle: float = 0.0) -> Box:
        """A new container, verified; on failure nothing of it is left behind.

        Args:
            idle: seconds that it may wait for its run, on top of its lifetime.

        Raises:
            Refused: it cannot be made here, or is not what was asked for; the reason is named.
            Later: Podman did not answer or failed, or the container ended at once.
        """
        name = f"{self._prefix}-{secrets.token_hex(6)}"
        body = self._body(name, shape, idle)
        record = Record(box=name, shape=shape, made=fingerprint(body))
        self._held.add(name)
        try:
            self.records.write(record)
            async with self._starting:
                listener = Listener(self.channel_directory(name))
                try:
                    container = await self.api.create(body)
                    await self.api.start(container)
                    channel = await self._report(listener, container)
                finally:
                    listener.close()
            record = msgspec.structs.replace(record, container=container)
            self.records.write(record)
            return await self._verified(record, body, channel, await self.api.inspect(container))
        except BaseException:
            await asyncio.shield(self._abandon(record))
            raise

    async def adopt(self, record: Record) -> Box:
        """The living container of a runner that died, verified again; its tool server reports anew.

        Raises:
            SandboxGone: it ended, or does not report.
        """
        self._held.add(record.box)
        try:
            described = await self.api.inspect(record.container or record.box)
        except Refused as error:
            raise SandboxGone("the sandbox ended while nobody held it") from error
        state = described["State"]
        if not state.get("Running") or state.get("Paused"):
            raise SandboxGone("the sandbox ended while nobody held it")
        listener = Listener(self.channel_directory(record.box))
        try:
            channel = await listener.accept(_ADOPT_SECONDS, pid=int(state.get("Pid") or 0))
        except Later as error:
            raise SandboxGone("the sandbox did not report again") from error
        finally:
            listener.close()
        record = msgspec.structs.replace(record, container=str(described["Id"]))
        self.records.write(record)
        body = self._body(record.box, record.shape, 0.0)
        return await self._verified(record, body, channel, described)

    def is_current(self, record: Record, idle: float) -> bool:
        """Whether a container is what this runner would make today: same image, limits, tools and filter."""
        return fingerprint(self._body(record.box, record.shape, idle)) == record.made

    async def _verified(
        self, record: Record, body: dict[str, Any], channel: Channel, described: dict[str, Any]
    ) -> Box:
        hello = await channel.hello(_START_SECONDS)
        pid = int(described["State"].get("Pid") or 0)
        if channel.peer_pid not in (0, pid):
            raise SandboxGone("another process than the sandbox's first took the tool channel")
        try:
            inside = msgspec.convert(hello.get("profile"), View)
        except msgspec.ValidationError as error:
            raise SandboxGone("the sandbox broke the protocol of its tool channel") from error
        outside = look_at(pid) if channel.peer_pid == pid else None
        if outside is None and not self._told_blind:
            self._told_blind = True
            logger.warning(
                "sandboxes are verified from inside and by Podman's words only: no view of processes"
            )
        found = broken(differences(body, inside, outside, described), self.accepted)
        if found:
            await channel.close()
            raise _not_as_asked(found)
        uids = (outside or inside).uid_map.split()
        return Box(
            record=record,
            container=record.container,
            channel=channel,
            image=str(described["Image"]),
            uid_map=int(uids[1]) if outside is not None else 0,
            python=str(hello.get("python", ""))[:20],
        )

    async def _report(self, listener: Listener, container: str) -> Channel:
        """The tool server's connection, or why it cannot come any more."""
        accepting = asyncio.create_task(listener.accept(_START_SECONDS))
        try:
            while True:
                done, _ = await asyncio.wait([accepting], timeout=_LOOK_SECONDS)
                if done:
                    return accepting.result()
                if not await self._runs(container):
                    raise Later(
                        "The sandbox ended before it reported. Has its image Python 3.11, bash and git?",
                        kind="sandbox_start",
                    )
        finally:
            accepting.cancel()

    async def _runs(self, container: str) -> bool:
        try:
            return bool((await self.api.inspect(container))["State"].get("Running"))
        except Refused as error:
            if error.kind != "podman_not_found":
                raise
            return False

    def _body(self, name: str, shape: Shape, idle: float) -> dict[str, Any]:
        tools, seccomp = self._installed()
        place = Place(
            tools=tools,
            channel=self._channel(name),
            seccomp=None if "seccomp" in self.accepted else seccomp,
            ceiling=self.ceiling,
            accepted=self.accepted,
        )
        return container_spec(name, shape, self.runner, place, idle=idle)

    def _installed(self) -> tuple[Path, Path]:
        """Where containers find the tool server and Podman the filter: copies that no upgrade changes."""
        if self._files is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = sorted((Path(__file__).parent / "toolserver").glob("*.py"))
            target = self._directory / f"tools-{_digest([file.read_bytes() for file in files])[:16]}"
            if not target.exists():
                part = self._directory / f"tools-{time.monotonic_ns()}.part"
                (part / "toolserver").mkdir(parents=True)
                for file in files:
                    copy = part / "toolserver" / file.name
                    copy.write_bytes(file.read_bytes())
                    copy.chmod(0o644)
                with suppress(OSError):  # another runner was first
                    part.rename(target)
                shutil.rmtree(part, ignore_errors=True)
            rules = (resources.files("deploy") / "sandbox" / "seccomp.json").read_bytes()
            seccomp = self._directory / f"seccomp-{_digest([rules])[:16]}.json"
            if not seccomp.exists():
                json.loads(rules)
                part = seccomp.with_suffix(".part")
                part.write_bytes(rules)
                part.replace(seccomp)
            self._files = target, seccomp
        return self._files

    def channel_directory(self, box: str) -> Path:
        """The directory that exactly this container sees as ``/run/channel``."""
        path = self._channel(box)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        return path

    def _channel(self, box: str) -> Path:
        return self._directory / "channels" / box

    async def find(self, sandbox_id: str) -> str | None:
        """Podman's id of the container that a sandbox has, if it has one."""
        for record in self.records.read():
            if record.sandbox == sandbox_id and record.container and await self._runs(record.container):
                return record.container
        return None

    async def list_orphans(self, known: Collection[str] | None = None) -> list[Orphan]:
        """Containers of this runner that it does not hold.

        Args:
            known: names of sandboxes; if given, the containers of all others count, held or not.
        """
        records = {record.box: record for record in self.records.read()}
        found = []
        for container in await self.api.containers(self.runner):
            box = (container.get("Labels") or {}).get(f"{LABEL}.box", "")
            record = records.get(box)
            sandbox = record.sandbox if record else ""
            if (box not in self._held) if known is None else (sandbox not in known):
                run = record.key.run if record and record.key else ""
                found.append(Orphan(container=str(container["Id"]), box=box, sandbox_id=sandbox, run_id=run))
        return found

    def unheld(self) -> list[Record]:
        """Records of containers that this process does not hold: a predecessor's."""
        return [record for record in self.records.read() if record.box not in self._held]

    async def remove(self, container: str, box: str) -> None:
        """Remove a container and what the runner kept for it; it is not held any more, whatever happens."""
        self._held.discard(box)
        await self.api.remove(container)
        if SANDBOX_ID.fullmatch(box):
            shutil.rmtree(self._channel(box), ignore_errors=True)
            self.records.forget(box)

    def sweep(self) -> None:
        """Remove the files of containers that have no record, and scratch files; for a start."""
        known = {record.box for record in self.records.read()} | self._held
        for directory in (self._directory / "channels").glob("*"):
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)
        for part in (*self._directory.glob("*.part"), *(self._directory / "boxes").glob("*.part")):
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    async def _abandon(self, record: Record) -> None:
        try:
            await self.discard(record)
        except MillraceError as error:  # the reason that led here matters more; the reaper comes again
            logger.warning("a container was left behind", box=record.box, error=str(error))


def _not_as_asked(found: Sequence[Difference]) -> Refused:
    """Never used: what it lacks, by guarantee."""
    names = sorted({each.guarantee for each in found})
    logger.error(
        "a container is not as it must be", differences=[f"{each.guarantee}: {each.what}" for each in found]
    )
    missing = "; ".join(f"{name} ({GUARANTEES[name]})" for name in names)
    return Refused(
        f"The machine that runs the sandboxes did not give what a sandbox must have: {missing}. "
        "Its operator finds out more with `millrace doctor`.",
        kind="sandbox_profile",
    )


def _digest(parts: Sequence[bytes]) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()
