"""The embedded nats-server: one process at a time on a store, and what a killed one leaves behind."""

import os
import signal
from pathlib import Path

import pytest

from contracts.registry import PUBLISHER
from contracts.subjects import STREAM
from services.kit import embedded
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.errors import Misconfigured
from services.kit.provision import ACK_WAIT, let_go, provision

SUBJECT = "issues.1.1.01AAAAAAAAAAAAAAAAAAAAAAAA.run.requested"


async def _take_one(bus: Bus, seconds: float) -> int:
    """Take the publisher's message without acknowledging it; how often it was delivered."""
    subscription = await bus.client.jetstream().pull_subscribe_bind(PUBLISHER, STREAM)
    (message,) = await subscription.fetch(1, timeout=seconds)
    return message.metadata.num_delivered


async def test_what_a_predecessor_did_not_finish_comes_again_at_once(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        bus = Bus(server.url, "before")
        await bus.connect()
        await provision(bus.client)
        await bus.client.jetstream().publish(SUBJECT, b"{}")
        assert await _take_one(bus, 5) == 1
        await bus.client.close()
    async with EmbeddedNats(tmp_path) as server:
        bus = Bus(server.url, "after")
        await bus.connect()
        await provision(bus.client)
        await let_go(bus.client)
        assert await _take_one(bus, ACK_WAIT / 3) == 2
        held = await bus.client.jetstream().consumer_info(STREAM, PUBLISHER)
        assert held.config.ack_wait == ACK_WAIT
        await bus.close()


async def test_a_second_server_on_the_same_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_LOCK_SECONDS", 0.1)
    async with EmbeddedNats(tmp_path):
        with pytest.raises(Misconfigured, match="another Millrace uses"):
            await EmbeddedNats(tmp_path).__aenter__()


async def test_a_start_waits_for_the_server_of_a_killed_predecessor(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        os.kill(server.pid, signal.SIGTERM)
        async with EmbeddedNats(tmp_path, server.address) as successor:
            assert successor.pid != server.pid
