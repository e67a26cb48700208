"""A scene: GitHub, Claude and Millrace between them. GitHub and Claude are doubles, the rest is real."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from contracts import facts as f
from contracts.envelope import Recorded
from contracts.subjects import issue_subjects, kind_of
from services.kit.log import Log
from tests.doubles.github import GitHubDouble
from tests.doubles.github.state import App, Comment, Installation, Issue, Repository, User
from tests.doubles.model import ClaudeDouble, Step, first_user_text
from tests.doubles.model.sessions import fix_bug
from tests.e2e.deployment import Deployment

END_TO_END = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
"""The marks of a module of end-to-end tests: one loop, and patience with machines that have much to do."""
PERMISSIONS = {"contents": "write", "issues": "write", "pull_requests": "write"}
BUGGY = {
    "calc.py": b"def add(a, b):\n    return a - b\n",
    "test_calc.py": b"from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n",
    "README.md": b"# Calc\n",
}
FIX = fix_bug(
    path="calc.py",
    old="return a - b",
    new="return a + b",
    test_command="python -m pytest -q",
    title="Add instead of subtracting",
    summary="`add` subtracted its second argument.",
)


@dataclass(frozen=True)
class Project:
    """A private repository of an organisation of its own, with the App on it and somebody who may write."""

    repo: Repository
    app: App
    installation: Installation
    maintainer: User


class Scene:
    """What an end-to-end test works with. Everything about one project is its own, limits of GitHub's too."""

    def __init__(self, github: GitHubDouble, claude: ClaudeDouble, millrace: Deployment) -> None:
        self.github = github
        self.claude = claude
        self.millrace = millrace
        self._numbers = itertools.count(1)
        self.app = github.create_app(
            1001,
            webhook_url=f"{millrace.urls[0]}/webhook/github",
            webhook_secret=f"canary-{secrets.token_hex(24)}",
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls, kind: type[Deployment], home: Path, **environment: str) -> AsyncIterator[Self]:
        """Both doubles and a configured Millrace, until the context ends."""
        async with GitHubDouble() as github, ClaudeDouble() as claude:
            addresses = {
                "MILLRACE_GITHUB_URL": github.url,
                "MILLRACE_GITHUB_API_URL": github.api_url,
                "ANTHROPIC_BASE_URL": claude.url,
            }
            scene = cls(github, claude, kind(home, {**addresses, **environment}))
            try:
                await scene.millrace.start()
                await scene.configure(scene.app)
                yield scene
                await scene.millrace.stop()
            finally:
                await scene.millrace.kill()

    async def configure(self, app: App) -> None:
        """Store an App's credentials and the model key, as an operator does."""
        given = {
            "appId": app.id,
            "privateKey": app.private_key_pem,
            "webhookSecret": app.webhook_secret,
            "anthropicApiKey": self.claude.key,
        }
        stored = await self.millrace.ask("POST", "/config", given)
        assert stored.status_code == 200, stored.text

    def project(
        self, full_name: str = "", files: Mapping[str, bytes] = BUGGY, *, app: App | None = None
    ) -> Project:
        """A repository with these files; the App is installed on its organisation, which has nothing else."""
        app = app or self.app
        full_name = full_name or f"org-{next(self._numbers)}/calc"
        repo = self.github.create_repository(full_name, files, private=True)
        installation = self.github.install(app, repo.owner.login, [repo], PERMISSIONS)
        maintainer = self.github.create_user(f"{repo.owner.login}-maintainer")
        self.github.grant(repo, maintainer, "write")
        return Project(repo, app, installation, maintainer)

    def play(self, script: Sequence[Step], *, at: Project) -> None:
        """Claude plays this script in the runs of a project."""
        task = f"Repository {at.repo.full_name}, "
        self.claude.play(script, when=lambda request: task in first_user_text(request))

    # --- waiting -----------------------------------------------------------------------------------------

    async def until(
        self, issue: Issue, kind: type[f.Fact], *, times: int = 1, seconds: float = 120.0
    ) -> list[Recorded]:
        """The issue's facts in order, up to the one that makes it ``times`` of ``kind``."""
        heard: list[Recorded] = []
        try:
            async with asyncio.timeout(seconds), self.millrace.nats() as client:
                async for recorded in Log(client, "e2e").follow(issue_subjects(issue.repo.id, issue.number)):
                    heard.append(recorded)
                    print(
                        recorded.envelope.time.time(),
                        kind_of(recorded.fact),
                        getattr(recorded.fact, "why", ""),
                    )
                    times -= isinstance(recorded.fact, kind)
                    if times == 0:
                        break
        except TimeoutError:
            so_far = [kind_of(recorded.fact) for recorded in heard]
            raise AssertionError(
                f"no {kind_of(kind)} within {seconds:g} s, only {so_far}\n{self.millrace.complaints()}"
            ) from None
        return heard

    async def finished(self, issue: Issue, *, runs: int = 1, seconds: float = 120.0) -> list[Recorded]:
        """The issue's facts once so many runs are over."""
        return await self.until(issue, f.RunFinished, times=runs, seconds=seconds)

    # --- looking -----------------------------------------------------------------------------------------

    def said(self, issue: Issue, app: App | None = None) -> list[Comment]:
        """What the App said on the issue."""
        return [comment for comment in self.github.comments(issue) if comment.app is (app or self.app)]

    async def history(self, issue: Issue, *, up_to: Recorded, replica: int = 0) -> list[dict[str, Any]]:
        """The issue's events as the API tells them, once it knows the newest."""
        path = f"/api/issues/{issue.repo.full_name}/{issue.number}/events"
        async with asyncio.timeout(60):
            while True:
                answer = await self.millrace.ask("GET", path, replica=replica)
                events = list(answer.json().get("events", ()))
                if events and events[-1]["sequence"] >= up_to.sequence:
                    return events


def kinds(history: Sequence[Recorded]) -> list[str]:
    """The kinds of facts, in order."""
    return [kind_of(recorded.fact) for recorded in history]


def only(history: Sequence[Recorded], kind: type[f.Fact]) -> Any:
    """The one fact of its kind."""
    (fact,) = [recorded.fact for recorded in history if isinstance(recorded.fact, kind)]
    return fact
