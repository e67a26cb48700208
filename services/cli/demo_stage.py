"""The demo's stage: GitHub and Claude as doubles, Millrace itself as it always is, all on free ports."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from services.cli import demo_repository as example
from services.cli.demo_session import session
from services.kit.errors import Later, Refused
from services.kit.operator import operator_token
from services.kit.serve import mesh
from services.kit.settings import Settings, load
from tests.doubles.github import GitHubDouble, openapi
from tests.doubles.github.state import Installation, Issue, Repository, User
from tests.doubles.model import ClaudeDouble
from tests.doubles.model.check import prepare

THINKING = 0.3
"""Seconds that the Claude double takes for a turn: an answer at once would look like a trick."""
_PERMISSIONS = {"contents": "write", "issues": "write", "pull_requests": "write"}
_FOUND_SECONDS = 20.0


@dataclass(frozen=True)
class Opened:
    """The issue, and when its webhook left and was answered."""

    issue: Issue
    sent: datetime
    accepted: datetime


@dataclass
class Stage:
    """What the demo plays on. ``claude`` is absent when the real one works."""

    settings: Settings
    github: GitHubDouble
    repo: Repository
    maintainer: User
    installation: Installation
    claude: ClaudeDouble | None
    http: httpx2.AsyncClient

    @property
    def violations(self) -> list[str]:
        """What broke GitHub's or the SDK's description; empty in a good demo."""
        return [*self.github.violations, *(self.claude.violations if self.claude else ())]

    @property
    def nats_address(self) -> str:
        """Where the embedded server listens, without the user."""
        url = self.settings.nats_url
        return url.get_secret_value().rpartition("@")[2] if url else ""

    async def open_issue(self) -> Opened:
        """What a person does; returns once the webhook was answered.

        Raises:
            Refused: the gateway did not accept it.
        """
        report = example.REPORT
        issue = await self.github.open_issue(self.repo, report.title, report.body, by=self.maintainer)
        accepted = datetime.now(UTC)
        delivery = self.github.deliveries[-1]
        if delivery.status != 202:
            raise Refused(f"the gateway answered the webhook with {delivery.status} {delivery.answer[:200]}")
        return Opened(issue, accepted - timedelta(seconds=delivery.seconds), accepted)

    async def events(self, issue: Issue) -> AsyncGenerator[dict[str, Any], None]:
        """The issue's events as the API tells them, live, without end."""
        path = f"/api/issues/{self.repo.full_name}/{issue.number}/events"
        deadline = time.monotonic() + _FOUND_SECONDS
        while True:
            async with self.http.stream("GET", path, headers={"accept": "text/event-stream"}) as answer:
                if answer.status_code == 200:
                    async for line in answer.aiter_lines():
                        if line.startswith("data:"):
                            yield msgspec.json.decode(line.removeprefix("data:").strip())
                    raise Later("the gateway ended the stream of events")
            # A moment passes between the 202 and the first recorded event.
            if answer.status_code != 404 or time.monotonic() > deadline:
                raise Later(f"the gateway tells no events of the issue ({answer.status_code})")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def github() -> AsyncIterator[tuple[GitHubDouble, Repository, User]]:
    """The double, with the example repository and somebody who may write to it."""
    async with GitHubDouble() as double:
        repo = double.create_repository(example.FULL_NAME, {}, private=True)
        people = {step.author: double.create_user(step.author) for step in example.HISTORY}
        for step in example.HISTORY:
            files = {path: text.encode() for path, text in step.files.items()}
            by, at = people[step.author], datetime.now(UTC) - step.ago
            double.commit_files(repo, files, message=step.message, by=by, at=at)
        maintainer = people[example.MAINTAINER]
        double.grant(repo, maintainer, "write")
        # Reading their descriptions takes the doubles a second, once: not while the clock runs.
        for reading in (openapi.rest, openapi.webhooks, prepare):
            await asyncio.to_thread(reading)
        yield double, repo, maintainer


@contextlib.asynccontextmanager
async def millrace(
    home: Path, double: GitHubDouble, repo: Repository, maintainer: User, *, live: bool
) -> AsyncIterator[Stage]:
    """Everything else, configured as an operator does it."""
    async with AsyncExitStack() as stack:
        claude = None
        if not live:
            claude = await stack.enter_async_context(ClaudeDouble(thinking=THINKING))
            claude.play(session())
        key = load().anthropic_api_key
        settings = demo_settings(home, double, claude)
        app = double.create_app(webhook_url=f"http://{settings.listen}/webhook/github")
        installation = double.install(app, repo.owner.login, [repo], _PERMISSIONS)
        running, _ = await stack.enter_async_context(mesh(settings))
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=f"http://{settings.listen}",
                headers={"authorization": f"Bearer {operator_token(settings)}"},
                timeout=httpx2.Timeout(30.0, read=None),
                trust_env=False,
            )
        )
        credentials = {
            "appId": app.id,
            "privateKey": app.private_key_pem,
            "webhookSecret": app.webhook_secret,
        }
        if claude is not None:
            credentials["anthropicApiKey"] = claude.key
        elif key is not None:
            credentials["anthropicApiKey"] = key.get_secret_value()
        stored = await http.post("/config", json=credentials)
        if stored.status_code != 200:
            raise Refused(f"the gateway did not store the credentials: {stored.status_code} {stored.text}")
        yield Stage(running, double, repo, maintainer, installation, claude, http)


def demo_settings(home: Path, double: GitHubDouble, claude: ClaudeDouble | None) -> Settings:
    """The operator's settings, except for what makes the demo a world of its own."""
    own: dict[str, Any] = {
        "home": home,
        "listen": f"127.0.0.1:{_free_port()}",
        "runner_listen": "127.0.0.1:0",
        "nats_listen": "127.0.0.1:0",
        "nats_url": None,
        "nats_replicas": 1,
        "database_url": None,
        "public_url": None,
        "admin_token": None,
        "github_url": double.url,
        "github_api_url": double.api_url,
        "anthropic_api_key": None,
    }
    if claude is not None:
        own["anthropic_base_url"] = claude.url
    return load(**own)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
