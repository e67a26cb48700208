"""One Podman service for the whole folder, and a trap that must stay empty."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import pytest
import pytest_asyncio

from services.sandbox_runner.deps import Room
from tests.integration.setup_kit import Yard, yard


class Trap(msgspec.Struct):
    """Listens on every address of this machine, TCP and UDP, IPv4 and IPv6, on one port."""

    port: int
    addresses: tuple[str, ...]
    connections: int = 0
    received: bytes = b""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with yard(tmp_path_factory.mktemp("yard"), Room(entries=2000)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def trap() -> AsyncIterator[Trap]:
    seen = Trap(0, ())

    async def caught(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        with suppress(OSError, TimeoutError):
            seen.received += await asyncio.wait_for(reader.read(65536), 5)
        writer.close()

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _: object) -> None:
            seen.received += data

    server = await asyncio.start_server(caught, "0.0.0.0", 0)  # noqa: S104  a trap
    seen.port = server.sockets[0].getsockname()[1]
    servers = [server]
    with suppress(OSError):  # where there is no IPv6
        servers.append(await asyncio.start_server(caught, "::", seen.port, family=socket.AF_INET6))
    loop = asyncio.get_running_loop()
    datagrams, _ = await loop.create_datagram_endpoint(Datagrams, ("0.0.0.0", seen.port))  # noqa: S104
    seen.addresses = tuple(_own_addresses())
    yield seen
    datagrams.close()
    for each in servers:
        each.close()


def _own_addresses() -> list[str]:
    """This machine's address towards the default route, besides loopback; nothing is sent."""
    found = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.254", 9))
        found.append(str(probe.getsockname()[0]))
    return found
