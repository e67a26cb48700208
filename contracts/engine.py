"""An engine inside a sandbox and the model outside: what the agent asks the runner, by request and reply.

Subject: ``sandbox.v1.<sandbox_id>.engine`` (see ``contracts.subjects``). The engine's requests to the model
wait at the runner until the agent has answered them: asking what waits changes nothing, so that an agent
that died is replaced by one that asks the same. Nothing here carries a credential, and nothing of it
enters the log as such. Everything in ``Asked`` was written inside a sandbox.
"""

import msgspec

PART_BYTES = 512 * 1024
"""Bytes of a body in one message: in base64 and JSON it stays below NATS's ``max_payload`` of 1 MiB."""
MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_REPLY_BYTES = 16 * 1024 * 1024
LAUNCHER = ("python3", "-I", "-S", "-B", "/opt/millrace/toolserver/relay.py")
"""Run in the sandbox with ``VARIABLE -- PROGRAM ARGUMENTS``: the program finds a URL in the variable; what
it sends there over HTTP waits at the runner."""


class Next(msgspec.Struct, frozen=True, kw_only=True, tag="next"):
    """Which request waits longest? Answered with ``Asked``, or with ``Quiet`` after some seconds.

    ``known`` is the request that the asker has the body of.
    """

    known: str = ""


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """More of a request's body, from byte ``at``; answered with ``Part`` or ``Gone``."""

    request: str
    at: int


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag="reply"):
    """Part of the answer to a request, from byte ``at``; it goes out with the ``last``.

    Answered with ``Taken``, also for a part that was taken before, or with ``Gone``.
    """

    request: str
    status: int
    headers: dict[str, str]
    at: int
    data: bytes
    last: bool


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """A request that waits. ``data`` is the body's beginning, nothing if it is known; ``size`` its length.

    ``target`` is path and query; the names of ``headers`` are in lower case.
    """

    request: str
    method: str
    target: str
    headers: dict[str, str]
    size: int
    data: bytes = b""


class Part(msgspec.Struct, frozen=True, kw_only=True, tag="part"):
    """Bytes of a body."""

    data: bytes


class Quiet(msgspec.Struct, frozen=True, kw_only=True, tag="quiet"):
    """Nothing waits."""


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """The runner has it."""


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone"):
    """Whoever made this request does not wait any more."""


class Unanswerable(msgspec.Struct, frozen=True, kw_only=True, tag="unanswerable"):
    """The question was unreadable, or the runner cannot listen for this sandbox."""

    why: str


EngineQuestion = Next | Read | Reply
EngineAnswer = Asked | Part | Quiet | Taken | Gone | Unanswerable
