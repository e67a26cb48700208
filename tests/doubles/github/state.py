"""What GitHub knows: people, apps, installations, repositories, issues, pull requests."""

import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.doubles.github.repository import GitRepository

Json = dict[str, Any]


def now() -> datetime:
    """This moment, in whole seconds as GitHub tells time."""
    return datetime.now(UTC).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    """GitHub's way to write a moment."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_id(kind: str, number: int) -> str:
    """An opaque global id."""
    return base64.b64encode(f"{kind}{number}".encode()).decode()


@dataclass(eq=False)
class User:
    """A person, an organisation or a bot; ``type`` is User, Organization or Bot."""

    id: int
    login: str
    type: str = "User"


@dataclass(eq=False)
class App:
    """A GitHub App with its webhook."""

    id: int
    slug: str
    owner: User
    bot: User
    private_key_pem: str
    webhook_secret: str
    webhook_url: str
    hook_id: int
    events: tuple[str, ...]
    created_at: datetime = field(default_factory=now)


@dataclass(eq=False)
class Installation:
    """An app on an account; set ``suspended`` or ``deleted`` to see what then happens to tokens."""

    id: int
    app: App
    account: User
    repositories: "list[Repository]"
    permissions: dict[str, str]
    suspended: bool = False
    deleted: bool = False
    created_at: datetime = field(default_factory=now)


@dataclass(eq=False)
class Label:
    """A repository's label."""

    id: int
    name: str
    color: str = "ededed"


@dataclass(eq=False)
class Comment:
    """A comment on an issue or pull request; ``app`` when an app wrote it."""

    id: int
    issue: "Issue"
    body: str
    user: User
    app: App | None = None
    created_at: datetime = field(default_factory=now)
    updated_at: datetime = field(default_factory=now)
    reactions: list[tuple[int, User, str]] = field(default_factory=list)


@dataclass(eq=False)
class Issue:
    """An issue; a pull request has one too, under the same number."""

    id: int
    repo: "Repository"
    number: int
    title: str
    body: str | None
    user: User
    app: App | None = None
    labels: list[Label] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    state: str = "open"
    state_reason: str | None = None
    deleted: bool = False
    locked: bool = False
    created_at: datetime = field(default_factory=now)
    updated_at: datetime = field(default_factory=now)
    closed_at: datetime | None = None
    reactions: list[tuple[int, User, str]] = field(default_factory=list)

    def close(self, reason: str | None) -> None:
        """Close it now."""
        self.state, self.state_reason, self.closed_at = "closed", reason, now()
        self.updated_at = now()

    def reopen(self) -> None:
        """Open it again."""
        self.state, self.state_reason, self.closed_at = "open", "reopened", None
        self.updated_at = now()


@dataclass(eq=False)
class PullRequest:
    """A pull request between two branches of one repository; shas are kept for when a branch goes away."""

    id: int
    issue: Issue
    head: str
    base: str
    head_sha: str
    base_sha: str
    draft: bool = False
    merged_at: datetime | None = None
    merge_commit_sha: str | None = None
    maintainer_can_modify: bool = False

    @property
    def repo(self) -> "Repository":
        """Where it is."""
        return self.issue.repo

    @property
    def number(self) -> int:
        """Its number, shared with its issue."""
        return self.issue.number

    @property
    def title(self) -> str:
        """Its title."""
        return self.issue.title

    @property
    def body(self) -> str | None:
        """Its description."""
        return self.issue.body

    @property
    def state(self) -> str:
        """``open`` or ``closed``."""
        return self.issue.state


@dataclass(eq=False)
class Repository:
    """A repository with its real git repository; ``archived`` makes it read-only."""

    id: int
    owner: User
    name: str
    private: bool
    default_branch: str
    git: GitRepository
    archived: bool = False
    collaborators: dict[int, str] = field(default_factory=dict)
    issues: dict[int, Issue] = field(default_factory=dict)
    pulls: dict[int, PullRequest] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    created_at: datetime = field(default_factory=now)
    pushed_at: datetime = field(default_factory=now)

    @property
    def full_name(self) -> str:
        """``owner/name``."""
        return f"{self.owner.login}/{self.name}"

    @property
    def empty(self) -> bool:
        """Whether it has no commit yet."""
        return not self.git.refs("refs/heads/")


@dataclass(frozen=True)
class Event:
    """Something that the apps on a repository hear about, or the app of an installation."""

    name: str
    payload: Json
    repo: Repository | None = None
    installation: Installation | None = None


@dataclass(eq=False)
class Delivery:
    """One attempt to deliver a webhook; ``status`` is 0 when no answer came, ``answer`` then says why."""

    id: int
    guid: str
    event: str
    app: App
    payload: Json
    headers: dict[str, str]
    redelivery: bool = False
    status: int = 0
    answer: str = ""
    delivered_at: datetime = field(default_factory=now)
    seconds: float = 0.0

    @property
    def action(self) -> str | None:
        """The action within the event, where the event has actions."""
        return self.payload.get("action")


@dataclass
class World:
    """All of it; requests add ``events`` and ``redeliveries``, the server sends them on."""

    root: Path
    url: str = ""
    users: dict[str, User] = field(default_factory=dict)
    apps: dict[int, App] = field(default_factory=dict)
    installations: dict[int, Installation] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, Repository] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    redeliveries: list[Delivery] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(3_000_000_001))

    @property
    def api_url(self) -> str:
        """Where the REST interface is."""
        return f"{self.url}/api/v3"

    def user(self, login: str, kind: str = "User") -> User:
        """The account with this login, made on first mention."""
        return self.users.setdefault(login.lower(), User(next(self.ids), login, kind))

    def repository(self, owner: str, name: str) -> Repository | None:
        """By name, in any case."""
        return self.repositories.get(f"{owner}/{name}".lower())

    def installation_of(self, app: App, repo: Repository) -> Installation | None:
        """The app's installation that reaches a repository."""
        for found in self.installations.values():
            if found.app is app and repo in found.repositories and not found.deleted:
                return found
        return None

    def label(self, repo: Repository, name: str) -> Label:
        """A repository's label, made on first mention."""
        return repo.labels.setdefault(name.lower(), Label(next(self.ids), name))

    def access(self, repo: Repository, user: User) -> str:
        """``admin``, ``maintain``, ``write``, ``triage``, ``read`` or ``none``."""
        if user is repo.owner:
            return "admin"
        return repo.collaborators.get(user.id, "none" if repo.private else "read")
