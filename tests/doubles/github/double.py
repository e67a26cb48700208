"""The verbs: what a test or the demo does at GitHub, and what it looks at there."""

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.doubles.github import changes
from tests.doubles.github.auth import Vault, new_private_key
from tests.doubles.github.faults import Faults
from tests.doubles.github.looks import Looks
from tests.doubles.github.people import People
from tests.doubles.github.repository import Change, GitRepository
from tests.doubles.github.server import Application, Exchange, Server, listen, server
from tests.doubles.github.state import (
    App,
    Delivery,
    Installation,
    Json,
    Repository,
    User,
    World,
    now,
)
from tests.doubles.github.webhooks import Deliverer

_EVENTS = ("issues", "issue_comment", "pull_request")
_STOP_SECONDS = 5.0


class GitHubDouble(People, Looks):
    """A GitHub on a free loopback port, inside the caller's loop.

    ``url`` is for the web and git, ``api_url`` for REST. ``exchanges`` are the requests it got,
    ``violations`` what broke GitHub's description: empty when every request, answer and webhook kept to it.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="github-double-")
        self.world = World(Path(self._folder.name))
        self.vault = Vault(self.world)
        self.faults = Faults()
        self.violations: list[str] = []
        self._deliverer = Deliverer(self.world, self.violations)
        self._application = Application(self.world, self.vault, self._deliverer, self.faults, self.violations)
        self._server: Server = server(self._application)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        listener = listen()
        self.world.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # Listening begins here, so a request that comes before the server runs waits instead of failing.
        listener.listen()
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._deliverer.close()
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, _STOP_SECONDS)
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Web and git."""
        return self.world.url

    @property
    def api_url(self) -> str:
        """REST."""
        return self.world.api_url

    @property
    def exchanges(self) -> list[Exchange]:
        """Requests in the order they came."""
        return self._application.exchanges

    @property
    def deliveries(self) -> list[Delivery]:
        """Webhook deliveries in the order they ended."""
        return self.world.deliveries

    # People, repositories, apps.

    def create_user(self, login: str, kind: str = "User") -> User:
        """An account; ``kind`` is User or Organization."""
        return self.world.user(login, kind)

    def create_repository(
        self, full_name: str, files: Mapping[str, bytes] | None = None, *, private: bool = False,
        default_branch: str = "main",
    ) -> Repository:  # fmt: skip
        """A repository of an organisation, with one commit unless there are no files."""
        owner_name, _, name = full_name.partition("/")
        owner = self.world.user(owner_name, "Organization")
        number = next(self.world.ids)
        git = GitRepository(self.world.root / f"{number}.git")
        git.create(default_branch)
        repo = Repository(number, owner, name, private, default_branch, git)
        self.world.repositories[full_name.lower()] = repo
        if files:
            self.commit_files(repo, files, message="Initial commit")
        return repo

    def commit_files(
        self, repo: Repository, files: Mapping[str, bytes | None], *, message: str = "Change",
        branch: str = "", by: User | None = None, at: datetime | None = None,
    ) -> str:  # fmt: skip
        """A commit on a branch (default: the default branch, made if absent); ``None`` deletes a file."""
        name = f"refs/heads/{branch or repo.default_branch}"
        parent = repo.git.ref(name) or repo.git.ref(f"refs/heads/{repo.default_branch}")
        rows = [
            Change(path, "100644", None if content is None else repo.git.write_blob(content))
            for path, content in files.items()
        ]
        tree = repo.git.write_tree(parent, rows)
        person = changes.signature_of(by or repo.owner, at)
        sha = repo.git.write_commit(tree, [parent] if parent else [], message, person, person)
        repo.git.set_ref(name, sha)
        repo.pushed_at = now()
        return sha

    def create_app(
        self, app_id: int = 1001, *, webhook_secret: str | None = None,
        webhook_url: str = "http://127.0.0.1:9/webhook/github", private_key_pem: str | None = None,
        slug: str = "millrace", events: Iterable[str] = _EVENTS,
    ) -> App:  # fmt: skip
        """An app with its bot user; key and secret are made unless given, ``webhook_url`` may change."""
        bot = self.world.user(f"{slug}[bot]", "Bot")
        owner = self.world.user(f"{slug}-makers", "Organization")
        key, secret = private_key_pem or new_private_key(), webhook_secret or secrets.token_hex(32)
        app = App(app_id, slug, owner, bot, key, secret, webhook_url, next(self.world.ids), tuple(events))
        self.world.apps[app_id] = app
        return app

    def install(
        self, app: App, owner: str, repositories: Iterable[Repository], permissions: Mapping[str, str]
    ) -> Installation:
        """Install an app on an account, for these repositories; announce with ``announce_installation``."""
        account = self.world.user(owner, "Organization")
        granted = {"metadata": "read", **permissions}
        installation = Installation(next(self.world.ids), app, account, list(repositories), granted)
        self.world.installations[installation.id] = installation
        return installation

    async def announce_installation(self, installation: Installation, action: str = "created") -> None:
        """Send an ``installation`` webhook; ``deleted``, ``suspend`` and ``unsuspend`` also happen."""
        installation.deleted = action == "deleted"
        installation.suspended = action == "suspend" or (installation.suspended and action != "unsuspend")
        changes.announce_installation(self.world, installation, action)
        await self.settle()

    def grant(self, repo: Repository, user: User, role: str) -> None:
        """Make a user a collaborator: read, triage, write, maintain or admin; ``none`` takes it away."""
        if role == "none":
            repo.collaborators.pop(user.id, None)
        else:
            repo.collaborators[user.id] = role

    # Webhooks.

    async def send(
        self, event: str, payload: Json, *, app: App, delivery: str | None = None, secret: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:  # fmt: skip
        """Deliver any payload, right or wrong; the receiver's status (0: none came) and body."""
        sent = await self._deliverer.deliver(
            app, event, payload, guid=delivery, secret=secret, headers=headers
        )
        return sent.status, sent.answer

    async def redeliver(self, delivery_id: int) -> Delivery:
        """Deliver again under the same guid.

        Raises:
            LookupError: there was no such delivery.
        """
        for one in self.deliveries:
            if one.id == delivery_id:
                return await self._deliverer.redeliver(one)
        raise LookupError(f"no delivery {delivery_id}")

    async def settle(self) -> None:
        """Deliver the events that wait, and return when each attempt ended."""
        await self._deliverer.settle()

    async def drain(self) -> None:
        """Wait until the webhooks that requests caused are delivered."""
        await self._deliverer.drain()
