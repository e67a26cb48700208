"""The history's assembly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from nats.aio.msg import Msg

from contracts.subjects import STREAM, history_subject
from services.history.archive import Archive, Gap, Stored
from services.history.queries import Queries
from services.kit.bus import Bus
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.kit.sql import open_database

FETCHED = 512
"""Messages that are read from the stream at once where some are missing."""

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Archive and answer until the context ends."""
    engine = await open_database(settings, "history")
    archive, queries = Archive(engine), Queries(engine)

    async def store(messages: list[Msg]) -> None:
        batch = [Stored(m.metadata.sequence.stream, m.subject, m.headers or {}, m.data) for m in messages]
        try:
            await archive.store(batch)
        except Gap as gap:
            # Whoever holds what is missing may be dead for half a minute already: the stream has it too.
            until = min(gap.first, gap.last + 1 + FETCHED)
            missing = [await _read(bus, sequence) for sequence in range(gap.last + 1, until)]
            await archive.store([*missing, *batch] if until == gap.first else missing)
            if until < gap.first:
                raise

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


async def _read(bus: Bus, sequence: int) -> Stored:
    found = await bus.client.jetstream().get_msg(STREAM, sequence)
    return Stored(sequence, found.subject or "", found.headers or {}, found.data or b"")


if __name__ == "__main__":
    main("history")
