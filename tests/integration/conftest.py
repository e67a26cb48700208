"""Real parts for the tests: an embedded nats-server, provisioned, and buses on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.provision import provision


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A nats-server of this test's own."""
    async with EmbeddedNats(tmp_path / "home") as server:
        yield server


@pytest.fixture
async def bus(nats_server: EmbeddedNats) -> AsyncIterator[Bus]:
    """A connected bus on a provisioned server."""
    bus = Bus(nats_server.url, "test", grace=2)
    await bus.connect()
    await provision(bus.client)
    yield bus
    await bus.close()
