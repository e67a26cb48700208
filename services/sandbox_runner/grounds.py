"""What a base commit stands on: how it is tested, its image, and what its setup left. All from the base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from contracts import facts as f
from contracts.envelope import RunKey
from services.kit.errors import Refused
from services.sandbox_runner.change import DEFAULT_LIMITS, ChangeLimits
from services.sandbox_runner.deps import Stored
from services.sandbox_runner.detect import READ, Project, detect, inputs
from services.sandbox_runner.images import Image, Images
from services.sandbox_runner.mirror import Mirror, TreeEntry
from services.sandbox_runner.sandbox import Limits, SandboxSpec
from services.sandbox_runner.setup import Order, Setups
from services.sandbox_runner.setup_rules import later_environment, path, policy_for

_SETTINGS_BYTES = 200_000


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """One base commit with all that its sandboxes need.

    ``absent`` says what a checkout lacks. ``notes`` are sentences about wishes of the repository that are
    not granted.
    """

    repository_id: int
    base: str
    pack: Path
    project: Project
    image: Image
    stored: Stored | None
    paths: frozenset[str]
    absent: str = ""
    notes: tuple[str, ...] = ()

    @property
    def setup(self) -> f.Setup | None:
        """How the setup went, None if there is nothing to set up."""
        return self.stored.report if self.stored is not None else None

    @property
    def about(self) -> str:
        """What was found out about the repository, for the agent."""
        parts = [self.project.about, *self._set_up(), self.project.problem, self.absent, *self.notes]
        return "\n".join(part for part in parts if part)

    def _set_up(self) -> list[str]:
        report = self.setup
        if report is None:
            return []
        if report.ok:
            return ["That was done before the network was taken away; /deps holds the result, read-only."]
        return [f"That failed, so nothing is installed:\n{report.output[-1500:]}"]

    def spec(
        self, sandbox_id: str, key: RunKey, limits: Limits, most: ChangeLimits = DEFAULT_LIMITS
    ) -> SandboxSpec:
        """A sandbox on this ground; ``most`` is the largest change that the operator lets it make."""
        settings = self.project.settings
        top = self.stored.top if self.stored is not None else ()
        return SandboxSpec(
            sandbox_id=sandbox_id,
            key=key,
            image=self.image.name,
            limits=limits,
            deps=self.stored.tree if self.stored is not None else None,
            environment=later_environment(top, settings),
            path=path(top),
            change=self._change_limits(most),
        )

    def _change_limits(self, most: ChangeLimits) -> ChangeLimits:
        """The largest change that is taken: the operator's bounds, or narrower ones of the repository."""
        settings = self.project.settings
        size = min(most.size, settings.size or most.size)
        return ChangeLimits(
            files=min(most.files, settings.files or most.files),
            size=size,
            file_size=min(most.file_size, size),
        )


class Grounds:
    """Finds out about base commits; asking again about one is cheap."""

    def __init__(
        self, mirror: Mirror, images: Images, setups: Setups, change: ChangeLimits = DEFAULT_LIMITS
    ) -> None:
        self._mirror = mirror
        self._images = images
        self._setups = setups
        self.change = change

    async def find(self, key: RunKey, base: str, pack: Path) -> Ground:
        """Everything about a base; the setup is run if it has not been.

        Raises:
            Refused: ``.millrace.toml`` is wrong, or the image cannot be used.
            Later: something could not be done now.
        """
        repository_id = key.repository_id
        listing = await self._mirror.list_tree(repository_id, base, recursive=True)
        project = await self._project(repository_id, base, listing)
        if project.wrong:
            raise Refused(project.problem, kind="settings_invalid")
        image = await self._images.ensure(await self._images.choose(project.settings.image))
        if any("cargo" in command for command in project.setup):
            image = await self._images.complete(image)
        stored, notes = await self._set_up(key, base, pack, project, image, listing)
        return Ground(
            repository_id=repository_id,
            base=base,
            pack=pack,
            project=project,
            image=image,
            stored=stored,
            paths=frozenset(readable(entry.path) for entry in listing),
            absent=await self._mirror.absent(repository_id, base),
            notes=notes,
        )

    async def _set_up(
        self,
        key: RunKey,
        base: str,
        pack: Path,
        project: Project,
        image: Image,
        listing: Sequence[TreeEntry],
    ) -> tuple[Stored | None, tuple[str, ...]]:
        if not project.setup:
            return None, ()
        rules = self._setups.rules
        policy, notes = policy_for(rules, image.hosts, project.settings)
        if project.settings.install_scripts and not rules.scripts:
            notes += ("The operator does not let repositories turn install scripts on.",)
        blobs = {readable(entry.path): entry.blob for entry in listing}
        order = Order(
            run=key,
            base=base,
            pack=pack,
            image=image.name,
            image_id=image.id,
            commands=project.setup,
            inputs=tuple((name, blobs[name]) for name in inputs(blobs, project.settings)),
            policy=policy,
            settings=project.settings,
        )
        return await self._setups.ensure(order), notes

    async def _project(self, repository_id: int, base: str, listing: Sequence[TreeEntry]) -> Project:
        names = set()
        for entry in listing:
            name = readable(entry.path)
            top, slash, rest = name.partition("/")
            names.add(top + slash)
            if rest and "/" not in rest and top in ("requirements", "test", "tests"):
                names.add(name)
        contents = {}
        for name in READ:
            if name in names:
                body = await self._mirror.read_file(repository_id, base, name, _SETTINGS_BYTES)
                if body is not None:
                    contents[name] = body.decode(errors="replace")
        return detect(names, contents)


def readable(path: Any) -> str:
    """A path as text; bytes that are not UTF-8 are escaped."""
    return path.decode(errors="backslashreplace") if isinstance(path, bytes) else str(path)
