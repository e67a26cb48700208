"""From the inbox to the log: each issue's deliveries in their order, issues side by side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from sqlalchemy.exc import SQLAlchemyError

from services.gateway.act import Desk, Done
from services.gateway.deliveries import CLAIM_SECONDS, Deliveries, Pending
from services.gateway.metrics import Metrics
from services.kit.errors import Later, Refused
from services.kit.retry import wait_before

AT_ONCE = 16
LOOK_SECONDS = 1.0
"""How often the inbox is looked at for what is due again, or came in through another replica that died."""
MAX_TRIES = 12
LONGEST_WAIT = 30.0
OUTAGES = frozenset(
    {"log_unavailable", "stream_full", "vault_unavailable", "github_unreachable", "github_unavailable",
     "github_rate_limited", "no_answer", "no_responders"}
)  # fmt: skip
"""Somebody else is down: that is waited out, however long it takes."""

logger = structlog.get_logger(__name__)


class Relay:
    """Relays until its context ends; whatever was claimed and not settled is claimed again later."""

    def __init__(self, deliveries: Deliveries, desk: Desk, metrics: Metrics) -> None:
        self._deliveries = deliveries
        self._desk = desk
        self._metrics = metrics
        self._working: dict[int, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Relay in the background."""
        await self._deliveries.release_dead_claims()
        tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._hold_claims())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            if self._working:
                await asyncio.wait(self._working.values(), timeout=5)
            for task in self._working.values():
                task.cancel()

    async def _run(self) -> None:
        while True:
            self._deliveries.arrived.clear()
            claimed: list[Pending] = []
            try:
                if len(self._working) < AT_ONCE:
                    claimed = await self._deliveries.claim(AT_ONCE - len(self._working))
            except (SQLAlchemyError, OSError) as error:
                logger.error("the inbox cannot be read", error=type(error).__name__)  # noqa: TRY400
            for pending in claimed:
                self._working[pending.sequence] = asyncio.create_task(self._relay(pending))
            await self._until_there_is_work()

    async def _until_there_is_work(self) -> None:
        arrived = asyncio.create_task(self._deliveries.arrived.wait())
        # With all hands busy, a free hand is what there is to wait for; a settled head may free the next one.
        waiting: set[asyncio.Task[object]] = {*self._working.values()}
        if len(self._working) < AT_ONCE:
            waiting.add(arrived)
        await asyncio.wait(waiting, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()

    async def _hold_claims(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 4)
            with contextlib.suppress(SQLAlchemyError, OSError):
                await self._deliveries.keep(tuple(self._working))

    async def _relay(self, pending: Pending) -> None:
        try:
            await self._settle(pending)
        except (SQLAlchemyError, OSError) as error:
            # Its claim ends by itself; doing it again changes nothing.
            logger.error("a delivery was not settled", error=type(error).__name__)  # noqa: TRY400
        finally:
            self._working.pop(pending.sequence, None)

    async def _settle(self, pending: Pending) -> None:
        delivery = pending.heard.delivery
        try:
            done = await self._desk.handle(pending.heard)
        except Later as error:
            await self._put_off(pending, error.kind, str(error), error.seconds)
        except Refused as error:
            logger.warning("delivery refused", delivery=delivery, kind=error.kind, why=str(error))
            await self._deliveries.settle(pending.sequence, "ignored", reason=error.kind)
            self._metrics.relayed("refused")
        except Exception as error:
            logger.exception("a delivery could not be handled", delivery=delivery)
            await self._put_off(pending, "failed", type(error).__name__, None)
        else:
            if isinstance(done, Done):
                logger.info("delivery relayed", delivery=delivery, run=done.run)
                await self._deliveries.settle(pending.sequence, "relayed", run=done.run)
                self._metrics.relayed("relayed")
            else:
                logger.info("delivery ignored", delivery=delivery, reason=done.reason)
                await self._deliveries.settle(pending.sequence, "ignored", reason=done.reason)
                self._metrics.relayed("ignored")

    async def _put_off(self, pending: Pending, kind: str, why: str, seconds: float | None) -> None:
        tries = pending.tries + 1
        if tries >= MAX_TRIES and kind not in OUTAGES:
            logger.error("delivery given up", delivery=pending.heard.delivery, why=why)
            await self._deliveries.settle(pending.sequence, "dead", reason=f"{kind}: {why}")
            self._metrics.relayed("dead")
            return
        wait = max(min(wait_before(tries), LONGEST_WAIT), seconds or 0.0)
        logger.warning("delivery waits", delivery=pending.heard.delivery, seconds=round(wait, 1), why=why)
        await self._deliveries.postpone(pending.sequence, tries, wait, f"{kind}: {why}")
        self._metrics.relayed("postponed")
