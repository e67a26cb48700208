"""The inbox on a real database: remembered once, claimed by one, settled once."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts import facts as f
from services.gateway.deliveries import CLAIM_SECONDS, WAITING, Deliveries, New, Pending
from services.gateway.heard import Commented, Ignored, Opened, decode_heard
from services.gateway.tables import deliveries
from services.kit.errors import Later
from services.kit.settings import load
from services.kit.sql import open_database

WREN = f.Person(id=1, login="wren")
AT = datetime(2026, 11, 1, 10, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = await open_database(load({}, home=tmp_path), "gateway")
    yield engine
    await engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def inbox(engine: AsyncEngine, clock: Clock) -> AsyncIterator[Deliveries]:
    inbox = Deliveries(engine, clock)
    async with inbox.writing(), inbox.claiming():
        yield inbox


def opened(delivery: str, issue: int = 1) -> New:
    heard = Opened(
        delivery=delivery,
        app_id=9,
        installation_id=90,
        repository=f.Repository(id=7, full_name="acme/calc"),
        issue=f.Issue(number=issue, title="t", author=WREN),
        actor=WREN,
        at=AT,
    )
    return New(delivery=delivery, event="issues", action="opened", heard=heard)


def talk(delivery: str, issue: int = 1) -> New:
    new = opened(delivery, issue)
    assert isinstance(new.heard, Opened)
    heard = Commented(
        delivery=delivery,
        app_id=9,
        installation_id=90,
        repository=new.heard.repository,
        issue=new.heard.issue,
        actor=WREN,
        at=AT,
        comment_id=1,
        text="t",
    )
    return New(delivery=delivery, event="issue_comment", action="created", heard=heard, only_an_answer=True)


def ids(claimed: list[Pending]) -> list[str]:
    return [each.delivery for each in claimed]


# --- remembering --------------------------------------------------------------------------------------


async def test_a_group_is_written_at_once_and_each_delivery_once(inbox: Deliveries) -> None:
    sent = [opened(f"d{number % 50}", issue=number % 50) for number in range(200)]
    answers = await asyncio.gather(*(inbox.remember(new) for new in sent))
    statuses = [answer.status for answer in answers]
    assert (statuses.count("accepted"), statuses.count("duplicate")) == (50, 150)
    assert len(await inbox.recent(1000)) == 50


async def test_a_comment_matters_only_where_a_run_was_or_may_be(inbox: Deliveries) -> None:
    assert (await inbox.remember(talk("c1"))).reason == "no_command"
    await inbox.remember(opened("d1"))
    assert (await inbox.remember(talk("c2"))).status == "accepted"
    await inbox.remember(opened("d2", issue=2))
    (_, second) = await inbox.claim(10)
    await inbox.settle(second.sequence, "ignored", reason="not_authorised")
    assert (await inbox.remember(talk("c3", issue=2))).reason == "no_command"
    await inbox.note_run("operator-r", 7, 2, "r")
    await inbox.note_run("operator-r", 7, 2, "r")  # said again: still one
    assert (await inbox.remember(talk("c4", issue=2))).status == "accepted"
    assert [row["run"] for row in await inbox.recent(100)].count("r") == 1


async def test_what_arrived_before_the_end_is_still_written(engine: AsyncEngine) -> None:
    inbox = Deliveries(engine)
    async with inbox.writing():
        waiting = [asyncio.create_task(inbox.remember(opened(f"d{number}"))) for number in range(1000)]
        await asyncio.sleep(0)  # they stand in the queue, none is written
    assert {(await task).status for task in waiting} == {"accepted"}
    assert len(await inbox.recent(2000)) == 1000


async def test_more_than_may_wait_are_put_off_at_once(engine: AsyncEngine) -> None:
    inbox = Deliveries(engine, commit_seconds=0.2)  # and nobody writes
    waiting = [asyncio.create_task(inbox.remember(opened(f"d{number}"))) for number in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Later, match="too many"):
        await inbox.remember(opened("one more"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {Later}


async def test_times_are_told_with_their_zone(inbox: Deliveries, clock: Clock) -> None:
    await inbox.remember(New(delivery="d", event="push", action="", heard=Ignored(reason="event_not_used")))
    (row,) = await inbox.recent(1)
    assert row["received_at"] == datetime.fromtimestamp(clock.now, UTC)


# --- claiming -----------------------------------------------------------------------------------------


async def test_of_each_issue_the_oldest_is_claimed_and_the_next_when_that_is_settled(
    inbox: Deliveries,
) -> None:
    for new in (opened("a1", 1), opened("a2", 1), opened("b1", 2), opened("a3", 1), opened("b2", 2)):
        await inbox.remember(new)
    first = await inbox.claim(10)
    assert ids(first) == ["a1", "b1"]
    assert decode_heard(first[0].message).delivery == "a1"
    assert await inbox.claim(10) == []
    await inbox.settle(first[0].sequence, "relayed", run="r")
    assert ids(await inbox.claim(10)) == ["a2"]
    await inbox.postpone(first[1].sequence, 1, 5.0, "github away")
    assert await inbox.claim(10) == []


async def test_what_is_put_off_holds_up_its_issue_until_it_is_due(inbox: Deliveries, clock: Clock) -> None:
    await inbox.remember(opened("a1"))
    await inbox.remember(opened("a2"))
    (first,) = await inbox.claim(10)
    await inbox.postpone(first.sequence, 1, 5.0, "github away")
    clock.now += 4.9
    assert await inbox.claim(10) == []
    clock.now += 0.2
    (again,) = await inbox.claim(10)
    assert (again.delivery, again.tries) == ("a1", 1)


async def test_replicas_that_claim_at_once_never_claim_the_same(engine: AsyncEngine) -> None:
    replicas = [Deliveries(engine) for _ in range(4)]
    async with replicas[0].writing():
        await asyncio.gather(*(replicas[0].remember(opened(f"d{n}", issue=n)) for n in range(300)))
    claimed: list[str] = []

    async def work(replica: Deliveries) -> None:
        while mine := await replica.claim(7):
            claimed.extend(ids(mine))

    await asyncio.gather(*(work(replica) for replica in replicas))
    assert len(claimed) == len(set(claimed)) == 300


async def test_a_claim_ends_unless_it_is_kept(inbox: Deliveries, clock: Clock) -> None:
    await inbox.remember(opened("d1"))
    (held,) = await inbox.claim(1)
    clock.now += CLAIM_SECONDS - 1
    await inbox.keep([held.sequence])
    clock.now += CLAIM_SECONDS - 1
    assert await inbox.claim(1) == []
    clock.now += 2
    assert ids(await inbox.claim(1)) == ["d1"]


async def test_what_another_settled_meanwhile_stays_as_it_is(inbox: Deliveries) -> None:
    await inbox.remember(opened("d1"))
    (held,) = await inbox.claim(1)
    await inbox.settle(held.sequence, "relayed", run="r1")
    await inbox.settle(held.sequence, "ignored", reason="already_requested")
    await inbox.postpone(held.sequence, 3, 1.0, "late")
    (row,) = await inbox.recent(1)
    assert (row["state"], row["run"], row["tries"]) == ("relayed", "r1", 0)


async def test_at_an_orderly_end_claims_are_given_back(engine: AsyncEngine) -> None:
    first, second = Deliveries(engine), Deliveries(engine)
    async with first.writing(), first.claiming():
        await first.remember(opened("d1"))
        assert ids(await first.claim(1)) == ["d1"]
        assert await second.claim(1) == []
    assert ids(await second.claim(1)) == ["d1"]


@pytest.mark.parametrize(
    ("claimer", "free"),
    [
        pytest.param("{host}:99999999:a", True, id="a process that is no more"),
        pytest.param("{host}:{own}:a", True, id="one that had our number before us"),
        pytest.param("{host}:{parent}:a", False, id="one that lives"),
        pytest.param("elsewhere:99999999:a", False, id="one on another machine"),
        pytest.param("garbage", False, id="nobody"),
    ],
)
async def test_claims_of_the_dead_are_free_at_the_start(
    engine: AsyncEngine, claimer: str, free: bool
) -> None:
    inbox = Deliveries(engine)
    async with inbox.writing():
        await inbox.remember(opened("d1"))
    name = claimer.format(host=socket.gethostname(), own=os.getpid(), parent=os.getppid())
    async with engine.begin() as connection:
        claim = sa.update(deliveries).values(claimed_by=name, claimed_until=time.time() + CLAIM_SECONDS)
        await connection.execute(claim)
    async with inbox.claiming():
        assert ids(await inbox.claim(1)) == (["d1"] if free else [])


async def test_a_replica_in_the_same_process_keeps_its_claims(engine: AsyncEngine) -> None:
    first, second = Deliveries(engine), Deliveries(engine)
    async with first.writing(), first.claiming():
        await first.remember(opened("d1"))
        await first.claim(1)
        async with second.claiming():
            assert await second.claim(1) == []


@pytest.mark.timeout(60)
async def test_a_busy_issue_with_a_long_past_is_claimed_quickly(engine: AsyncEngine) -> None:
    row = {
        "event": "issues", "action": "opened", "reason": "", "repository_id": 7, "issue": 1, "run": "",
        "received_at": AT, "message": b"{}",
    }  # fmt: skip
    past = [row | {"delivery": f"p{number}", "state": "relayed"} for number in range(5000)]
    waiting = [row | {"delivery": f"w{number}", "state": "pending"} for number in range(2000)]
    async with engine.begin() as connection:
        await connection.execute(sa.insert(deliveries), [*past, *waiting])
    inbox = Deliveries(engine)
    started = time.perf_counter()
    for number in range(20):
        (head,) = await inbox.claim(16)
        assert head.delivery == f"w{number}"
        await inbox.settle(head.sequence, "relayed")
    # Without an index the past is looked through for each of those that wait, which takes twice that.
    assert time.perf_counter() - started < 10


# --- dead ---------------------------------------------------------------------------------------------


async def test_only_a_dead_delivery_can_be_tried_anew(inbox: Deliveries) -> None:
    await inbox.remember(opened("d1"))
    assert not await inbox.revive("d1")
    (held,) = await inbox.claim(1)
    await inbox.postpone(held.sequence, 11, 0.0, "failed")
    await inbox.settle(held.sequence, "dead", reason="failed: 12 times")
    assert await inbox.claim(1) == []
    assert await inbox.revive("d1")
    assert not await inbox.revive("d1")
    assert not await inbox.revive("unknown")
    (again,) = await inbox.claim(1)
    assert (again.delivery, again.tries) == ("d1", 0)


async def test_a_dead_delivery_holds_up_nothing(inbox: Deliveries) -> None:
    await inbox.remember(opened("d1"))
    await inbox.remember(opened("d2"))
    (held,) = await inbox.claim(1)
    await inbox.settle(held.sequence, "dead", reason="failed")
    assert ids(await inbox.claim(1)) == ["d2"]


async def test_the_backlog_tells_how_many_wait_and_how_long_the_oldest_has(
    inbox: Deliveries, clock: Clock
) -> None:
    assert await inbox.backlog() == (0, 0.0)
    await inbox.remember(opened("d1"))
    clock.now += 30
    await inbox.remember(opened("d2", 2))
    waiting, lag = await inbox.backlog()
    assert waiting == 2
    assert 29 < lag < 31
