"""The history's assembly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from nats.aio.msg import Msg

from contracts.subjects import history_subject
from services.history.archive import Archive, Stored
from services.history.queries import Queries
from services.kit.bus import Bus
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.kit.sql import open_database

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Archive and answer until the context ends."""
    engine = await open_database(settings, "history")
    archive, queries = Archive(engine), Queries(engine)

    async def store(messages: list[Msg]) -> None:
        await archive.store(
            [Stored(m.metadata.sequence.stream, m.subject, m.headers or {}, m.data) for m in messages]
        )

    async def health() -> dict[str, str]:
        await archive.newest()
        return {"nats": bus.healthy(), "database": "ok"}

    try:
        await bus.answers(history_subject("issues"), queries.issues, queue="history")
        await bus.answers(history_subject("events"), queries.events, queue="history")
        await bus.hears_batches("history", store)
        yield health
    finally:
        await bus.close()
        await engine.dispose()


if __name__ == "__main__":
    main("history")
