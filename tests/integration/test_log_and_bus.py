"""The log and the bus on a real nats-server."""

import asyncio
import os
import signal
from datetime import UTC, datetime

import nats.js.errors
import pytest

from contracts.envelope import Recorded, RunKey, derive_run_id
from contracts.facts import Issue, Person, ProgressPosted, Repository, RunCancelled, RunRequested, Trigger
from contracts.subjects import DEAD_LETTERS, STREAM, issue_subjects, subject_of
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.errors import Conflict, Later, Refused
from services.kit.provision import provision

KEY = RunKey(7, 42, derive_run_id(datetime(2026, 1, 1, tzinfo=UTC), "opened"))
ALICE = Person(id=1, login="alice")
ASKED = RunRequested(
    app_id=1,
    installation_id=2,
    repository=Repository(id=7, full_name="acme/widgets"),
    issue=Issue(number=42, title="Crash", author=ALICE),
    trigger=Trigger(kind="opened", actor=ALICE, permission="write"),
)


async def test_a_run_reads_back_as_it_was_appended(bus: Bus) -> None:
    log = bus.log("gateway")
    first = await log.append(KEY, ASKED, expected=0, cause="delivery-1")
    await log.append(
        KEY, ProgressPosted(comment_id=5, url="u"), expected=first.sequence, cause=first.envelope.id
    )
    history = await log.read(KEY)
    assert [recorded.fact for recorded in history] == [ASKED, ProgressPosted(comment_id=5, url="u")]
    assert history[1].envelope.cause == history[0].envelope.id
    assert await log.read(KEY, after=history[0].sequence) == history[1:]


async def test_the_same_fact_said_again_is_the_one_that_stands(bus: Bus) -> None:
    log = bus.log("gateway")
    first = await log.append(KEY, ASKED, expected=0, cause="delivery-1")
    again = await log.append(KEY, ASKED, expected=0, cause="delivery-2")
    assert again.sequence == first.sequence
    assert again.envelope.cause == "delivery-1"


async def test_of_two_writers_with_the_same_expectation_one_meets_a_conflict(bus: Bus) -> None:
    log = bus.log("gateway")
    first = await log.append(KEY, ASKED, expected=0, cause="d")
    await log.append(KEY, ProgressPosted(comment_id=5, url="u"), expected=first.sequence, cause="a")
    with pytest.raises(Conflict):
        await log.append(KEY, RunCancelled(by=ALICE, why="stop"), expected=first.sequence, cause="b")


async def test_twenty_writers_at_once_lose_nothing_and_double_nothing(bus: Bus) -> None:
    log = bus.log("gateway")

    async def write(number: int) -> None:
        fact = ProgressPosted(comment_id=number, url="u")
        while True:
            history = await log.read(KEY)
            try:
                await log.append(
                    KEY, fact, expected=history[-1].sequence if history else 0, cause=str(number)
                )
            except Conflict:
                continue
            return

    await asyncio.gather(*(write(number) for number in range(20)))
    ids = [r.fact.comment_id for r in await log.read(KEY) if isinstance(r.fact, ProgressPosted)]
    assert sorted(ids) == list(range(20))


async def test_a_fact_over_the_limit_is_refused_before_it_is_sent(bus: Bus) -> None:
    with pytest.raises(Refused, match="over the limit"):
        await bus.log("x").append(KEY, RunCancelled(by=ALICE, why="x" * 300_000), expected=0, cause="d")


async def test_following_an_issue_yields_what_was_and_what_comes(bus: Bus) -> None:
    log = bus.log("gateway")
    first = await log.append(KEY, ASKED, expected=0, cause="d")
    seen: list[Recorded] = []

    async def follow() -> None:
        async for recorded in log.follow(issue_subjects(7, 42)):
            seen.append(recorded)
            if len(seen) == 2:
                return

    task = asyncio.create_task(follow())
    await log.append(KEY, ProgressPosted(comment_id=5, url="u"), expected=first.sequence, cause="a")
    await asyncio.wait_for(task, 10)
    assert [type(recorded.fact) for recorded in seen] == [RunRequested, ProgressPosted]


async def test_the_stream_refuses_to_forget(bus: Bus) -> None:
    js = bus.client.jetstream()
    await bus.log("gateway").append(KEY, ASKED, expected=0, cause="d")
    with pytest.raises(nats.js.errors.APIError):
        await js.purge_stream(STREAM)
    with pytest.raises(nats.js.errors.APIError):
        await js.delete_msg(STREAM, 1)


async def test_a_handler_that_asks_for_later_hears_the_fact_again(bus: Bus) -> None:
    tries: list[bool] = []
    done = asyncio.Event()

    async def handler(heard: Recorded, *, last_try: bool) -> None:
        tries.append(last_try)
        if len(tries) < 3:
            raise Later("not yet", seconds=0.1)
        done.set()

    await bus.hears("publisher", handler, workers=2)
    await bus.log("gateway").append(KEY, ASKED, expected=0, cause="d")
    await asyncio.wait_for(done.wait(), 20)
    assert tries == [False, False, False]


async def test_standing_in_line_for_long_is_nobodys_failure(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.bus.MAX_DELIVERIES", 3)
    tries: list[bool] = []
    done = asyncio.Event()

    async def handler(heard: Recorded, *, last_try: bool) -> None:
        tries.append(last_try)
        if len(tries) < 6:
            raise Later("all sandboxes are busy", seconds=0.01, kind="queued")
        done.set()

    await bus.hears("publisher", handler, workers=1)
    await bus.log("gateway").append(KEY, ASKED, expected=0, cause="d")
    await asyncio.wait_for(done.wait(), 20)
    assert not any(tries)


async def test_an_unreadable_message_becomes_a_dead_letter_and_others_go_on(bus: Bus) -> None:
    done = asyncio.Event()

    async def handler(heard: Recorded, *, last_try: bool) -> None:
        done.set()

    js = bus.client.jetstream()
    await js.publish(subject_of(KEY, ASKED), b"not json", headers={"ce-id": "x"})
    await bus.hears("publisher", handler, workers=1)
    await bus.log("gateway").append(RunKey(7, 43, KEY.run), ASKED, expected=0, cause="d")
    await asyncio.wait_for(done.wait(), 10)
    letter = await js.get_last_msg(DEAD_LETTERS, "dead.publisher." + subject_of(KEY, ASKED))
    assert (letter.headers or {})["Millrace-Dead-Because"].startswith("unreadable")


async def test_a_drifted_consumer_is_brought_back_to_what_the_code_wants(bus: Bus) -> None:
    js = bus.client.jetstream()
    info = await js.consumer_info(STREAM, "agent")
    await js.add_consumer(STREAM, info.config.evolve(ack_wait=1))
    await provision(bus.client)
    assert (await js.consumer_info(STREAM, "agent")).config.ack_wait == 30


async def test_acknowledged_facts_survive_a_killed_server(bus: Bus, nats_server: EmbeddedNats) -> None:
    await bus.log("gateway").append(KEY, ASKED, expected=0, cause="d")
    os.kill(nats_server.pid, signal.SIGKILL)
    await nats_server.ended()
    home, address = nats_server._home, nats_server.address
    async with EmbeddedNats(home, address) as again:
        other = Bus(again.url, "again", grace=1)
        await other.connect()
        assert [r.fact for r in await other.log("x").read(KEY)] == [ASKED]
        await other.close()
