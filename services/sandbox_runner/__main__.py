"""The runner's assembly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec
import structlog

from contracts.subjects import RUNNERS_SUBJECT
from contracts.tools import RunnerStatus
from services.kit.bus import Bus
from services.kit.drive import Driver, Stage
from services.kit.errors import Later, MillraceError
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.sandbox_runner.act import Workshop
from services.sandbox_runner.decide import Plan, Verify, decide
from services.sandbox_runner.engine_image import ensure_engine_image
from services.sandbox_runner.held import Shelf
from services.sandbox_runner.image import ensure_image
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman_command import working_runtime
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.sandbox import MIB, Limits
from services.sandbox_runner.slot import slot
from services.sandbox_runner.state import START, evolve
from services.sandbox_runner.web import serve_web

REAP_SECONDS = 30.0

logger = structlog.get_logger(__name__)


def _stage(plan: Plan) -> Stage:
    return "verification" if isinstance(plan, Verify) else "sandbox"


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Hold sandboxes until the context ends."""
    async with AsyncExitStack() as stack:
        home = settings.home.absolute()
        runner = stack.enter_context(slot(home / "runners"))
        image = settings.sandbox_image or await _built(settings.engine)
        runtime = await working_runtime(image, settings.sandbox_runtime, home / "runtime")
        service = PodmanService(settings.podman_url, runtime)
        api = await service.start()
        stack.push_async_callback(service.stop)
        host = PodmanHost(api, runner, home / "sandboxes" / runner, service.ceiling)
        await _reap(host, set())
        shelf = Shelf(bus, settings.sandbox_limit)
        stack.push_async_callback(shelf.clear)
        memory = settings.sandbox_memory * MIB
        protocols = "http:https" if settings.github_url.startswith("http://") else "https"
        driver = Driver(
            bus.log("sandbox_runner"),
            start=START,
            evolve=evolve,
            decide=decide,
            act=Workshop(
                bus=bus,
                host=host,
                mirror=Mirror(home / "mirrors", protocols=protocols),
                shelf=shelf,
                image=partial(_image, image),
                limits=Limits(memory=memory, disk=memory // 2),
                runner=runner,
                github_url=settings.github_url,
            ),
            stage_of=_stage,
        )
        began = time.monotonic()

        async def status(_question: bytes = b"") -> bytes:
            return msgspec.json.encode(
                RunnerStatus(
                    runner=runner,
                    sandboxes=shelf.names,
                    limit=shelf.limit,
                    image=image,
                    uptime=round(time.monotonic() - began, 1),
                )
            )

        async def health() -> dict[str, str]:
            try:
                await host.list_orphans(set())
            except MillraceError as error:
                return {"nats": bus.healthy(), "podman": str(error)}
            return {"nats": bus.healthy(), "podman": "ok"}

        await bus.answers(RUNNERS_SUBJECT, status)
        await stack.enter_async_context(serve_web(settings, bus, status, health))
        await bus.hears("sandbox_runner", driver, workers=settings.sandbox_limit + 4)
        try:
            yield health
        finally:
            driver.stopping = True
            await bus.close()


async def _built(engine: str) -> str:
    """Our own sandbox image, with what the engine needs."""
    tell = partial(logger.info, "sandbox image")
    image = await ensure_image(tell=tell)
    return await ensure_engine_image(image, tell) if engine == "claude-code" else image


async def _image(name: str) -> str:
    return name


async def _reap(host: PodmanHost, known: set[str]) -> None:
    """Remove what a killed predecessor of this name left: its runs go on from their checkpoints."""
    try:
        orphans = await host.list_orphans(known)
    except Later as error:
        logger.warning("orphans could not be listed", error=str(error))
        return
    for orphan in orphans:
        logger.info("orphan removed", sandbox=orphan.sandbox_id, run=orphan.run_id)
    await asyncio.gather(*(host.remove(orphan.container, orphan.sandbox_id) for orphan in orphans))


if __name__ == "__main__":
    main("sandbox_runner")
