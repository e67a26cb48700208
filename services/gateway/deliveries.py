"""The inbox in SQL: a delivery is answered after it is committed here, whatever else is up or down.

Commits are made in groups: while one is written, what arrives meanwhile waits for the next, together.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.gateway.heard import AnyHeard, Ignored, encode_heard
from services.gateway.tables import deliveries
from services.kit.errors import Later
from services.kit.sql import reading, writing

GROUP = 256
WAITING = 4096
"""Deliveries that may wait for their commit; more are answered 503."""
COMMIT_SECONDS = 2.5
"""How long a delivery waits for its commit; GitHub hangs up after 10."""
CLAIM_SECONDS = 20.0
HEALTH_SECONDS = 2.0

_ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(7361, hashtext('deliveries'))")

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


class Pending(msgspec.Struct, frozen=True):
    """A delivery that this replica has claimed for relaying; ``message`` is from ``encode_heard``."""

    sequence: int
    delivery: str
    message: bytes
    tries: int


class Deliveries:
    """Remembers, hands out and settles.

    Args:
        engine: the gateway's database.
        now: Unix seconds.
        commit_seconds: how long a delivery may wait for its commit.
    """

    _here: ClassVar[set[str]] = set()
    """The claimers of this process."""

    def __init__(
        self,
        engine: AsyncEngine,
        now: Callable[[], float] = time.time,
        *,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        self._engine = engine
        self._now = now
        self._commit_seconds = commit_seconds
        self._queue: asyncio.Queue[tuple[New, asyncio.Future[Remembered]]] = asyncio.Queue(WAITING)
        self._claimer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._looking: asyncio.Task[None] | None = None
        self.arrived = asyncio.Event()
        """Set after each commit that left something to relay."""

    async def remember(self, new: New) -> Remembered:
        """Commit it, once; ``Later`` when the database does not take it in time."""
        future: asyncio.Future[Remembered] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((new, future))
            return await asyncio.wait_for(future, self._commit_seconds)
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
                await asyncio.wait_for(self._queue.join(), self._commit_seconds)
            task.cancel()
            await asyncio.wait({task})

    async def _write(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                answers = await self._commit([new for new, _ in group])
            except Exception as error:  # noqa: BLE001  whatever it is: the next group must still be written
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
        async with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                # One replica at a time: the order of sequences is then that of commits, and two replicas
                # that got the same deliveries in another order do not lock each other out.
                await connection.execute(_ONE_AT_A_TIME)
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
        async with writing(self._engine) as connection:
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
            .returning(deliveries.c.sequence, deliveries.c.delivery, deliveries.c.message, deliveries.c.tries)
        )
        async with writing(self._engine) as connection:
            rows = (await connection.execute(claimed)).all()
        return [
            Pending(row.sequence, row.delivery, bytes(row.message or b""), row.tries)
            for row in sorted(rows, key=lambda row: row.sequence)
        ]

    async def keep(self, sequences: Sequence[int]) -> None:
        """Hold these claims for another while."""
        if sequences:
            await self._update(sequences, claimed_until=self._now() + CLAIM_SECONDS)

    @contextlib.asynccontextmanager
    async def claiming(self) -> AsyncIterator[None]:
        """Claims are made in here. First those of processes that are no more are free; in the end, ours."""
        self._here.add(self._claimer)
        await self._release_dead_claims()
        try:
            yield
        finally:
            self._here.discard(self._claimer)
            with contextlib.suppress(SQLAlchemyError, OSError):  # they end by themselves
                await self._release([self._claimer])

    async def _release_dead_claims(self) -> None:
        async with writing(self._engine) as connection:
            claimers = sa.select(deliveries.c.claimed_by).where(deliveries.c.state == "pending").distinct()
            names = (await connection.execute(claimers)).scalars().all()
        await self._release([name for name in names if self._is_gone(name)])

    async def _release(self, claimers: Sequence[str]) -> None:
        if claimers:
            theirs = deliveries.c.claimed_by.in_(claimers) & (deliveries.c.state == "pending")
            async with writing(self._engine) as connection:
                await connection.execute(sa.update(deliveries).where(theirs).values(claimed_until=0.0))

    def _is_gone(self, claimer: str) -> bool:
        """Whether it was a process of this machine that is no more. A container's is 1 in every life."""
        host, _, process = claimer.partition(":")
        number = process.partition(":")[0]
        if host != socket.gethostname() or not number.isdecimal():
            return False
        return claimer not in self._here if int(number) == os.getpid() else not _alive(int(number))

    async def settle(self, sequence: int, state: State, *, reason: str = "", run: str = "") -> None:
        """It is done with. What was settled before, by whoever held the claim, stays as it is."""
        await self._update([sequence], state=state, reason=reason[:500], run=run)

    async def postpone(self, sequence: int, tries: int, seconds: float, why: str) -> None:
        """Again in ``seconds``."""
        await self._update(
            [sequence], tries=tries, reason=why[:500], due_at=self._now() + seconds, claimed_until=0.0
        )

    async def revive(self, delivery: str) -> bool:
        """Try a dead one anew; False if there is no such delivery, or it is not dead."""
        dead = (deliveries.c.delivery == delivery) & (deliveries.c.state == "dead")
        again = (
            sa.update(deliveries).where(dead).values(state="pending", tries=0, due_at=0.0, claimed_until=0.0)
        )
        async with writing(self._engine) as connection:
            revived = (await connection.execute(again.returning(deliveries.c.sequence))).all()
        self.arrived.set()
        return bool(revived)

    async def _update(self, sequences: Sequence[int], **values: Any) -> None:
        unsettled = deliveries.c.sequence.in_(sequences) & (deliveries.c.state == "pending")
        async with writing(self._engine) as connection:
            await connection.execute(sa.update(deliveries).where(unsettled).values(**values))

    # --- looking ----------------------------------------------------------------------------------------

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The newest deliveries, without their text."""
        names = ("delivery", "event", "action", "state", "reason", "repository_id", "issue", "run")
        wanted = sa.select(*(deliveries.c[name] for name in (*names, "received_at", "tries")))
        async with reading(self._engine) as connection:
            rows = await connection.execute(wanted.order_by(deliveries.c.sequence.desc()).limit(limit))
            return [dict(row) | {"received_at": _aware(row["received_at"])} for row in rows.mappings()]

    async def health(self) -> str:
        """``ok`` if deliveries can be written, or what is wrong; in ``HEALTH_SECONDS`` at most."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        done, _ = await asyncio.wait({self._looking}, timeout=HEALTH_SECONDS)
        if not done:
            return "the inbox does not answer"
        error = self._looking.exception()
        return "ok" if error is None else f"the inbox does not answer ({_name(error)})"

    async def _look(self) -> None:
        async with writing(self._engine) as connection:
            await connection.execute(sa.select(deliveries.c.sequence).limit(1))

    async def backlog(self) -> tuple[int, float]:
        """How many wait to be relayed, and for how many seconds the oldest has."""
        pending = deliveries.c.state == "pending"
        wanted = sa.select(sa.func.count(), sa.func.min(deliveries.c.received_at)).where(pending)
        async with reading(self._engine) as connection:
            count, oldest = (await connection.execute(wanted)).one()
        if oldest is None:
            return 0, 0.0
        return count, max(self._now() - _aware(oldest).timestamp(), 0.0)


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


def _aware(time: datetime) -> datetime:
    """SQLite keeps no time zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _name(error: BaseException) -> str:
    """The error's type; its text would quote the statement's values."""
    return type(getattr(error, "orig", None) or error).__name__
