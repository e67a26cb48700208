"""Podman as the runner has it: connected if it is there, watched, connected again when it is back.

A machine without a working Podman does not end the runner: it says so in its health, runs wait, and fail
with that reason after the tries that every message gets.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from services.kit.errors import Later, MillraceError
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService

_LOOK_SECONDS = 5.0
_LONGEST_PAUSE = 30.0
_PROBLEM = (
    "The machine that runs the sandboxes has no working Podman at the moment. "
    "Its operator finds out more with `millrace doctor`."
)

logger = structlog.get_logger(__name__)


class Engine:
    """One runner's Podman.

    Args:
        host: gets the connection.
        image: the sandbox image's name, built on first need.
        service: the service to use, once the image is known.
        connected: awaited after the first connection, with the image's name, before anything uses it.
    """

    def __init__(
        self,
        host: PodmanHost,
        *,
        image: Callable[[], Awaitable[str]],
        service: Callable[[str], Awaitable[PodmanService]],
        connected: Callable[[str], Awaitable[None]],
    ) -> None:
        self._host = host
        self._find_image = image
        self._find_service = service
        self._connected = connected
        self.name = ""
        """The sandbox image's name, once it is known."""
        self._service: PodmanService | None = None
        self._ready = False
        self._problem: MillraceError | None = Later("Podman was not asked yet.", kind="podman_unavailable")
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, or go on trying in the background."""
        await self._look()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Let go of Podman; a service that was started here ends."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._service is not None:
            await self._service.stop()

    async def image(self) -> str:
        """The sandbox image's name; raises what is in the way if there is no Podman yet."""
        if not self._ready:
            kind = getattr(self._problem, "kind", "podman_unavailable")
            raise Later(_PROBLEM, kind=kind)  # what Podman said is in the log: it names paths and addresses
        return self.name

    @property
    def health(self) -> str:
        """``ok``, or a sentence about what is wrong."""
        return "ok" if self._problem is None else str(self._problem)

    async def _watch(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(min(_LONGEST_PAUSE, _LOOK_SECONDS * (failures + 1)))
            await self._look()
            failures = failures + 1 if self._problem is not None else 0

    async def _look(self) -> None:
        try:
            await self._connect()
        except MillraceError as error:
            if self._problem is None or str(error) != str(self._problem):
                logger.error("Podman does not work", why=str(error))  # noqa: TRY400  the sentence is enough
            self._problem = error
        except Exception:
            logger.exception("looking at Podman failed")
            self._problem = Later("Podman could not be looked at.", kind="podman_failed")
        else:
            if self._problem is not None:
                logger.info("Podman works", image=self.name)
            self._problem = None

    async def _connect(self) -> None:
        if not self.name:
            self.name = await self._find_image()
        if self._service is None:
            self._service = await self._find_service(self.name)
        self._host.api = await self._service.start()
        self._host.ceiling = self._service.ceiling
        if not self._ready:
            await self._connected(self.name)
            self._ready = True
