"""Assembly of the vault."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.kit.bus import Bus
from services.kit.settings import Settings
from services.kit.sql import open_database, reading, writing
from services.vault.act import Vault
from services.vault.anchor import read_mark, rollback_notice, write_mark
from services.vault.inbox import Door, answering
from services.vault.keyring import open_keyring
from services.vault.records import Records

logger = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Callable[[], Awaitable[dict[str, str]]]]:
    """Open the database and the keys, answer questions; ``Misconfigured`` if either is not as it must be."""
    directory = settings.home / "vault"
    engine = await open_database(settings, "vault")
    try:
        keyring = await open_keyring(engine, directory, datetime.now(UTC))
        remembered = read_mark(directory)
        async with writing(engine) as connection:
            records = Records(connection, keyring)
            read_only = "" if await records.has(remembered) else rollback_notice(directory)
            mark = await records.mark()
        if read_only:
            logger.error(read_only)
        elif mark != remembered:
            write_mark(directory, mark)
        vault = Vault(
            engine,
            keyring,
            directory,
            api_url=settings.github_api_url,
            offered=settings.anthropic_api_key,
            read_only=read_only,
            time=time.time,
            monotonic=time.monotonic,
        )

        async def health() -> dict[str, str]:
            try:
                async with reading(engine) as connection:
                    await connection.execute(sa.text("SELECT 1"))
                database = "ok"
            except (SQLAlchemyError, OSError) as error:
                database = f"the vault's database does not answer ({type(error).__name__})"
            return {"nats": bus.healthy(), "database": database, "records": read_only or "ok"}

        async with answering(bus, Door(engine, vault.answer)):
            yield health
    finally:
        await engine.dispose()


if __name__ == "__main__":
    from services.kit.serve import main

    main("vault")
