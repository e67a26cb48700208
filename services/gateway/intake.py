"""``POST /webhook/github`` as a raw ASGI route: bounded, verified, remembered, answered; in this order.

Until a body's signature holds, nothing of it is parsed, stored, logged or sent back.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

import msgspec
import structlog

from services.gateway.decide import Rules, at_once, only_an_answer
from services.gateway.deliveries import Deliveries, New
from services.gateway.heard import Ignored
from services.gateway.inbox import BadPayload, Delivery, ForeignApp, translate, unform
from services.gateway.metrics import Metrics
from services.gateway.signature import SignedBody, verify
from services.gateway.webhook_secrets import Keeper
from services.kit.errors import Later

MAX_BODY = 25 * 1024 * 1024
"""GitHub sends at most 25 MB."""
BODY_SECONDS = 10.0
"""From the end of the headers to the end of the body: as long as GitHub waits for everything."""
LARGE = 256 * 1024
"""Bodies above this are verified and parsed in a thread, so that they hold nobody up."""
ROOM = 8 * MAX_BODY
"""What all large bodies together may occupy: strangers send them too, and memory is needed for the others."""

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_NAME = re.compile(r"[a-z0-9_]{1,64}")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = structlog.get_logger(__name__)


_CLOSE = (b"connection", b"close")


class Reply(NamedTuple):
    """An HTTP answer: JSON. ``unread``: the request's body is still coming."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()
    unread: bool = False


class Stop(Exception):  # noqa: N818  an answer, raised
    """Nothing more is done with this request. ``outcome`` is for the metrics."""

    def __init__(
        self, status: int, error: str, outcome: str, *headers: tuple[bytes, bytes], unread: bool = False
    ) -> None:
        super().__init__(error)
        self.reply = Reply(status, {"error": error}, (*headers, _CLOSE) if unread else headers, unread)
        self.outcome = outcome


class Disconnected(Exception):  # noqa: N818
    """The client left before its request was whole."""


class Intake:
    """The ASGI application.

    Args:
        keeper: the webhook secrets.
        deliveries: where they are remembered.
        rules: what asks for work.
        metrics: counts the outcomes.
        body_seconds: how long a body may take.
    """

    def __init__(
        self,
        keeper: Keeper,
        deliveries: Deliveries,
        rules: Rules,
        metrics: Metrics,
        *,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._keeper = keeper
        self._deliveries = deliveries
        self._rules = rules
        self._metrics = metrics
        self._body_seconds = body_seconds
        self._room = _Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            reply, outcome = await self._take(scope, receive)
        except Stop as stop:
            reply, outcome = stop.reply, stop.outcome
        except Disconnected:
            self._metrics.delivery("disconnected")
            return
        self._metrics.delivery(outcome)
        await self._answer(receive, send, reply)

    async def _take(self, scope: Scope, receive: Receive) -> tuple[Reply, str]:
        if scope["method"] != "POST":
            raise Stop(405, "GitHub's webhooks are POST requests", "invalid", (b"allow", b"POST"))
        headers = _Headers(scope["headers"])
        with self._room.occupied() as more:
            raw = await self._body(headers, receive, more)
            signed = await self._verified(headers, raw)
            delivery = _delivery(headers, signed)
            new = await _off_loop(len(raw), self._read, headers, delivery, signed)
        try:
            remembered = await self._deliveries.remember(new)
        except Later as error:
            raise Stop(503, f"{error}; send it again", "unavailable", (b"retry-after", b"10")) from error
        logger.info(
            "delivery", delivery=delivery.id, webhook=delivery.event, action=new.action,
            status=remembered.status, reason=remembered.reason,
        )  # fmt: skip
        status = 200 if delivery.event == "ping" else 202
        return Reply(status, _body_of(delivery, remembered.status, remembered.reason)), remembered.status

    def _read(self, headers: "_Headers", delivery: Delivery, signed: SignedBody) -> New:
        try:
            action, heard = translate(delivery, _json_of(headers, signed.raw))
        except BadPayload as error:
            raise Stop(400, str(error), "invalid") from error
        except ForeignApp as error:
            raise _unsigned() from error
        if not isinstance(heard, Ignored):
            heard = at_once(heard, self._rules) or heard
        return New(
            delivery=delivery.id,
            event=delivery.event,
            action=action,
            heard=heard,
            only_an_answer=not isinstance(heard, Ignored) and only_an_answer(heard, self._rules),
        )

    async def _verified(self, headers: "_Headers", raw: bytes) -> SignedBody:
        try:
            candidates = self._keeper.candidates(_target_app(headers))
        except Later as error:
            raise Stop(503, f"{error}; send it again", "unavailable", (b"retry-after", b"5")) from error
        signatures = headers.all(b"x-hub-signature-256")
        signed: SignedBody | None = await _off_loop(len(raw), verify, raw, signatures, candidates)
        if signed is None:
            raise _unsigned()
        return signed

    async def _body(self, headers: "_Headers", receive: Receive, more: Callable[[int], bool]) -> bytes:
        if headers.all(b"transfer-encoding") not in ([], [b"chunked"]):
            raise Stop(400, "the body must not be compressed on its way", "invalid", unread=True)
        declared = headers.one(b"content-length")
        if declared.isdecimal() and int(declared[:20]) > MAX_BODY:
            raise _too_large(unread=True)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part, unread = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    if size > MAX_BODY:
                        raise _too_large(unread=unread)
                    if not more(size):
                        why = "too many large bodies at once; send it again"
                        raise Stop(503, why, "unavailable", (b"retry-after", b"10"), unread=unread)
                    parts.append(part)
                    if not unread:
                        return b"".join(parts)
        except TimeoutError as error:
            why = f"the body did not arrive within {self._body_seconds:g} s"
            raise Stop(408, why, "too_slow", _CLOSE) from error

    async def _answer(self, receive: Receive, send: Send, reply: Reply) -> None:
        body = msgspec.json.encode(reply.body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": reply.unread})
        if reply.unread:
            # To close with bytes unread would reset the connection, and take the answer back.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._body_seconds):
                    while (await receive()).get("more_body", False):
                        pass
            await send({"type": "http.response.body", "body": b""})


class _Room:
    """Counts what large bodies occupy. The first ``LARGE`` bytes of each are free: usual ones always fit."""

    def __init__(self) -> None:
        self._free = ROOM

    @contextlib.contextmanager
    def occupied(self) -> Iterator[Callable[[int], bool]]:
        """Yields what takes room for a body of this size so far; it returns False if there is none."""
        taken = 0

        def more(size: int) -> bool:
            nonlocal taken
            wanted = max(size - LARGE, 0) - taken
            if wanted > self._free:
                return False
            taken, self._free = taken + wanted, self._free - wanted
            return True

        try:
            yield more
        finally:
            self._free += taken


class _Headers:
    """Header lines by lower-case name; several of one name stay several."""

    def __init__(self, lines: list[tuple[bytes, bytes]]) -> None:
        self._lines = lines

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self._lines if each == name]

    def one(self, name: bytes) -> str:
        """The value of a header that is there exactly once, or nothing."""
        values = self.all(name)
        return values[0].decode("latin-1").strip() if len(values) == 1 else ""


def _unsigned() -> Stop:
    """One answer for every reason: which secret or App exists is nobody's business."""
    return Stop(401, "the request carries no valid X-Hub-Signature-256", "unsigned")


def _too_large(*, unread: bool) -> Stop:
    return Stop(413, f"the body is larger than {MAX_BODY} bytes", "too_large", unread=unread)


def _target_app(headers: _Headers) -> int | None:
    """The App that the hook belongs to; None for a repository's or organisation's own hook.

    An id that cannot be one matches no App, and so no secret.
    """
    target = headers.all(b"x-github-hook-installation-target-id")
    kind = headers.one(b"x-github-hook-installation-target-type") or "integration"
    if not target or kind != "integration":
        return None
    value = headers.one(b"x-github-hook-installation-target-id")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else -1


def _delivery(headers: _Headers, signed: SignedBody) -> Delivery:
    identity, event = headers.one(b"x-github-delivery"), headers.one(b"x-github-event")
    if not _ID.fullmatch(identity):
        raise Stop(400, "X-GitHub-Delivery must be there once and be an id", "invalid")
    if not _NAME.fullmatch(event):
        raise Stop(400, "X-GitHub-Event must be there once and be a name", "invalid")
    kind = headers.one(b"x-github-hook-installation-target-type") or "integration"
    return Delivery(id=identity, event=event, app_id=signed.app_id if kind == "integration" else None)


def _json_of(headers: _Headers, raw: bytes) -> bytes:
    """The JSON, after its content type: GitHub sends JSON, or the same in a form field."""
    if headers.all(b"content-encoding") not in ([], [b"identity"]):
        raise Stop(415, "send the body as it is, without Content-Encoding", "invalid")
    kind, _, parameters = headers.one(b"content-type").lower().partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset is None or charset[1] in ("utf-8", "utf8", "us-ascii"):
        if kind.strip() == "application/json":
            return raw
        if kind.strip() == "application/x-www-form-urlencoded":
            return unform(raw)
    raise Stop(415, "set the webhook's content type to application/json", "invalid")


def _body_of(delivery: Delivery, status: str, reason: str | None) -> dict[str, Any]:
    return {"delivery": delivery.id, "status": status, "reason": reason}


async def _off_loop(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments) if size > LARGE else work(*arguments)
