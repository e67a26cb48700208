"""GitHub's webhook JSON into our words: the one file that knows its fields.

Only the few fields that are needed are read, everything else is tolerated: a quarter to a half of GitHub's
own example payloads break the published schemas. Source of names: GitHub Docs, "Webhook events and payloads".
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec

from contracts import facts as f
from services.gateway.heard import AnyHeard, Commented, Ended, Ignored, Labelled, Opened

TEXT_BYTES = 96 * 1024
"""Room for an issue's or a comment's text in a fact, as JSON; GitHub itself stops at 65,536 characters."""
TITLE_BYTES = 2048
CUT = "\n\n[cut here: the text is longer]"

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.-]{1,100}"  # whatever it is, it does not leave its place in a path
FullName = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}/{_NAME}\Z")]
"""``owner/name``."""
_Login = Annotated[str, msgspec.Meta(pattern=r"^(?!\.{1,2}\Z)[A-Za-z0-9_.\[\]-]{1,100}\Z")]


class BadPayload(ValueError):  # noqa: N818  an answer, not a fault of ours
    """A signed body that is not what GitHub sends; the sentence says what is wrong and quotes nothing."""


class ForeignApp(Exception):  # noqa: N818
    """A signed body about an installation of another App than the one that signed."""


class _User(msgspec.Struct):
    id: _Id
    login: _Login
    type: str = "User"

    @property
    def is_bot(self) -> bool:
        return self.type == "Bot" or self.login.endswith("[bot]")

    def person(self) -> f.Person:
        return f.Person(id=self.id, login=self.login)


class _Repository(msgspec.Struct):
    id: _Id
    full_name: FullName
    default_branch: str = "main"
    private: bool = False


class _Issue(msgspec.Struct):
    number: _Id
    title: str
    created_at: datetime
    updated_at: datetime | None = None
    body: str | None = None
    user: _User | None = None
    html_url: str = ""
    pull_request: Any = None
    performed_via_github_app: Any = None


class _Comment(msgspec.Struct):
    id: _Id
    body: str
    created_at: datetime
    user: _User | None = None
    performed_via_github_app: Any = None


class _Label(msgspec.Struct):
    name: str


class _Installation(msgspec.Struct):
    id: _Id
    app_id: _Id | None = None


class _Event(msgspec.Struct):
    """An event about an issue; ``action`` alone is read for every other kind."""

    action: str
    issue: _Issue
    repository: _Repository
    sender: _User
    installation: _Installation | None = None
    comment: _Comment | None = None
    label: _Label | None = None


class _Anything(msgspec.Struct):
    action: Any = None


_events = msgspec.json.Decoder(_Event)
_anything = msgspec.json.Decoder(_Anything)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of a verified request say. ``app_id`` is the App whose hook it is, if it is one's."""

    id: str
    event: str
    app_id: int | None = None


def unform(body: bytes) -> bytes:
    """The JSON inside ``application/x-www-form-urlencoded``; ``BadPayload`` unless exactly one is there."""
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:
        raise BadPayload("the form cannot be read: it must be percent-encoded UTF-8") from error
    payloads = [value for name, value in fields if name == "payload"]
    if len(payloads) != 1:
        raise BadPayload(f"the form must hold the field payload once, not {len(payloads)} times")
    return payloads[0].encode()


def translate(delivery: Delivery, body: bytes) -> tuple[str, AnyHeard | Ignored]:
    """The action, and what was heard or why nothing was.

    Args:
        delivery: the headers.
        body: the JSON, verified.

    Raises:
        BadPayload: the body is no JSON object, or is nested too deeply to be read.
        ForeignApp: it is about another App's installation.
    """
    anything = _read(_anything.decode, body)
    action = bounded(anything.action[:100], 1024) if isinstance(anything.action, str) else ""
    translator = _TRANSLATORS.get((delivery.event, action))
    if translator is None:
        return action, Ignored(reason="ping" if delivery.event == "ping" else "event_not_used")
    try:
        event = _events.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return action, Ignored(reason="unreadable")
    if event.installation is not None and event.installation.app_id not in (None, delivery.app_id):
        raise ForeignApp
    if event.sender.is_bot and translator not in _ENDS:  # a bot starts nothing, but what it closes is closed
        return action, Ignored(reason="bot")
    if event.issue.pull_request is not None:
        return action, Ignored(reason="pull_request")
    try:
        return action, translator(delivery, event)
    except OverflowError:  # a time that no calendar holds
        return action, Ignored(reason="unreadable")


def _read(decode: Callable[[bytes], _Anything], body: bytes) -> _Anything:
    try:
        body.decode()  # msgspec passes over fields that it does not need, whatever bytes they hold
        return decode(body)
    except UnicodeDecodeError as error:
        raise BadPayload("the body is not UTF-8") from error
    except RecursionError as error:
        raise BadPayload("the body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BadPayload("the body must be a JSON object") from error
    except msgspec.DecodeError as error:
        raise BadPayload("the body is not JSON") from error


def _opened(delivery: Delivery, event: _Event) -> AnyHeard | Ignored:
    if event.issue.performed_via_github_app is not None:
        return Ignored(reason="bot")
    return Opened(**_common(delivery, event, event.issue.created_at))


def _labelled(delivery: Delivery, event: _Event) -> AnyHeard | Ignored:
    if event.label is None:
        return Ignored(reason="unreadable")
    at = event.issue.updated_at or event.issue.created_at
    # GitHub tells a label that was set while opening in a delivery of its own, as of the same moment.
    while_opening = at <= event.issue.created_at
    return Labelled(**_common(delivery, event, at), label=event.label.name[:200], while_opening=while_opening)


def _commented(delivery: Delivery, event: _Event) -> AnyHeard | Ignored:
    comment = event.comment
    if comment is None:
        return Ignored(reason="unreadable")
    if comment.performed_via_github_app is not None or (comment.user is not None and comment.user.is_bot):
        return Ignored(reason="bot")
    return Commented(
        **_common(delivery, event, comment.created_at),
        comment_id=comment.id,
        text=bounded(comment.body, TEXT_BYTES),
    )


def _closed(delivery: Delivery, event: _Event) -> AnyHeard:
    return _ended(delivery, event, "closed")


def _deleted(delivery: Delivery, event: _Event) -> AnyHeard:
    return _ended(delivery, event, "deleted")


def _transferred(delivery: Delivery, event: _Event) -> AnyHeard:
    return _ended(delivery, event, "transferred")


def _ended(delivery: Delivery, event: _Event, how: Any) -> AnyHeard:
    return Ended(**_common(delivery, event, event.issue.updated_at or event.issue.created_at), how=how)


_TRANSLATORS: dict[tuple[str, str], Callable[[Delivery, _Event], AnyHeard | Ignored]] = {
    ("issues", "opened"): _opened,
    ("issues", "labeled"): _labelled,
    ("issue_comment", "created"): _commented,
    ("issues", "closed"): _closed,
    ("issues", "deleted"): _deleted,
    ("issues", "transferred"): _transferred,
}


_ENDS = frozenset({_closed, _deleted, _transferred})


def _common(delivery: Delivery, event: _Event, at: datetime) -> dict[str, Any]:
    issue, repository = event.issue, event.repository
    author = issue.user or event.sender
    return {
        "delivery": delivery.id,
        "app_id": delivery.app_id,
        "installation_id": None if event.installation is None else event.installation.id,
        "repository": f.Repository(
            id=repository.id,
            full_name=repository.full_name,
            default_branch=bounded(repository.default_branch, 1024),
            private=repository.private,
        ),
        "issue": f.Issue(
            number=issue.number,
            title=bounded(issue.title, TITLE_BYTES),
            body=bounded(issue.body or "", TEXT_BYTES),
            author=author.person(),
            url=bounded(issue.html_url, 1024),
        ),
        "actor": event.sender.person(),
        "at": at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC),
    }


def bounded(text: str, limit: int) -> str:
    """``text`` without NUL (no database stores it), and at most ``limit`` bytes of JSON, cut with a note."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if len(text) * 6 <= limit or len(msgspec.json.encode(text)) <= limit:
        return text
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if len(msgspec.json.encode(text[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    return text[:low] + CUT
