"""Setups on real Podman, with this machine's own package indexes: where they are is asked, never written."""

import os
import socket
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from contracts.envelope import RunKey
from services.sandbox_runner.deps import Room, Store, Stored
from services.sandbox_runner.detect import Project
from services.sandbox_runner.egress import Policy, Target, is_public
from services.sandbox_runner.grounds import Ground, Grounds
from services.sandbox_runner.image import ensure_image
from services.sandbox_runner.images import Image, Images, Learn
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_command import working_runtime
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.proxy import Resolve, resolve
from services.sandbox_runner.repository_settings import RepositorySettings
from services.sandbox_runner.sandbox import MIB, Limits
from services.sandbox_runner.setup import Order, Setups
from services.sandbox_runner.setup_rules import Rules
from tests.integration.sandbox_kit import Open, commit, git

LIMITS = Limits(memory=2048 * MIB, disk=1024 * MIB, pids=512, cpus=2.0, seconds=1800)
NOWHERE = Policy()


def machine_certificates() -> str:
    """What this machine trusts besides the usual, where somebody added to it."""
    added = Path("/usr/local/share/ca-certificates")
    return "".join(file.read_text() for file in sorted(added.glob("*.crt"))) if added.is_dir() else ""


def machine_rules(hosts: Collection[str]) -> Rules:
    """Rules under which these hosts can be reached from here; behind a private address they are mirrors."""
    private = {host for host in hosts if not all(map(is_public, _addresses(host)))}
    return Rules(
        hosts=frozenset(Target(host) for host in set(hosts) - private),
        mirrors=frozenset(map(Target, private)),
        ca=machine_certificates(),
        image_hosts=False,
    )


def _addresses(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)]
    except OSError:
        return []


class Source(msgspec.Struct, frozen=True):
    """A repository with one commit, as the runner has it."""

    id: int
    directory: Path
    base: str
    pack: Path

    @property
    def key(self) -> RunKey:
        """A run on it."""
        return RunKey(self.id, 1, "01RUN")


class Yard(msgspec.Struct):
    """A Podman service with everything that setups need, and repositories as one likes."""

    host: PodmanHost
    mirror: Mirror
    image: Image
    store: Store
    directory: Path
    made: int = 0

    async def source(self, files: Mapping[str, str | bytes]) -> Source:
        """A new repository with these files."""
        directory = self.directory / f"source-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        git(directory, "init", "--quiet", "--initial-branch=main")
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return await self.take(directory)

    async def take(self, directory: Path) -> Source:
        """A repository of what lies in a directory."""
        if not (directory / ".git").exists():
            git(directory, "init", "--quiet", "--initial-branch=main")
        base = commit(directory)
        self.made += 1
        await self.mirror.fetch(self.made, directory.as_uri(), None, "main")
        return Source(self.made, directory, base, await self.mirror.shallow_pack(self.made, base))

    def setups(self, rules: Rules | None = None, look_up: Resolve = resolve) -> Setups:
        """Setups under rules; without any, nothing can be reached."""
        return Setups(self.host, self.mirror, self.store, rules or Rules(), look_up=look_up)

    def grounds(self, rules: Rules | None = None, allowed: Collection[str] = ()) -> Grounds:
        """What finds out about base commits."""
        setups = self.setups(rules)
        images = _images(self.host, self.directory, self.image.name, allowed, setups.ask_index)
        return Grounds(self.mirror, images, setups)

    async def ground(self, source: Source, rules: Rules | None = None) -> Ground:
        """All about a repository's commit, set up."""
        return await self.grounds(rules).find(source.key, source.base, source.pack)

    def order(
        self,
        source: Source,
        *commands: str,
        policy: Policy = NOWHERE,
        settings: RepositorySettings | None = None,
    ) -> Order:
        """A setup with these commands."""
        return Order(
            run=source.key,
            base=source.base,
            pack=source.pack,
            image=self.image.name,
            image_id=self.image.id,
            commands=commands,
            inputs=(),
            policy=policy,
            settings=settings or RepositorySettings(),
        )

    @asynccontextmanager
    async def open(self, source: Source, stored: Stored) -> AsyncIterator[Open]:
        """A later sandbox of the repository."""
        ground = Ground(
            repository_id=source.id,
            base=source.base,
            pack=source.pack,
            project=Project(test_command=None, about=""),
            image=self.image,
            stored=stored,
            paths=frozenset(),
        )
        box = PodmanSandbox(self.host, self.mirror.path(source.id))
        try:
            spec = ground.spec(f"t{uuid.uuid4().hex[:12]}", source.key, LIMITS)
            yield Open(box, await box.prepare(spec, source.pack, source.base))
        finally:
            await box.release()


def _images(
    host: PodmanHost, directory: Path, name: str, allowed: Collection[str] = (), learn: Learn | None = None
) -> Images:
    async def default() -> str:
        return name

    return Images(host, directory / "images", default, allowed, learn)


@asynccontextmanager
async def yard(directory: Path, room: Room | None = None) -> AsyncIterator[Yard]:
    """Everything; nothing of it is left behind."""
    name = await ensure_image(lambda line: print(line, flush=True))
    runtime = await working_runtime(name, None, directory / "runtime")
    service = PodmanService(runtime=runtime)
    api = await service.start()
    host = PodmanHost(api, f"test-{uuid.uuid4().hex[:8]}", directory / "runner", service.ceiling)
    try:
        mirror = Mirror(directory / "mirrors", protocols="file")
        image = await _images(host, directory, name).ensure(name)
        yield Yard(host, mirror, image, Store(directory / "deps", room), directory)
    finally:
        for orphan in await host.list_orphans(set()):
            await host.remove(orphan.container, orphan.box)
        await service.stop()


def left_behind(directory: Path) -> list[str]:
    """Sockets and half received results below a store."""
    found = []
    for root, directories, files in os.walk(directory / "deps"):
        found += [os.path.join(root, name) for name in directories if name.startswith("part-")]  # noqa: PTH118
        found += [name for name in files if name in ("proxy", "deps")]
        directories[:] = [name for name in directories if name != "tree"]
    return found
