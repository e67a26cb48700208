"""A gateway with its vault on a real nats-server, before a GitHub double, for the gateway's tests."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
from pydantic import SecretStr

from contracts.envelope import Recorded
from contracts.facts import AnyFact, RunRequested
from services.gateway.__main__ import run as run_gateway
from services.gateway.patience import Patience
from services.history.__main__ import run as run_history
from services.kit.bus import Bus
from services.kit.embedded import EmbeddedNats
from services.kit.operator import operator_token
from services.kit.provision import provision
from services.kit.settings import Settings, load
from services.vault.__main__ import run as run_vault
from tests.doubles.github import GitHubDouble
from tests.doubles.github.state import App, Installation, Repository, User

SECRET = "a webhook secret of this test"
PERMISSIONS = {"contents": "write", "issues": "write", "pull_requests": "write"}
SOON = Patience(again_in=lambda tries: min(0.05 * tries, 0.2), look=0.05)
"""What has failed is tried again before long; everything else as in production."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def signature(body: bytes, secret: str = SECRET) -> str:
    """GitHub's signature."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def text_of(payload: bytes | Mapping[str, Any]) -> bytes:
    """A delivery's body."""
    return payload if isinstance(payload, bytes) else json.dumps(payload).encode()


@dataclass
class Answer:
    """An HTTP answer as it came over a socket; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A TCP connection to the gateway, for what no HTTP client would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send, whatever it is."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def answer(self, *, seconds: float = 10.0) -> Answer:
        """The next whole answer; ``EOFError`` or ``ConnectionError`` when the gateway hung up instead."""
        async with asyncio.timeout(seconds):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(first.split()[1]), headers, body)

    async def closed(self, *, seconds: float = 10.0) -> bytes:
        """What came until the gateway hung up."""
        async with asyncio.timeout(seconds):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""


@dataclass
class GatewayProcess:
    """A gateway that can be killed."""

    process: asyncio.subprocess.Process
    client: httpx2.AsyncClient
    settings: Settings
    log: Path

    async def ready(self, *, seconds: float = 20.0) -> None:
        """Return when everything it needs is there."""
        async with asyncio.timeout(seconds):
            while self.process.returncode is None:
                with contextlib.suppress(httpx2.TransportError):
                    if (await self.client.get("/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        raise AssertionError(self.log.read_text())

    async def kill(self) -> None:
        """At once: SIGKILL."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@dataclass
class Place:
    """A gateway, what surrounds it, and an HTTP client to it."""

    github: GitHubDouble
    nats: EmbeddedNats
    settings: Settings
    app: App
    repository: Repository
    installation: Installation
    writer: User
    stranger: User
    bus: Bus
    patience: Patience
    _nats: AsyncExitStack = field(default_factory=AsyncExitStack)
    _vault: AsyncExitStack = field(default_factory=AsyncExitStack)
    _gateway: AsyncExitStack = field(default_factory=AsyncExitStack)
    client: httpx2.AsyncClient = field(init=False)

    async def post(
        self, body: bytes | Mapping[str, Any], *, event: str = "issues", delivery: str | None = None,
        headers: Mapping[str, str | None] | None = None, path: str = "/webhook/github", secret: str = SECRET,
    ) -> httpx2.Response:  # fmt: skip
        """A delivery as GitHub sends it; ``headers`` replace its own, None removes one."""
        raw = text_of(body)
        sent = self.headers(raw, event=event, delivery=delivery, secret=secret, replaced=headers)
        return await self.client.post(path, content=raw, headers=sent)

    def headers(
        self, raw: bytes, *, event: str = "issues", delivery: str | None = None, secret: str = SECRET,
        replaced: Mapping[str, str | None] | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """A delivery's headers; ``replaced`` take the place of GitHub's own, None removes one."""
        sent: dict[str, str | None] = {
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": delivery or str(uuid.uuid4()),
            "x-github-hook-installation-target-id": str(self.app.id),
            "x-github-hook-installation-target-type": "integration",
            "x-hub-signature-256": signature(raw, secret),
            **(replaced or {}),
        }
        return {name: value for name, value in sent.items() if value is not None}

    def head(self, raw: bytes, *lines: str, version: str = "1.1", **options: Any) -> bytes:
        """The request line and headers of a delivery, with further ``lines``, for a ``Wire``."""
        own = [f"{name}: {value}" for name, value in self.headers(raw, **options).items()]
        first = (f"POST /webhook/github HTTP/{version}", "Host: gateway")
        return "\r\n".join((*first, *own, *lines, "", "")).encode("latin-1")

    @asynccontextmanager
    async def wire(self, address: str = "") -> AsyncIterator[Wire]:
        """A connection of one's own, to another replica's ``address`` if given."""
        reader, writer = await asyncio.open_connection(*(address or self.settings.listen).rsplit(":", 1))
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    def issue_event(self, action: str = "opened", number: int = 7, **changes: Any) -> dict[str, Any]:
        """The fields of an ``issues`` delivery that are read, by somebody who may write."""
        sender = changes.pop("sender", {"id": self.writer.id, "login": self.writer.login, "type": "User"})
        issue = {
            "number": number,
            "title": "It adds wrongly",
            "body": "1 + 1 gives 3",
            "user": sender,
            "html_url": f"{self.github.url}/{self.repository.full_name}/issues/{number}",
            "created_at": "2026-11-01T10:00:00Z",
            "updated_at": "2026-11-01T10:00:05Z",
            **changes.pop("issue", {}),
        }
        return {
            "action": action,
            "issue": issue,
            "repository": {
                "id": self.repository.id,
                "full_name": self.repository.full_name,
                "default_branch": "main",
                "private": False,
            },
            "sender": sender,
            "installation": {"id": self.installation.id},
            **changes,
        }

    def comment_event(
        self, text: str, number: int = 7, comment_id: int = 1, **changes: Any
    ) -> dict[str, Any]:
        """The fields of an ``issue_comment`` delivery."""
        event = self.issue_event("created", number, **changes)
        user = event["sender"]
        return event | {
            "comment": {
                "id": comment_id, "body": text, "user": user, "created_at": "2026-11-01T11:00:00Z",
                **changes.get("comment", {}),
            }
        }  # fmt: skip

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """A question as the operator."""
        return await self.client.get(path, headers={**self.operator(), **headers})

    def operator(self) -> dict[str, str]:
        """The operator's header."""
        return {"authorization": f"Bearer {operator_token(self.settings)}"}

    async def rows(self) -> dict[str, dict[str, Any]]:
        """The newest deliveries by their id."""
        answer = await self.get("/api/deliveries?limit=1000")
        return {row["delivery"]: row for row in answer.json()}

    async def newest(self) -> dict[str, Any] | None:
        """The newest delivery."""
        rows = (await self.get("/api/deliveries?limit=1")).json()
        return dict(rows[0]) if rows else None

    @asynccontextmanager
    async def remembers_nothing(self) -> AsyncIterator[None]:
        """Holds when no delivery was stored meanwhile."""
        before = await self.newest()
        yield
        after = await self.newest()
        assert (after and after["delivery"]) == (before and before["delivery"])

    async def settled(self, *deliveries: str, seconds: float = 10.0) -> dict[str, Any]:
        """The last of these deliveries, once the relay is done with all of them."""
        pause = 0.01
        async with asyncio.timeout(seconds):
            while True:
                rows = await self.rows()
                if all(rows.get(each, {"state": "pending"})["state"] != "pending" for each in deliveries):
                    return rows[deliveries[-1]]
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.3)  # a look costs the relay time

    async def tried(self, delivery: str, times: int = 1, *, seconds: float = 10.0) -> dict[str, Any]:
        """A delivery that waits, once it was tried so often."""
        async with asyncio.timeout(seconds):
            while True:
                row = (await self.rows())[delivery]
                if row["tries"] >= times:
                    assert row["state"] == "pending", row
                    return row
                await asyncio.sleep(0.02)

    async def counted(self, name: str, *, seconds: float = 10.0) -> None:
        """Return when a counter of /metrics is above zero."""
        async with asyncio.timeout(seconds):
            while True:
                lines = (await self.get("/metrics")).text.splitlines()
                if any(line.startswith(name) and not line.endswith(" 0.0") for line in lines):
                    return
                await asyncio.sleep(0.02)

    async def facts(self, number: int = 7) -> list[Recorded]:
        """What the log holds about an issue."""
        return await self.bus.log("test").read_issue(self.repository.id, number)

    async def runs(self, number: int = 7) -> list[str]:
        """The ids of the runs that were requested for an issue."""
        return [each.key.run for each in await self.facts(number) if isinstance(each.fact, RunRequested)]

    async def row(self) -> dict[str, Any]:
        """What became of the newest delivery that the GitHub double has sent, once that is settled."""
        return await self.settled(self.github.deliveries[-1].guid)

    async def happens(self, fact: AnyFact, number: int = 7) -> None:
        """Another service says something about the newest run of an issue."""
        history = await self.facts(number)
        key = history[-1].key
        of_run = [each for each in history if each.key == key]
        log = self.bus.log("test")
        await log.append(key, fact, expected=of_run[-1].sequence, cause=of_run[-1].envelope.id)

    def same_settings(self, listen: str | None = None) -> Settings:
        """The gateway's settings at another address."""
        return self.settings.model_copy(update={"listen": listen or f"127.0.0.1:{free_port()}"})

    @asynccontextmanager
    async def another_gateway(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A second replica on the same inbox."""
        async with _gateway(self.same_settings(), self.nats, self.patience) as client:
            yield client

    async def stop_gateway(self) -> None:
        """In order, as by SIGTERM."""
        await self._gateway.aclose()

    async def start_gateway(self) -> None:
        """At the same address, on the same inbox."""
        running = _gateway(self.settings, self.nats, self.patience)
        self.client = await self._gateway.enter_async_context(running)

    async def stop_nats(self) -> None:
        """As a machine that goes down: at once, with everything on it."""
        os.kill(self.nats.pid, signal.SIGKILL)
        await self.nats.ended()
        async with asyncio.timeout(10):
            while self.bus.client.is_connected:  # noqa: ASYNC110  nats-py gives no signal
                await asyncio.sleep(0.01)

    async def start_nats(self) -> None:
        """At the same address, on the same store."""
        self.nats = await self._nats.enter_async_context(EmbeddedNats(self.settings.home, self.nats.address))

    async def stop_vault(self) -> None:
        """Nobody answers for the vault any more."""
        await self._vault.aclose()

    async def start_vault(self) -> None:
        """On the same records."""
        bus = Bus(self.nats.url, "vault", grace=1)
        await bus.connect()
        self._vault.push_async_callback(bus.close)
        await self._vault.enter_async_context(run_vault(self.settings, bus))

    @asynccontextmanager
    async def gateway_process(self) -> AsyncIterator["GatewayProcess"]:
        """A gateway as a process of its own on the same inbox, ready; killed at the end at the latest."""
        settings = self.same_settings()
        log = self.settings.home / "gateway.log"
        environment = {
            "MILLRACE_HOME": str(settings.home),
            "MILLRACE_LISTEN": settings.listen,
            "MILLRACE_NATS_URL": self.nats.url,
            "MILLRACE_GITHUB_URL": settings.github_url,
            "MILLRACE_GITHUB_API_URL": settings.github_api_url,
            "MILLRACE_LOG_LEVEL": "debug",
            "MILLRACE_LOG_FORMAT": "json",
        }
        root = Path(__file__).parents[2]
        with log.open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.gateway", env=environment, cwd=root, stderr=stream
            )
        async with httpx2.AsyncClient(base_url=f"http://{settings.listen}", trust_env=False) as client:
            it = GatewayProcess(process, client, settings, log)
            try:
                await it.ready()
                yield it
            finally:
                await it.kill()

    @asynccontextmanager
    async def history(self) -> AsyncIterator[None]:
        """The history, beside the gateway."""
        bus = Bus(self.nats.url, "history", grace=1)
        await bus.connect()
        async with run_history(self.settings, bus):
            yield

    @contextmanager
    def locked_inbox(self) -> Iterator[None]:
        """Another process holds the inbox's only lock."""
        other = sqlite3.connect(self.settings.home / "gateway.sqlite3", isolation_level=None)
        try:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
        finally:
            other.close()

    @contextmanager
    def spoiled_inbox(self, pragma: str, remedy: str) -> Iterator[None]:
        """The inbox's connections get ``pragma`` before each use, and after the context ``remedy``."""
        spoil, mend = (_before_use(self.settings.home, each) for each in (pragma, remedy))
        sa.event.listen(sa.Pool, "checkout", spoil)
        try:
            yield
        finally:
            sa.event.remove(sa.Pool, "checkout", spoil)
            sa.event.listen(sa.Pool, "checkout", mend)
            self._gateway.callback(sa.event.remove, sa.Pool, "checkout", mend)


def _before_use(home: Path, pragma: str) -> Callable[[Any, Any, Any], None]:
    def checkout(connection: Any, _record: Any, _proxy: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA database_list")
        if Path(cursor.fetchone()[2]) == (home / "gateway.sqlite3").resolve():
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return checkout


@asynccontextmanager
async def _gateway(
    settings: Settings, server: EmbeddedNats, patience: Patience
) -> AsyncIterator[httpx2.AsyncClient]:
    bus = Bus(server.url, "gateway", grace=1)
    await bus.connect()
    try:
        async with (
            run_gateway(settings, bus, patience) as health,
            httpx2.AsyncClient(base_url=f"http://{settings.listen}", timeout=30, trust_env=False) as client,
        ):
            async with asyncio.timeout(10):
                while (await health())["vault"] != "ok":  # noqa: ASYNC110  health is asked for, not told
                    await asyncio.sleep(0.01)
            yield client
    finally:
        await bus.close()


@asynccontextmanager
async def place(home: Path, patience: Patience = SOON, **settings: Any) -> AsyncIterator[Place]:
    """A configured gateway with one App on one repository; the home may have been used before."""
    async with AsyncExitStack() as stack:
        github = await stack.enter_async_context(GitHubDouble())
        nats, vault, gateway = AsyncExitStack(), AsyncExitStack(), AsyncExitStack()
        for part in (nats, vault, gateway):
            stack.push_async_exit(part)
        server = await nats.enter_async_context(EmbeddedNats(home))
        bus = Bus(server.url, "test", grace=1)
        await bus.connect()
        nats.push_async_callback(bus.close)
        await provision(bus.client)
        chosen = load(
            {},
            home=home,
            listen=f"127.0.0.1:{free_port()}",
            nats_url=SecretStr(server.url),
            github_url=github.url,
            github_api_url=github.api_url,
            **settings,
        )
        app = github.create_app(webhook_secret=SECRET, webhook_url=f"http://{chosen.listen}/webhook/github")
        repository = github.create_repository("acme/calc", {"calc.py": b"x = 1\n"})
        installation = github.install(app, "acme", [repository], PERMISSIONS)
        writer, stranger = github.create_user("wren"), github.create_user("stranger")
        github.grant(repository, writer, "write")
        it = Place(
            github=github, nats=server, settings=chosen, app=app, repository=repository,
            installation=installation, writer=writer, stranger=stranger, bus=bus, patience=patience,
            _nats=nats, _vault=vault, _gateway=gateway,
        )  # fmt: skip
        await it.start_vault()
        await it.start_gateway()
        stored = await it.client.post(
            "/config",
            json={"appId": app.id, "privateKey": app.private_key_pem, "webhookSecret": SECRET},
            headers=it.operator(),
        )
        assert stored.status_code == 200, stored.text
        yield it
