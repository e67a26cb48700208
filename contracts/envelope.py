"""What surrounds a fact: who said it, when, about which run, and because of what.

Ids derive from causes, so that doing something a second time yields the same id and is recognised.
"""

import hashlib
from datetime import UTC, datetime

import msgspec

from contracts.facts import AnyFact, Fact

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class RunKey(msgspec.Struct, frozen=True, order=True):
    """Which run: GitHub's numeric repository id, the issue number, the run's id (a ULID)."""

    repository_id: int
    issue: int
    run: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a fact, carried as CloudEvents headers (``contracts.codec``).

    ``cause`` is the id of the fact or delivery that led to it. ``time`` is aware, UTC.
    """

    id: str
    key: RunKey
    source: str
    time: datetime
    cause: str
    traceparent: str = ""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as the log holds it. ``sequence`` is its place in the stream, from 1."""

    sequence: int
    envelope: Envelope
    fact: AnyFact

    @property
    def key(self) -> RunKey:
        """The run it belongs to."""
        return self.envelope.key


def identity_of(fact: Fact) -> str:
    """What tells this fact from others of its kind in one run: its turn, tool use, attempt, generation, …

    A run holds at most one fact per kind and identity; the first that was appended stands.
    """
    names = ("turn", "tool_use_id", "attempt", "generation", "comment_id", "stage")
    return ",".join(f"{name}={getattr(fact, name)}" for name in names if hasattr(fact, name))


def derive_id(*cause: str | int) -> str:
    """A stable id for "what follows from exactly this": 32 hex digits of SHA-256 over the parts."""
    text = "\x1f".join(str(part) for part in cause)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_run_id(at: datetime, *cause: str | int) -> str:
    """A ULID whose time is the trigger's and whose random part is its cause.

    The same trigger, delivered again or by another hook, names the same run.
    """
    milliseconds = int(at.astimezone(UTC).timestamp() * 1000) & ((1 << 48) - 1)
    tail = int.from_bytes(hashlib.sha256("\x1f".join(map(str, cause)).encode()).digest()[:10], "big")
    value = (milliseconds << 80) | tail
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
