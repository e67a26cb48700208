"""The append-only archive: rows keyed by stream sequence, each hash over the row and the hash before it.

The read model changes in the same transaction, so that it never shows what the archive does not hold.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from contracts.codec import decode_fact
from contracts.envelope import RunKey
from contracts.subjects import parse_subject
from services.history.runs import Row, evolve
from services.history.tables import events, runs
from services.kit.errors import Later
from services.kit.sql import reading, writing

GENESIS = bytes(32)

logger = structlog.get_logger(__name__)


class Stored(NamedTuple):
    """A message of the stream as it was delivered."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    body: bytes


class Damage(NamedTuple):
    """The first place where the archive is not what was written: its sequence, and what is wrong."""

    sequence: int
    what: str


class Gap(Later):
    """Messages between ``last``, the end of the archive, and ``first`` have to be stored before."""

    def __init__(self, last: int, first: int) -> None:
        super().__init__(f"the archive ends at {last}; what follows is on its way", seconds=0.2)
        self.last = last
        self.first = first


class Archive:
    """Stores messages and tells whether they are still what was stored."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def store(self, messages: Sequence[Stored]) -> int:
        """Store what is not there yet, all or nothing; how many were new.

        The stream forgets nothing, so its sequences have no gaps. Where one shows, another replica holds
        the messages before, or held them when it was killed: ``Gap``, and nothing is stored. That keeps the
        chain in the order of the stream.
        """
        async with writing(self._engine) as connection:
            await _one_writer(connection)
            last, previous = await _tip(connection)
            fresh = sorted({m.sequence: m for m in messages if m.sequence > last}.values())
            if [m.sequence for m in fresh] != list(range(last + 1, last + 1 + len(fresh))):
                raise Gap(last, fresh[0].sequence)
            rows = []
            for message in fresh:
                row = _row(message)
                previous = row["hash"] = chain(previous, row)
                rows.append(row)
            if rows:
                await connection.execute(insert(events), rows)
                for message in fresh:
                    await _project(connection, message)
            return len(rows)

    async def newest(self) -> int:
        """The highest sequence stored; 0 if there is none."""
        async with reading(self._engine) as connection:
            return (await _tip(connection))[0]

    async def verify(self) -> Damage | None:
        """Walk the whole chain; None if every row is what was written."""
        previous = GENESIS
        async with reading(self._engine) as connection:
            rows = await connection.stream(select(events).order_by(events.c.sequence))
            async for row in rows.mappings():
                expected = chain(previous, dict(row))
                if bytes(row["hash"]) != expected:
                    return Damage(row["sequence"], "the row or one before it was changed, removed or added")
                previous = expected
        return None

    async def rebuild(self) -> int:
        """Make the read model anew from the archive, in one transaction; how many events it took."""
        async with writing(self._engine) as connection:
            await _one_writer(connection)
            await connection.execute(delete(runs))
            rows = (await connection.execute(select(events).order_by(events.c.sequence))).mappings().all()
            for row in rows:
                headers = json.loads(row["headers"])
                message = Stored(row["sequence"], row["subject"], headers, bytes(row["body"]))
                await _project(connection, message)
            return len(rows)


def chain(previous: bytes, row: Mapping[str, Any]) -> bytes:
    """SHA-256 over the hash before and every stored field, each with its length."""
    digest = hashlib.sha256(previous)
    for name in ("sequence", "subject", "id", "type", "time", "headers", "body"):
        value = row[name]
        raw = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()


def _row(message: Stored) -> dict[str, Any]:
    key, kind = _place(message.subject)
    return {
        "sequence": message.sequence,
        "subject": message.subject,
        "repository_id": key.repository_id,
        "issue": key.issue,
        "run": key.run,
        "kind": kind,
        "id": message.headers.get("ce-id", ""),
        "type": message.headers.get("ce-type", ""),
        "time": message.headers.get("ce-time", ""),
        "headers": json.dumps(dict(message.headers), sort_keys=True),
        "body": message.body,
    }


def _place(subject: str) -> tuple[RunKey, str]:
    """Run and kind; a foreign subject under ``issues.`` is archived without them."""
    try:
        return parse_subject(subject)
    except ValueError:
        return RunKey(0, 0, ""), ""


async def _tip(connection: AsyncConnection) -> tuple[int, bytes]:
    newest = select(events.c.sequence, events.c.hash).order_by(events.c.sequence.desc()).limit(1)
    row = (await connection.execute(newest)).first()
    return (row[0], bytes(row[1])) if row else (0, GENESIS)


async def _one_writer(connection: AsyncConnection) -> None:
    """Replicas take turns: the chain has one end. SQLite's BEGIN IMMEDIATE does the same by itself."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")


async def _project(connection: AsyncConnection, message: Stored) -> None:
    """One event into the read model; an event that we cannot read is archived and left out here."""
    key, _ = _place(message.subject)
    try:
        fact = decode_fact(message.body)
        time = datetime.fromisoformat(message.headers["ce-time"])
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        logger.warning("archived but not understood", sequence=message.sequence, error=str(error))
        return
    found = (await connection.execute(select(runs).where(runs.c.run == key.run))).mappings().first()
    before = Row(**found) if found else None
    after = evolve(before, key, fact, time)
    if after is None:
        return
    if before is None:
        await connection.execute(insert(runs).values(**msgspec.structs.asdict(after)))
    else:
        values = msgspec.structs.asdict(after)
        await connection.execute(runs.update().where(runs.c.run == key.run).values(**values))
