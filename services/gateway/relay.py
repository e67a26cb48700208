"""From the inbox to the log: each issue's deliveries in their order, issues side by side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog

from services.gateway.act import Desk, Done
from services.gateway.deliveries import CLAIM_SECONDS, Deliveries, Pending
from services.gateway.heard import AnyHeard, decode_heard
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
OURS = frozenset({"not_configured", "app_key_rejected", "key_missing", "tampered", "rolled_back"})
"""Refusals that an operator can mend: the delivery is kept dead, to be tried anew, and not ignored."""

logger = structlog.get_logger(__name__)


def again_in(tries: int) -> float:
    """Seconds before the next try."""
    return min(wait_before(tries), LONGEST_WAIT)


class Relay:
    """Relays until its context ends; whatever was claimed and not settled is claimed again later.

    Args:
        wait: seconds before the next try, from the tries so far.
        max_tries: failures of one delivery before it is dead; outages do not count.
        look_seconds: how often the inbox is looked at for what is due.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        desk: Desk,
        metrics: Metrics,
        *,
        wait: Callable[[int], float] = again_in,
        max_tries: int = MAX_TRIES,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._deliveries = deliveries
        self._desk = desk
        self._metrics = metrics
        self._wait = wait
        self._max_tries = max_tries
        self._look_seconds = look_seconds
        self._working: dict[int, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Relay in the background."""
        async with self._deliveries.claiming():
            tasks = {asyncio.create_task(self._run()), asyncio.create_task(self._hold_claims())}
            try:
                yield
            finally:
                await _end(tasks)
                if self._working:
                    await asyncio.wait(self._working.values(), timeout=5)
                await _end({*self._working.values()})

    async def _run(self) -> None:
        while True:
            self._deliveries.arrived.clear()
            claimed: list[Pending] = []
            try:
                if len(self._working) < AT_ONCE:
                    claimed = await self._deliveries.claim(AT_ONCE - len(self._working))
            except Exception as error:  # noqa: BLE001  whatever it is: the relay goes on
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
        try:
            await asyncio.wait(waiting, timeout=self._look_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()

    async def _hold_claims(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 4)
            with contextlib.suppress(Exception):  # the next time, or another replica does what we did
                await self._deliveries.keep(tuple(self._working))

    async def _relay(self, pending: Pending) -> None:
        try:
            await self._settle(pending)
        except Exception as error:  # noqa: BLE001  the database; the error's text would quote the delivery
            # Its claim ends by itself; doing it again changes nothing.
            logger.error("a delivery was not settled", error=type(error).__name__)  # noqa: TRY400
        finally:
            self._working.pop(pending.sequence, None)

    async def _settle(self, pending: Pending) -> None:
        delivery = pending.delivery
        try:
            heard: AnyHeard = decode_heard(pending.message)
        except msgspec.DecodeError as error:
            logger.error("delivery unreadable", delivery=delivery, why=str(error))  # noqa: TRY400
            await self._deliveries.settle(pending.sequence, "dead", reason=f"unreadable: {error}")
            self._metrics.relayed("dead")
            return
        try:
            done = await self._desk.handle(heard)
        except Later as error:
            await self._put_off(pending, error.kind, str(error), error.seconds)
        except Refused as error:
            logger.warning("delivery refused", delivery=delivery, kind=error.kind, why=str(error))
            if error.kind in OURS:
                await self._deliveries.settle(pending.sequence, "dead", reason=f"{error.kind}: {error}")
                self._metrics.relayed("dead")
            else:
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
        if tries >= self._max_tries and kind not in OUTAGES:
            logger.error("delivery given up", delivery=pending.delivery, why=why)
            await self._deliveries.settle(pending.sequence, "dead", reason=f"{kind}: {why}")
            self._metrics.relayed("dead")
            return
        wait = max(self._wait(tries), seconds or 0.0)
        logger.warning("delivery waits", delivery=pending.delivery, seconds=round(wait, 1), why=why)
        await self._deliveries.postpone(pending.sequence, tries, wait, f"{kind}: {why}")
        self._metrics.relayed("postponed")


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
