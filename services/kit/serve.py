"""Runs services: connects, starts them in the order of an issue's path, waits for a signal, stops them.

``millrace up`` runs all of them in one process with an embedded nats-server; ``millrace serve NAME`` and
``python -m services.NAME`` run one. Both come through here.
"""

import asyncio
import contextlib
import importlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import structlog
from pydantic import SecretStr

from contracts.registry import SERVICES
from services.kit import logs
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.errors import MillraceError, Misconfigured
from services.kit.provision import let_go, provision
from services.kit.settings import Settings, load

Health = Callable[[], Awaitable[dict[str, str]]]

logger = structlog.get_logger(__name__)


class Run(Protocol):
    """What each ``services/<name>/__main__.py`` offers as ``run``."""

    def __call__(self, settings: Settings, bus: Bus) -> AbstractAsyncContextManager[Health]:
        """Start on entering, stop on leaving; yields the service's health."""


def service(name: str) -> Run:
    """The assembly of a service by its name."""
    if name not in SERVICES:
        raise Misconfigured(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    run: Run = importlib.import_module(f"services.{name}.__main__").run
    return run


@contextlib.asynccontextmanager
async def running(settings: Settings, names: Sequence[str]) -> AsyncIterator[Mapping[str, Health]]:
    """These services, started; stopped in reverse order on leaving."""
    if settings.nats_url is None:
        raise Misconfigured(
            "MILLRACE_NATS_URL is not set: a single service needs it (`millrace up` does not)."
        )
    # Here, because whoever creates a directory in it would create it open to others.
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    healths: dict[str, Health] = {}
    async with AsyncExitStack() as stack:
        for name in names:
            bus = Bus(settings.nats_url.get_secret_value(), f"millrace-{name}-{settings.instance}")
            await bus.connect()
            stack.push_async_callback(bus.close)
            healths[name] = await stack.enter_async_context(service(name)(settings, bus))
            logger.info("service started", service=name, instance=settings.instance)
        yield healths


@contextlib.asynccontextmanager
async def mesh(settings: Settings) -> AsyncIterator[tuple[Settings, Mapping[str, Health]]]:
    """Everything: embedded NATS unless a URL is set, provisioning, all services."""
    async with AsyncExitStack() as stack:
        alone = settings.nats_url is None
        if alone:
            settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            server = await stack.enter_async_context(EmbeddedNats(settings.home, settings.nats_listen))
            stack.callback(asyncio.create_task(server.keep()).cancel)
            settings = settings.model_copy(update={"nats_url": SecretStr(server.url)})
        await provision_at(settings, alone=alone)
        # The vault first: the others ask it for their secrets as they start.
        order = ("vault", *(name for name in SERVICES if name != "vault"))
        healths = await stack.enter_async_context(running(settings, order))
        yield settings, healths


async def provision_at(settings: Settings, *, alone: bool = False) -> None:
    """Create or update streams and consumers, as a connection of its own.

    ``alone`` says that no other process can be at work on this NATS.
    """
    if settings.nats_url is None:
        raise Misconfigured("MILLRACE_NATS_URL is not set: there is nothing to provision.")
    bus = Bus(settings.nats_url.get_secret_value(), "millrace-provision")
    await bus.connect()
    try:
        await provision(bus.client, replicas=settings.nats_replicas)
        if alone:
            await let_go(bus.client)
    finally:
        await bus.close()


async def until_signalled() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def main(name: str) -> None:
    """Run one service until it is told to stop: the body of ``python -m services.<name>``."""

    async def serve() -> None:
        settings = load()
        logs.configure(settings.log_level, settings.log_format)
        async with running(settings, [name]):
            await until_signalled()

    try:
        asyncio.run(serve())
    except MillraceError as error:
        sys.exit(f"millrace: {error}")
