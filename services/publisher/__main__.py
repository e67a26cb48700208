"""The publisher's assembly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.kit.bus import Bus
from services.kit.drive import Driver, Stage
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.publisher import words
from services.publisher.act import Press
from services.publisher.decide import Plan, decide
from services.publisher.state import START, evolve

WORKERS = 16


def _stage(_plan: Plan) -> Stage:
    return "publication"


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Publish until the context ends."""
    words.WEB = settings.github_url
    driver = Driver(
        bus.log("publisher"),
        start=START,
        evolve=evolve,
        decide=decide,
        act=Press(bus, settings.github_api_url),
        stage_of=_stage,
    )
    await bus.hears("publisher", driver, workers=WORKERS)

    async def health() -> dict[str, str]:
        return {"nats": bus.healthy()}

    try:
        yield health
    finally:
        driver.stopping = True
        await bus.close()


if __name__ == "__main__":
    main("publisher")
