"""The verbs: what a test or the demo does at GitHub, and what it looks at there."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.doubles.github import changes, views
from tests.doubles.github.auth import Vault, new_private_key
from tests.doubles.github.faults import Faults
from tests.doubles.github.repository import Change, GitFailedError, GitRepository
from tests.doubles.github.server import Application, Exchange, Server, listen, server
from tests.doubles.github.state import (
    App,
    Comment,
    Delivery,
    Event,
    Installation,
    Issue,
    Json,
    PullRequest,
    Repository,
    User,
    World,
    now,
    stamp,
)
from tests.doubles.github.webhooks import Deliverer

_EVENTS = ("issues", "issue_comment", "pull_request")
_STOP_SECONDS = 5.0


class GitHubDouble:
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
        self, repo: Repository, files: Mapping[str, bytes | None], *, message: str = "Change", branch: str = "",
        by: User | None = None,
    ) -> str:  # fmt: skip
        """A commit on a branch (default: the default branch, made if absent); ``None`` deletes a file."""
        name = f"refs/heads/{branch or repo.default_branch}"
        parent = repo.git.ref(name) or repo.git.ref(f"refs/heads/{repo.default_branch}")
        rows = [
            Change(path, "100644", None if content is None else repo.git.write_blob(content))
            for path, content in files.items()
        ]
        tree = repo.git.write_tree(parent, rows)
        who = by or repo.owner
        person = (who.login, f"{who.login}@users.noreply.github.com", stamp(now()))
        sha = repo.git.write_commit(tree, [parent] if parent else [], message, person, person)
        repo.git.set_ref(name, sha)
        repo.pushed_at = now()
        return sha

    def create_app(
        self, app_id: int = 1001, *, webhook_secret: str = "double-webhook-secret",
        webhook_url: str = "http://127.0.0.1:9/webhook/github", private_key_pem: str | None = None,
        slug: str = "millrace", events: Iterable[str] = _EVENTS,
    ) -> App:  # fmt: skip
        """An app with its bot user; a key is made unless one is given. ``webhook_url`` may change later."""
        bot = self.world.user(f"{slug}[bot]", "Bot")
        owner = self.world.user(f"{slug}-makers", "Organization")
        key = private_key_pem or new_private_key()
        app = App(
            app_id, slug, owner, bot, key, webhook_secret, webhook_url, next(self.world.ids), tuple(events)
        )
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
        short = [
            {
                key: views.repository(self.world, one)[key]
                for key in ("id", "node_id", "name", "full_name", "private")
            }
            for one in installation.repositories
        ]
        payload: Json = {
            "action": action,
            "installation": views.installation(self.world, installation),
            "repositories": short,
            "sender": views.user(self.world, installation.account),
        }
        if action == "created":
            payload["requester"] = None
        self.world.events.append(Event("installation", action, payload, None, installation.app))
        await self._deliverer.settle()

    def grant(self, repo: Repository, user: User, role: str) -> None:
        """Make a user a collaborator: read, triage, write, maintain or admin; ``none`` takes it away."""
        if role == "none":
            repo.collaborators.pop(user.id, None)
        else:
            repo.collaborators[user.id] = role

    # What people do.

    async def open_issue(
        self, repo: Repository, title: str, body: str | None = None, *, by: User, labels: Iterable[str] = ()
    ) -> Issue:
        """Open an issue; labels set while opening are in ``opened`` and each in a ``labeled`` of its own."""
        issue = changes.open_issue(self.world, repo, title, body, by)
        issue.labels = [self.world.label(repo, name) for name in labels]
        changes.announce_issue(self.world, issue, "opened", by)
        for label in issue.labels:
            changes.announce_issue(
                self.world, issue, "labeled", by, label=views.label(self.world, repo, label)
            )
        await self._deliverer.settle()
        return issue

    async def comment(self, issue: Issue | PullRequest, body: str, *, by: User) -> Comment:
        """Say something."""
        it = changes.comment(self.world, _issue(issue), body, by)
        await self._deliverer.settle()
        return it

    async def edit_comment(self, comment: Comment, body: str, *, by: User) -> None:
        """Say it differently."""
        changes.edit_comment(self.world, comment, body, by)
        await self._deliverer.settle()

    async def delete_comment(self, comment: Comment, *, by: User) -> None:
        """Unsay it."""
        changes.delete_comment(self.world, comment, by)
        await self._deliverer.settle()

    async def label(self, issue: Issue | PullRequest, name: str, *, by: User) -> None:
        """Put a label on."""
        changes.add_label(self.world, _issue(issue), name, by)
        await self._deliverer.settle()

    async def unlabel(self, issue: Issue | PullRequest, name: str, *, by: User) -> None:
        """Take a label off that is on."""
        changes.remove_label(self.world, _issue(issue), name, by)
        await self._deliverer.settle()

    async def close(self, issue: Issue | PullRequest, *, by: User, reason: str = "completed") -> None:
        """Close; ``reason`` is completed or not_planned."""
        changes.set_state(self.world, _issue(issue), "closed", reason, by)
        await self._deliverer.settle()

    async def reopen(self, issue: Issue | PullRequest, *, by: User) -> None:
        """Open again."""
        changes.set_state(self.world, _issue(issue), "open", None, by)
        await self._deliverer.settle()

    async def edit_issue(
        self, issue: Issue, *, by: User, title: str | None = None, body: str | None = None
    ) -> None:
        """Another title or body."""
        changes.edit_issue(self.world, issue, by, title=title, body=body)
        await self._deliverer.settle()

    async def delete(self, issue: Issue, *, by: User) -> None:
        """Delete an issue: it is gone (410) from now on."""
        changes.announce_issue(self.world, issue, "deleted", by)
        issue.deleted = True
        await self._deliverer.settle()

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

    async def drain(self) -> None:
        """Wait until the webhooks that requests caused are delivered."""
        await self._deliverer.drain()

    # What is there.

    def pull_requests(self, repo: Repository) -> list[PullRequest]:
        """In the order they were opened."""
        return list(repo.pulls.values())

    def comments(self, issue: Issue | PullRequest) -> list[Comment]:
        """In the order they were made."""
        return list(_issue(issue).comments)

    def branches(self, repo: Repository) -> dict[str, str]:
        """Names to commits."""
        return {name.removeprefix("refs/heads/"): sha for name, sha in repo.git.refs("refs/heads/").items()}

    def file_at(self, repo: Repository, ref: str, path: str) -> bytes | None:
        """A file's bytes at a branch, tag or commit; ``None`` when it is not there."""
        commit = repo.git.resolve(ref)
        entry = repo.git.entry(commit, path) if commit else None
        return repo.git.read_blob(entry.sha) if entry and entry.type == "blob" else None

    def tree_id(self, repo: Repository, ref: str) -> str:
        """The tree of a branch, tag or commit.

        Raises:
            GitFailedError: there is no such thing.
        """
        tree = repo.git.resolve(ref, "tree")
        if tree is None:
            raise GitFailedError(f"{repo.full_name} has no {ref}")
        return tree


def _issue(it: Issue | PullRequest) -> Issue:
    return it.issue if isinstance(it, PullRequest) else it
