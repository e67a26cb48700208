"""The embedded server's user for people: it reads everything and takes nothing from the services."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from contracts.codec import decode_fact
from contracts.envelope import RunKey, derive_run_id
from contracts.facts import Issue, Person, Repository, RunRequested, Trigger
from contracts.subjects import STREAM, issue_subjects
from services.kit.bus import Bus
from services.kit.embedded import READER, READER_INBOX, EmbeddedNats, password
from services.kit.log import Log

KEY = RunKey(7, 42, derive_run_id(datetime(2026, 1, 1, tzinfo=UTC), "opened"))
ALICE = Person(id=1, login="alice")
ASKED = RunRequested(
    app_id=1,
    installation_id=2,
    repository=Repository(id=7, full_name="acme/widgets"),
    issue=Issue(number=42, title="Crash", author=ALICE),
    trigger=Trigger(kind="opened", actor=ALICE, permission="write"),
)


class Visitor:
    """A connection as the reader; ``refused`` holds what the server said no to."""

    def __init__(self) -> None:
        self.refused: asyncio.Queue[str] = asyncio.Queue()
        self.client: Client

    async def note(self, error: Exception) -> None:
        self.refused.put_nowait(str(error))

    async def refusal(self) -> str:
        """The next refusal; a request that is let through fails here by its deadline."""
        return await asyncio.wait_for(self.refused.get(), 10)


@pytest.fixture
async def visitor(nats_server: EmbeddedNats, tmp_path: Path, bus: Bus) -> AsyncIterator[Visitor]:
    """The reader, on a provisioned server that holds one fact."""
    await bus.log("gateway").append(KEY, ASKED, expected=0, cause="delivery")
    visitor = Visitor()
    visitor.client = await nats.connect(
        nats_server.address,
        user=READER,
        password=password(tmp_path / "home", READER),
        inbox_prefix=READER_INBOX.encode(),
        error_cb=visitor.note,
        allow_reconnect=False,
    )
    yield visitor
    await visitor.client.close()


async def test_the_reader_reads_a_run_directly_and_through_a_consumer_of_its_own(visitor: Visitor) -> None:
    assert [recorded.fact for recorded in await Log(visitor.client, "nobody").read(KEY)] == [ASKED]
    js = visitor.client.jetstream()
    own = ConsumerConfig(name="look", ack_policy=AckPolicy.NONE, filter_subject=issue_subjects(7, 42))
    await js.add_consumer(STREAM, own)
    (message,) = await (await js.pull_subscribe_bind("look", STREAM)).fetch(1, timeout=10)
    assert decode_fact(message.data) == ASKED
    assert await js.delete_consumer(STREAM, "look")
    assert visitor.refused.empty()


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(f"issues.7.42.{KEY.run}.run.requested", id="append a fact"),
        pytest.param("vault.v1.agent.model-key", id="ask the vault"),
        pytest.param(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.agent", id="take a service's work"),
        pytest.param(f"$JS.API.CONSUMER.CREATE.{STREAM}.agent", id="change a service's consumer"),
        pytest.param(f"$JS.API.CONSUMER.CREATE.{STREAM}.agent.issues.>", id="change its filter"),
        pytest.param(f"$JS.API.CONSUMER.DELETE.{STREAM}.agent", id="delete a service's consumer"),
        pytest.param(f"$JS.ACK.{STREAM}.agent.1.1.1.1.0", id="acknowledge for a service"),
        pytest.param(f"$JS.API.STREAM.DELETE.{STREAM}", id="delete the stream"),
        pytest.param(f"$JS.API.STREAM.UPDATE.{STREAM}", id="change the stream"),
    ],
)
async def test_the_reader_may_not(visitor: Visitor, subject: str) -> None:
    await visitor.client.publish(subject, b"{}", reply=f"{READER_INBOX}.x")
    assert subject.lower() in (await visitor.refusal()).lower()


async def test_the_reader_does_not_see_the_answers_that_services_get(visitor: Visitor, bus: Bus) -> None:
    await visitor.client.subscribe("_INBOX.>")
    assert "_inbox.>" in (await visitor.refusal()).lower()


async def test_what_the_reader_read_is_still_there_for_the_services(visitor: Visitor, bus: Bus) -> None:
    await Log(visitor.client, "nobody").read(KEY)
    assert (await bus.client.jetstream().consumer_info(STREAM, "sandbox_runner")).num_pending == 1
