"""The archive on real SQLite, fed from a real nats-server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.codec import encode_fact
from contracts.facts import ProgressPosted
from contracts.subjects import STREAM, history_subject
from services.history.__main__ import run
from services.history.archive import Archive, Stored
from services.history.tables import events, runs
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.errors import Later
from services.kit.provision import ACK_WAIT
from services.kit.settings import load
from services.kit.sql import open_database
from tests.integration.test_log_and_bus import ASKED, KEY

SUBJECT = f"issues.7.42.{KEY.run}.progress.posted"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = await open_database(load({}, home=tmp_path), "history")
    yield engine
    await engine.dispose()


def message(sequence: int, subject: str = SUBJECT) -> Stored:
    headers = {"ce-id": str(sequence), "ce-type": "t", "ce-time": "2026-01-01T00:00:00Z"}
    return Stored(sequence, subject, headers, b'{"type":"progress.posted.v1","comment_id":1,"url":"u"}')


async def test_what_was_appended_can_be_asked_for(
    nats_server: EmbeddedNats, bus: Bus, tmp_path: Path
) -> None:
    own = Bus(nats_server.url, "history", grace=1)
    await own.connect()
    log = bus.log("gateway")
    async with run(load({}, home=tmp_path), own):
        first = await log.append(KEY, ASKED, expected=0, cause="d")
        await log.append(KEY, ProgressPosted(comment_id=5, url="u"), expected=first.sequence, cause="a")
        question = json.dumps({"full_name": "acme/widgets", "number": 42}).encode()
        answer: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while len(answer.get("events", ())) < 2:
                answer = json.loads(await bus.ask(history_subject("events"), question))
        issues = json.loads(await bus.ask(history_subject("issues"), b"{}"))
    assert [event["type"] for event in answer["events"]] == [
        "dev.millrace.run.requested.v1",
        "dev.millrace.progress.posted.v1",
    ]
    assert [(issue["full_name"], issue["number"], issue["state"]) for issue in issues] == [
        ("acme/widgets", 42, "requested")
    ]


async def test_what_a_killed_replica_held_is_read_from_the_stream(
    nats_server: EmbeddedNats, bus: Bus, tmp_path: Path
) -> None:
    log = bus.log("gateway")
    first = await log.append(KEY, ASKED, expected=0, cause="d")
    killed = await bus.client.jetstream().pull_subscribe_bind("history", STREAM)
    await killed.fetch(1, timeout=5)
    await log.append(KEY, ProgressPosted(comment_id=5, url="u"), expected=first.sequence, cause="a")
    own = Bus(nats_server.url, "history", grace=1)
    await own.connect()
    question = json.dumps({"full_name": "acme/widgets", "number": 42}).encode()
    told: dict[str, Any] = {}
    async with run(load({}, home=tmp_path), own), asyncio.timeout(ACK_WAIT / 3):
        while len(told.get("events", ())) < 2:
            told = json.loads(await bus.ask(history_subject("events"), question))
        engine = await open_database(load({}, home=tmp_path), "history")
        assert await Archive(engine).verify() is None
        async with engine.connect() as connection:
            stored = (await connection.execute(sa.select(events.c.headers, events.c.body))).all()
        await engine.dispose()
    delivered = [await bus.client.jetstream().get_msg(STREAM, number) for number in (1, 2)]
    assert [(json.loads(row.headers), row.body) for row in stored] == [
        (message.headers, message.data) for message in delivered
    ]


async def test_storing_again_changes_nothing(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    assert await archive.store([message(1), message(2)]) == 2
    assert await archive.store([message(2), message(1), message(3)]) == 1
    assert await archive.newest() == 3
    assert await archive.verify() is None


async def test_a_batch_after_a_gap_waits_for_what_another_replica_holds(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    await archive.store([message(1)])
    with pytest.raises(Later):
        await archive.store([message(3)])
    assert await archive.newest() == 1


async def test_a_foreign_subject_and_an_unknown_kind_are_archived_all_the_same(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    newer = Stored(2, SUBJECT, {"ce-time": "x"}, b'{"type":"progress.posted.v9"}')
    assert await archive.store([message(1, "issues.foreign"), newer]) == 2
    assert await archive.verify() is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = x'00' WHERE sequence = 1",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE sequence = 1",
        "PRAGMA recursive_triggers=OFF; REPLACE INTO events SELECT * FROM events",
    ],
)
async def test_the_archive_cannot_be_changed(engine: AsyncEngine, statement: str) -> None:
    await Archive(engine).store([message(1)])
    *before, forbidden = statement.split(";")
    async with engine.connect() as connection:
        for part in before:
            await connection.execute(sa.text(part))
        with pytest.raises(DatabaseError, match="append-only"):
            await connection.execute(sa.text(forbidden))


@pytest.mark.parametrize(
    ("damage", "found_at"),
    [
        ("UPDATE events SET body = x'7b7d' WHERE sequence = 2", 2),
        ("DELETE FROM events WHERE sequence = 2", 3),
        ("UPDATE events SET sequence = 9 WHERE sequence = 2", 3),
    ],
)
async def test_damage_done_behind_the_triggers_is_found(
    engine: AsyncEngine, damage: str, found_at: int
) -> None:
    archive = Archive(engine)
    await archive.store([message(1), message(2), message(3)])
    async with engine.begin() as connection:
        for trigger in ("update", "delete", "replace"):
            await connection.execute(sa.text(f"DROP TRIGGER events_no_{trigger}"))
        await connection.execute(sa.text(damage))
    found = await archive.verify()
    assert found is not None
    assert found.sequence == found_at


async def test_the_read_model_can_be_dropped_and_made_anew(engine: AsyncEngine) -> None:
    archive = Archive(engine)
    body = encode_fact(ASKED)
    first = Stored(1, f"issues.7.42.{KEY.run}.run.requested", {"ce-time": "2026-01-01T00:00:00Z"}, body)
    await archive.store([first, message(2)])
    async with engine.begin() as connection:
        before = (await connection.execute(sa.select(runs))).all()
        await connection.execute(sa.delete(runs))
    assert await archive.rebuild() == 2
    async with engine.connect() as connection:
        assert (await connection.execute(sa.select(runs))).all() == before
    assert len(before) == 1
