"""Sandbox images by name: allowed, present, and fit to be one; and where their package managers fetch from.

An image is looked at once, inside a sandbox without network; what was seen is kept under the image's id.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog

from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_command import run_podman
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.sandbox import MIB, Limits, SandboxSpec

_OLDEST_PYTHON = (3, 11)
_PULL_SECONDS = 600.0
_LOOK = Limits(memory=1024 * MIB, disk=512 * MIB, seconds=300)
_NAME = re.compile(r"[a-z0-9.-]{1,253}")

logger = structlog.get_logger(__name__)

Learn = Callable[["Image", str], Awaitable[str]]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that sandboxes can be made of.

    ``hosts`` are those that its package managers are set up for; ``cargo`` are Cargo's indexes, which
    alone know where the packages lie.
    """

    name: str
    id: str
    python: tuple[int, int, int]
    tools: dict[str, str]
    hosts: tuple[str, ...]
    cargo: tuple[str, ...] = ()
    learnt: bool = False


class _Seen(msgspec.Struct, frozen=True):
    python: tuple[int, int, int]
    tools: dict[str, str]
    git: str
    hosts: tuple[str, ...]
    cargo: tuple[str, ...]


class Images:
    """The images that a runner may use.

    Args:
        default: the name of the operator's image, or of our own.
        allowed: the names that repositories may choose (``MILLRACE_SANDBOX_IMAGES``).
        directory: where what was seen is kept.
        learn: asks a Cargo index where its files are, from within the image; None leaves it out.
    """

    def __init__(
        self,
        host: PodmanHost,
        directory: Path,
        default: Callable[[], Awaitable[str]],
        allowed: Collection[str] = (),
        learn: Learn | None = None,
    ) -> None:
        self._host = host
        self._directory = directory
        self._allowed = frozenset(allowed)
        self._known: dict[str, Image] = {}
        self.default = default
        self.learn = learn

    async def choose(self, wanted: str | None) -> str:
        """The image's name for a repository; ``Refused`` if it asks for one that is not allowed."""
        default = await self.default()
        if wanted is None or wanted == default:
            return default
        if wanted not in self._allowed:
            raise Refused(
                f".millrace.toml asks for the image {wanted}, which the operator does not allow"
                " (MILLRACE_SANDBOX_IMAGES).",
                kind="image_not_allowed",
            )
        return wanted

    async def ensure(self, name: str) -> Image:
        """The image, looked at; pulled first if it is not here.

        Raises:
            Refused: it cannot be a sandbox: the text says what it lacks.
            Later: it could not be pulled or started now.
        """
        identity = await self._host.api.image(name)
        if identity is None:
            await _pull(name)
            identity = await self._host.api.image(name)
        if identity is None:
            raise Refused(f"the image {name} is not on this machine", kind="image_missing")
        found = self._known.get(identity) or self._recall(identity)
        if found is None:
            found = await self._look(name, identity)
        self._known[identity] = found
        return msgspec.structs.replace(found, name=name)

    async def complete(self, image: Image) -> Image:
        """The same image, with the hosts that only Cargo's indexes know."""
        if image.learnt or not image.cargo or self.learn is None:
            return image
        hosts = {*image.hosts, *image.cargo}
        learnt = True
        for index in image.cargo:
            try:
                address = urlsplit(await self.learn(image, index))
                hosts.add(address.hostname or index)
            except (MillraceError, ValueError) as error:
                logger.info("a Cargo index did not say where its files are", index=index, why=str(error))
                learnt = False
        found = msgspec.structs.replace(image, hosts=tuple(sorted(hosts)), learnt=learnt)
        if learnt:
            self._known[image.id] = found
            self._remember(found)
        return found

    async def _look(self, name: str, identity: str) -> Image:
        box = PodmanSandbox(self._host, self._directory)
        spec = SandboxSpec(sandbox_id=f"look-{uuid.uuid4().hex[:12]}", image=identity, limits=_LOOK)
        try:
            await box.start(spec)
            result = await box.run_program("probe", seconds=120)
        finally:
            await box.release()
        try:
            seen = msgspec.json.decode(result.content, type=_Seen)
        except msgspec.DecodeError as error:
            raise Refused(
                f"the image {name} cannot be a sandbox: {result.content[-300:]}", kind="image_unfit"
            ) from error
        lacks = [tool for tool in ("bash", "git") if not seen.tools.get(tool)]
        lacks += ["Python 3.11 or newer"] if tuple(seen.python[:2]) < _OLDEST_PYTHON else []
        if lacks:
            raise Refused(
                f"the image {name} cannot be a sandbox: it lacks {', '.join(lacks)}", kind="image_unfit"
            )
        image = Image(
            name=name,
            id=identity,
            python=seen.python,
            tools={tool: place for tool, place in seen.tools.items() if place},
            hosts=tuple(host for host in seen.hosts if _NAME.fullmatch(host)),
            cargo=tuple(host for host in seen.cargo if _NAME.fullmatch(host)),
        )
        self._remember(image)
        return image

    def _recall(self, identity: str) -> Image | None:
        try:
            return msgspec.json.decode(self._file(identity).read_bytes(), type=Image)
        except (OSError, msgspec.DecodeError):
            return None

    def _remember(self, image: Image) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._file(f"{image.id}.{uuid.uuid4().hex}")
        part.write_bytes(msgspec.json.encode(image))
        part.rename(self._file(image.id))

    def _file(self, identity: str) -> Path:
        return self._directory / f"{re.sub('[^0-9a-z.]', '', identity)}.json"


async def _pull(name: str) -> None:
    if name.startswith("localhost/"):
        return
    logger.info("pulling an image", image=name)
    try:
        await run_podman(["pull", "--quiet", name], seconds=_PULL_SECONDS)
    except Later as error:
        raise Later(f"the image {name} could not be pulled: {error}", kind="image_missing") from error
