"""What people did at GitHub, in our words. Pure data, as the inbox keeps it.

GitHub's own JSON is translated in ``services.gateway.inbox`` and nowhere else.
"""

from datetime import datetime
from typing import Literal

import msgspec

from contracts import facts as f


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base: who did something to which issue, when, and through which App's hook.

    ``installation_id`` is None for a hook of the repository itself. ``at`` is GitHub's time of the event,
    aware, UTC; it tells the same event from another, whatever id it is delivered under.
    """

    delivery: str
    app_id: int | None
    installation_id: int | None
    repository: f.Repository
    issue: f.Issue
    actor: f.Person
    at: datetime


class Opened(Heard, frozen=True, kw_only=True, tag="opened"):
    """An issue was opened."""


class Labelled(Heard, frozen=True, kw_only=True, tag="labelled"):
    """A label was put on an issue; ``while_opening`` means that the issue was opened with it."""

    label: str
    while_opening: bool = False


class Commented(Heard, frozen=True, kw_only=True, tag="commented"):
    """Somebody commented on an issue."""

    comment_id: int
    text: str


class Ended(Heard, frozen=True, kw_only=True, tag="ended"):
    """The issue is no longer there to be worked on."""

    how: Literal["closed", "deleted", "transferred"]


AnyHeard = Opened | Labelled | Commented | Ended


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing follows from a delivery; ``reason`` is a stable name."""

    reason: str


_decoder: msgspec.json.Decoder[AnyHeard] = msgspec.json.Decoder(AnyHeard)


def encode_heard(heard: AnyHeard) -> bytes:
    """The bytes that the inbox keeps."""
    return msgspec.json.encode(heard)


def decode_heard(body: bytes) -> AnyHeard:
    """What ``encode_heard`` wrote; ``msgspec.DecodeError`` for anything else."""
    return _decoder.decode(body)
