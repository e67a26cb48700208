"""The inbox in SQL: a delivery is answered after it is committed here, whatever else is up or down.

Commits are made in groups: while one is written, what arrives meanwhile waits for the next, together.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.gateway.heard import AnyHeard, Ignored, decode_heard, encode_heard
from services.gateway.tables import deliveries
from services.kit.errors import Later

GROUP = 256
WAITING = 4096
"""Deliveries that may wait for their commit; more are answered 503."""
COMMIT_SECONDS = 4.0
"""How long a delivery waits for its commit; GitHub hangs up after 10."""
CLAIM_SECONDS = 20.0

State = Literal["pending", "relayed", "ignored", "dead"]

logger = structlog.get_logger(__name__)


class New(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery to be remembered.

    ``only_an_answer`` means that it matters only to an issue that had a run before; elsewhere it is ignored.
    """

    delivery: str
    event: str
    action: str
    heard: AnyHeard | Ignored
    only_an_answer: bool = False


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: new and pending (``accepted``), known already, or ignored for ``reason``."""

    status: Literal["accepted", "duplicate", "ignored"]
    reason: str | None = None


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this replica has claimed for relaying."""

    sequence: int
    heard: AnyHeard
    tries: int


class Deliveries:
    """Remembers, hands out and settles.

    Args:
        engine: the gateway's database.
        now: Unix seconds.
    """

    def __init__(self, engine: AsyncEngine, now: Any = time.time) -> None:
        self._engine = engine
        self._now = now
        self._queue: asyncio.Queue[tuple[New, asyncio.Future[Remembered]]] = asyncio.Queue(WAITING)
        self._claimer = f"{socket.gethostname()}:{os.getpid()}"
        self.arrived = asyncio.Event()
        """Set after each commit that left something to relay."""

    async def remember(self, new: New) -> Remembered:
        """Commit it, once; ``Later`` when the database does not take it in time."""
        future: asyncio.Future[Remembered] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((new, future))
            return await asyncio.wait_for(future, COMMIT_SECONDS)
        except asyncio.QueueFull as error:
            raise Later("too many deliveries wait for the database", kind="inbox_unavailable") from error
        except TimeoutError as error:
            raise Later("the database does not answer", kind="inbox_unavailable") from error

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Commit what arrives until the context ends; what arrived by then is still committed."""
        task = asyncio.create_task(self._write())
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), COMMIT_SECONDS)
            task.cancel()

    async def _write(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                answers = await self._commit([new for new, _ in group])
            except (SQLAlchemyError, OSError) as error:
                logger.error("deliveries were not stored", count=len(group), error=_name(error))  # noqa: TRY400
                for _, future in group:
                    if not future.done():
                        future.set_exception(
                            Later("the database refuses deliveries", kind="inbox_unavailable")
                        )
            else:
                for (_, future), answer in zip(group, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
            finally:
                for _ in group:
                    self._queue.task_done()

    async def _commit(self, group: Sequence[New]) -> list[Remembered]:
        answers: dict[str, Remembered] = {}
        rows = []
        async with self._engine.begin() as connection:
            for new in group:
                if new.delivery not in answers:
                    heard = new.heard
                    if (
                        not isinstance(heard, Ignored)
                        and new.only_an_answer
                        and not await _had_run(connection, heard)
                    ):
                        heard = Ignored(reason="no_command")
                    rows.append(self._row(new, heard))
                    ignored = isinstance(heard, Ignored)
                    answers[new.delivery] = Remembered(
                        status="ignored" if ignored else "accepted",
                        reason=heard.reason if isinstance(heard, Ignored) else None,
                    )
            stored = await _insert(connection, rows)
        if any(row["state"] == "pending" and row["delivery"] in stored for row in rows):
            self.arrived.set()
        results = []
        for new in group:
            known = new.delivery not in stored
            results.append(Remembered(status="duplicate") if known else answers[new.delivery])
            stored.discard(new.delivery)  # the same id twice in one group: the second is the duplicate
        return results

    def _row(self, new: New, heard: AnyHeard | Ignored) -> dict[str, Any]:
        ignored = isinstance(heard, Ignored)
        return {
            "delivery": new.delivery,
            "event": new.event,
            "action": new.action,
            "state": "ignored" if ignored else "pending",
            "reason": heard.reason if isinstance(heard, Ignored) else "",
            "repository_id": None if isinstance(heard, Ignored) else heard.repository.id,
            "issue": None if isinstance(heard, Ignored) else heard.issue.number,
            "message": None if isinstance(heard, Ignored) else encode_heard(heard),
            "received_at": datetime.fromtimestamp(self._now(), UTC),
        }

    async def note_run(self, delivery: str, repository_id: int, issue: int, run: str) -> None:
        """Remember a run that an operator started, so that answers on its issue are heard."""
        row = {
            "delivery": delivery, "event": "operator", "action": "", "state": "relayed", "reason": "",
            "repository_id": repository_id, "issue": issue, "message": None, "run": run,
            "received_at": datetime.fromtimestamp(self._now(), UTC),
        }  # fmt: skip
        async with self._engine.begin() as connection:
            await _insert(connection, [row])

    # --- relaying ---------------------------------------------------------------------------------------

    async def claim(self, limit: int) -> list[Pending]:
        """The oldest pending delivery of each issue that is due and nobody else works on, claimed."""
        now = self._now()
        earlier = deliveries.alias()
        heads = (
            sa.select(deliveries.c.sequence)
            .where(
                deliveries.c.state == "pending",
                deliveries.c.due_at <= now,
                deliveries.c.claimed_until <= now,
                ~sa.exists().where(
                    earlier.c.repository_id == deliveries.c.repository_id,
                    earlier.c.issue == deliveries.c.issue,
                    earlier.c.sequence < deliveries.c.sequence,
                    earlier.c.state == "pending",
                ),
            )
            .order_by(deliveries.c.sequence)
            .limit(limit)
        )
        claimed = (
            sa.update(deliveries)
            .where(deliveries.c.sequence.in_(heads), deliveries.c.claimed_until <= now)
            .values(claimed_by=self._claimer, claimed_until=now + CLAIM_SECONDS)
            .returning(deliveries.c.sequence, deliveries.c.message, deliveries.c.tries)
        )
        async with self._engine.begin() as connection:
            rows = (await connection.execute(claimed)).all()
        return [
            Pending(sequence=row.sequence, heard=decode_heard(bytes(row.message)), tries=row.tries)
            for row in sorted(rows, key=lambda row: row.sequence)
        ]

    async def keep(self, sequences: Sequence[int]) -> None:
        """Hold these claims for another while."""
        if sequences:
            await self._update(sequences, claimed_until=self._now() + CLAIM_SECONDS)

    async def release_dead_claims(self) -> None:
        """Give back what a process of this machine claimed that is no more: called at start."""
        host, _, own = self._claimer.rpartition(":")
        async with self._engine.begin() as connection:
            names = (
                await connection.execute(
                    sa.select(deliveries.c.claimed_by).where(deliveries.c.state == "pending").distinct()
                )
            ).scalars()
            gone = [
                name
                for name in names
                if name.startswith(f"{host}:") and (name.endswith(f":{own}") or not _alive(name))
            ]
            if gone:
                of_the_dead = sa.update(deliveries).where(deliveries.c.claimed_by.in_(gone))
                await connection.execute(of_the_dead.values(claimed_until=0.0))

    async def settle(self, sequence: int, state: State, *, reason: str = "", run: str = "") -> None:
        """It is done with."""
        await self._update([sequence], state=state, reason=reason[:500], run=run)

    async def postpone(self, sequence: int, tries: int, seconds: float, why: str) -> None:
        """Again in ``seconds``."""
        await self._update(
            [sequence], tries=tries, reason=why[:500], due_at=self._now() + seconds, claimed_until=0.0
        )

    async def _update(self, sequences: Sequence[int], **values: Any) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.update(deliveries).where(deliveries.c.sequence.in_(sequences)).values(**values)
            )

    # --- looking ----------------------------------------------------------------------------------------

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The newest deliveries, without their text."""
        names = ("delivery", "event", "action", "state", "reason", "repository_id", "issue", "run")
        wanted = sa.select(*(deliveries.c[name] for name in (*names, "received_at", "tries")))
        async with self._engine.connect() as connection:
            rows = await connection.execute(wanted.order_by(deliveries.c.sequence.desc()).limit(limit))
            return [dict(row) for row in rows.mappings()]

    async def backlog(self) -> tuple[int, float]:
        """How many wait to be relayed, and for how many seconds the oldest has."""
        pending = deliveries.c.state == "pending"
        wanted = sa.select(sa.func.count(), sa.func.min(deliveries.c.received_at)).where(pending)
        async with self._engine.connect() as connection:
            count, oldest = (await connection.execute(wanted)).one()
        if oldest is None:
            return 0, 0.0
        oldest = oldest if oldest.tzinfo else oldest.replace(tzinfo=UTC)
        return count, max(self._now() - oldest.timestamp(), 0.0)


async def _insert(connection: AsyncConnection, rows: list[dict[str, Any]]) -> set[str]:
    """The delivery ids that were not there before."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(deliveries).on_conflict_do_nothing(index_elements=["delivery"])
    stored = await connection.execute(statement.returning(deliveries.c.delivery), rows)
    return set(stored.scalars())


async def _had_run(connection: AsyncConnection, heard: AnyHeard) -> bool:
    known = sa.select(sa.literal(1)).where(
        deliveries.c.repository_id == heard.repository.id,
        deliveries.c.issue == heard.issue.number,
        deliveries.c.state.in_(("pending", "relayed")),
    )
    return await connection.scalar(known.limit(1)) is not None


def _alive(claimer: str) -> bool:
    try:
        os.kill(int(claimer.rpartition(":")[2]), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        return True
    return True


def _name(error: Exception) -> str:
    """The error's type; its text would quote the statement's values."""
    return type(getattr(error, "orig", None) or error).__name__
