"""Every way to misbehave: refusals by status, and answers that are no answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.doubles.model.wire import Json, Receive, Send, error, events, head, stream, whole

STATUS = {
    "rate_limited": (429, "rate_limit_error", "Number of requests has exceeded your rate limit"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "unavailable": (503, "api_error", "Service unavailable"),
    "revoked_key": (401, "authentication_error", "invalid x-api-key"),
    "forbidden": (403, "permission_error", "Your API key does not have permission"),
    "no_credit": (402, "billing_error", "Your credit balance is too low"),
    "unknown_model": (404, "not_found_error", "model: no-such-model"),
    "context_too_long": (400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "bad_request": (400, "invalid_request_error", "messages.0: something is wrong"),
}


@dataclass
class Fault:
    """One way to misbehave, ``times`` times, once ``after_turns`` turns were paid."""

    kind: str
    times: int = 1
    retry_after: str | None = None
    after_turns: int = 0

    def __post_init__(self) -> None:
        """Refuse a typing mistake before a test relies on it."""
        if self.kind not in KINDS:
            raise ValueError(f"the double knows no fault {self.kind!r}; it knows {', '.join(sorted(KINDS))}")


async def misbehave(fault: Fault, message: Json, receive: Receive, send: Send) -> None:
    """Answer wrongly where ``message`` would have been right."""
    if fault.kind in STATUS:
        await error(send, *STATUS[fault.kind], retry_after=fault.retry_after)
    else:
        await _WAYS[fault.kind](message, receive, send)


async def _html(_: Json, __: Receive, send: Send) -> None:
    await whole(send, 200, b"<html>hello</html>", "text/html")


async def _truncated_json(_: Json, __: Receive, send: Send) -> None:
    await stream(send, [], tail=b'event: message_start\ndata: {"type": "message_sta\n\n')


async def _stream_cut(message: Json, _: Receive, send: Send) -> None:
    sent = events(message)
    last = max(index for index, event in enumerate(sent) if event["type"] == "content_block_delta")
    await stream(send, sent[:last])


async def _stall(_: Json, receive: Receive, send: Send) -> None:
    await head(send, 200, "text/event-stream")
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drop(_: Json, __: Receive, send: Send) -> None:
    await head(send, 200, "text/event-stream")
    raise ConnectionError("dropped on purpose")


async def _content_null(message: Json, _: Receive, send: Send) -> None:
    broken = message | {"content": None}
    await stream(send, [{"type": "message_start", "message": broken}, {"type": "message_stop"}])


async def _unknown_stop(message: Json, _: Receive, send: Send) -> None:
    await stream(send, _ending(message, "gave_up"))


async def _empty(message: Json, _: Receive, send: Send) -> None:
    await stream(send, _ending(message | {"content": []}, message["stop_reason"]))


async def _refusal(message: Json, _: Receive, send: Send) -> None:
    await stream(send, _ending(message | {"content": []}, "refusal"))


async def _max_tokens(message: Json, _: Receive, send: Send) -> None:
    """The limit is reached inside the last block: its last piece is missing."""
    sent = _ending(message, "max_tokens")
    last = max(index for index, event in enumerate(sent) if event["type"] == "content_block_delta")
    await stream(send, sent[:last] + sent[last + 1 :])


async def _error_event(message: Json, _: Receive, send: Send) -> None:
    inner = {"type": "overloaded_error", "message": "Overloaded"}
    await stream(send, [events(message)[0], {"type": "error", "error": inner}])


def _ending(message: Json, stop: str) -> list[Json]:
    """Events whose stop reason need not be one of the SDK's."""
    sent = events(message | {"stop_reason": "end_turn"})
    sent[-2]["delta"]["stop_reason"] = stop
    return sent


_WAYS: dict[str, Callable[[Json, Receive, Send], Awaitable[None]]] = {
    "html": _html,
    "truncated_json": _truncated_json,
    "stream_cut": _stream_cut,
    "stall": _stall,
    "drop": _drop,
    "content_null": _content_null,
    "unknown_stop": _unknown_stop,
    "empty": _empty,
    "refusal": _refusal,
    "max_tokens": _max_tokens,
    "error_event": _error_event,
}
KINDS = frozenset(STATUS) | frozenset(_WAYS)
