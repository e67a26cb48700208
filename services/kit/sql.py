"""A service's own database: SQLite under ``home`` by default, PostgreSQL by URL; migrated at start.

No service reads another's. On PostgreSQL each has a schema of its own, named like the service.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import deploy
from services.kit.errors import Misconfigured
from services.kit.settings import Settings

MIGRATIONS = Path(next(iter(deploy.__path__))) / "migrations"

_READS = "millrace_reads"

logger = structlog.get_logger(__name__)


_turns: "WeakKeyDictionary[Engine, asyncio.Lock]" = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that may write, committed at the end.

    SQLite has room for one writer, and whoever waits for it there polls, without order: under load some
    wait for seconds. So this process's writers stand in line here.
    """
    turn = _turns.setdefault(engine.sync_engine, asyncio.Lock()) if engine.dialect.name == "sqlite" else None
    async with turn or contextlib.nullcontext(), engine.begin() as connection:
        yield connection


@contextlib.asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that only reads: on SQLite it waits for no writer and holds none up."""
    async with engine.execution_options(**{_READS: True}).connect() as connection:
        yield connection


async def open_database(settings: Settings, service: str) -> AsyncEngine:
    """The engine of ``service``'s database, at the newest migration.

    SQLite runs with WAL, ``synchronous=FULL``, foreign keys and recursive triggers; each transaction that
    may write begins IMMEDIATE, so that no reader has to become a writer halfway (SQLITE_BUSY_SNAPSHOT).

    Raises:
        Misconfigured: the database cannot be opened or migrated; the message never shows the URL.
    """
    url = _url(settings, service)
    engine = _sqlite(url) if url.startswith("sqlite") else _postgresql(url, service)
    try:
        async with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Replicas start together: one migrates, the others wait and find it done.
                lock = text("SELECT pg_advisory_xact_lock(7361, hashtext(:name))")
                await connection.execute(lock, {"name": service})
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
            await connection.run_sync(_migrate, service)
    except (OperationalError, DBAPIError, OSError) as error:
        await engine.dispose()
        reason = type(getattr(error, "orig", None) or error).__name__
        raise Misconfigured(
            f"the database of {service} cannot be opened ({reason}): check MILLRACE_DATABASE_URL, "
            f"or the rights on {settings.home}."
        ) from error
    return engine


def _url(settings: Settings, service: str) -> str:
    if settings.database_url is None:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return f"sqlite+aiosqlite:///{settings.home / service}.sqlite3"
    url = settings.database_url.get_secret_value()
    if url.startswith("postgresql://"):
        url = "postgresql+asyncpg://" + url.removeprefix("postgresql://")
    if not url.startswith("postgresql+asyncpg://"):
        raise Misconfigured("MILLRACE_DATABASE_URL must begin with postgresql://; unset it for SQLite.")
    return url


def _sqlite(url: str) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"timeout": 5}, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "recursive_triggers=ON",
            "secure_delete=ON",
            "busy_timeout=5000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str, service: str) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"server_settings": {"search_path": service}},
    )


def _migrate(connection: Connection, service: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("version_locations", str(MIGRATIONS / service / "versions"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
