"""What the history tells: the list of issues and the events of one."""

import json
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from services.history.tables import events, runs
from services.kit.sql import reading


class AskIssues(msgspec.Struct, frozen=True):
    """The newest runs, at most ``limit``."""

    limit: int = 100


class AskEvents(msgspec.Struct, frozen=True):
    """All events of one issue, by the repository's name today or at any run."""

    full_name: str
    number: int


class Queries:
    """Answers as JSON bytes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def issues(self, body: bytes) -> bytes:
        """A list of runs, newest first."""
        ask = msgspec.json.decode(body or b"{}", type=AskIssues)
        wanted = select(runs).order_by(runs.c.updated_at.desc()).limit(max(1, min(ask.limit, 1000)))
        async with reading(self._engine) as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        return msgspec.json.encode([dict(row) for row in rows])

    async def events(self, body: bytes) -> bytes:
        """``repository_id`` and ``events``, or ``error``."""
        ask = msgspec.json.decode(body, type=AskEvents)
        async with reading(self._engine) as connection:
            known = select(runs.c.repository_id).where(
                runs.c.full_name == ask.full_name, runs.c.number == ask.number
            )
            repository_id = await connection.scalar(known.order_by(runs.c.updated_at.desc()).limit(1))
            if repository_id is None:
                return msgspec.json.encode({"error": "unknown issue"})
            wanted = select(events).where(
                events.c.repository_id == repository_id, events.c.issue == ask.number
            )
            rows = (await connection.execute(wanted.order_by(events.c.sequence))).mappings().all()
        return msgspec.json.encode({"repository_id": repository_id, "events": [_event(row) for row in rows]})


def _event(row: Any) -> dict[str, Any]:
    headers = json.loads(row["headers"])
    return {
        "sequence": row["sequence"],
        "id": row["id"],
        "type": row["type"],
        "time": row["time"],
        "source": headers.get("ce-source", ""),
        "cause": headers.get("ce-cause", ""),
        "run": row["run"],
        "data": json.loads(bytes(row["body"])),
    }
