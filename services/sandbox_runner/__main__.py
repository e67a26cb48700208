"""The runner's assembly."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog

from contracts.subjects import RUNNERS_SUBJECT
from contracts.tools import RunnerStatus
from services.kit.bus import Bus
from services.kit.drive import Driver, Stage
from services.kit.errors import Misconfigured
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.sandbox_runner import process
from services.sandbox_runner.act import Workshop
from services.sandbox_runner.assembly import build_grounds
from services.sandbox_runner.decide import Plan, Verify, decide
from services.sandbox_runner.engine import Engine
from services.sandbox_runner.held import Shelf
from services.sandbox_runner.image import ensure_image
from services.sandbox_runner.keeper import Keeper, is_ours
from services.sandbox_runner.memory import read_memory
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.mirror_bounds import Bounds
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.podman_command import working_runtime
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.profile import GUARANTEES, Ceiling, Shape
from services.sandbox_runner.room import Room
from services.sandbox_runner.sandbox import MIB, Limits
from services.sandbox_runner.slot import slot
from services.sandbox_runner.state import START, evolve
from services.sandbox_runner.verification import Baselines, Verifier
from services.sandbox_runner.web import serve_web

logger = structlog.get_logger(__name__)


def _stage(plan: Plan) -> Stage:
    return "verification" if isinstance(plan, Verify) else "sandbox"


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Hold sandboxes until the context ends."""
    async with AsyncExitStack() as stack:
        home = settings.home.absolute()
        runner = stack.enter_context(slot(home / "runners"))
        process.own(runner)
        if unknown := sorted(set(settings.sandbox_without) - GUARANTEES.keys()):
            raise Misconfigured(
                f"MILLRACE_SANDBOX_WITHOUT: {', '.join(unknown)} is no guarantee; there are "
                + ", ".join(GUARANTEES)
            )
        limits = Limits(memory=settings.sandbox_memory * MIB, disk=settings.sandbox_memory * MIB // 2)
        protocols = "http:https" if settings.github_url.startswith("http://") else "https"
        bounds = Bounds(size=settings.mirror_size * MIB, age=settings.mirror_days * 86400.0)
        mirror = Mirror(home / "mirrors", protocols=protocols, bounds=bounds)
        host = PodmanHost(
            PodmanApi(), runner, home / "sandboxes" / runner, Ceiling(), settings.sandbox_without
        )
        room = Room(settings.sandbox_limit, lambda: read_memory().enough_for_run(limits.memory))
        log = bus.log("sandbox_runner")
        shelf = Shelf(bus, room, partial(is_ours, log, runner))
        keeper = Keeper(host=host, shelf=shelf, mirror=mirror, log=log, home=home)
        await keeper.clean()

        async def connected(image: str) -> None:
            await keeper.recover()
            host.pool.keep(Shape(image=image, limits=limits), settings.sandbox_warm, settings.sandbox_limit)

        engine = Engine(
            host,
            image=partial(_image, settings),
            service=partial(_service, settings, runner, home),
            connected=connected,
        )
        grounds = build_grounds(settings, host, mirror, engine.image)
        verifier = Verifier(host, mirror, limits, settings.test_minutes * 60)
        baselines = Baselines(verifier, home / "baselines")
        stack.push_async_callback(engine.close)
        stack.push_async_callback(host.pool.drain)
        stack.push_async_callback(shelf.clear)
        stack.push_async_callback(keeper.stop)
        stack.push_async_callback(baselines.close)
        await engine.open()
        keeper.start()
        driver = Driver(
            log,
            start=START,
            evolve=evolve,
            decide=decide,
            act=Workshop(
                bus=bus,
                host=host,
                mirror=mirror,
                shelf=shelf,
                grounds=grounds,
                baselines=baselines,
                limits=limits,
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
                    limit=room.limit,
                    image=engine.name,
                    uptime=round(time.monotonic() - began, 1),
                    queue=room.queue,
                    warm=host.pool.waiting,
                    podman=engine.health,
                )
            )

        async def health() -> dict[str, str]:
            return {"nats": bus.healthy(), "podman": engine.health}

        await bus.answers(RUNNERS_SUBJECT, status)
        await stack.enter_async_context(serve_web(settings, bus, status, health))
        await bus.hears("sandbox_runner", driver, workers=settings.sandbox_limit + 4)
        try:
            yield health
        finally:
            driver.stopping = True
            keeper.note_stopping()
            await bus.close()


async def _image(settings: Settings) -> str:
    return settings.sandbox_image or await ensure_image(tell=partial(logger.info, "sandbox image"))


async def _service(settings: Settings, runner: str, home: Path, image: str) -> PodmanService:
    """The operator's service, whose runtime is its own affair; else one with a runtime that works here."""
    if settings.podman_url:
        return PodmanService(settings.podman_url)
    runtime = await working_runtime(image, settings.sandbox_runtime, home / "runtime")
    return PodmanService(runtime=runtime, owner=runner)


if __name__ == "__main__":
    main("sandbox_runner")
