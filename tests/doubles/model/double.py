"""The double's server: an ASGI application in the caller's event loop."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from services.kit.http import bind, serving
from tests.doubles.model.cache import PromptCache
from tests.doubles.model.check import check_event, check_message, request_problems
from tests.doubles.model.script import Script, play
from tests.doubles.model.sessions import answer_only

Send = Callable[[dict[str, Any]], Any]
Receive = Callable[[], Any]

_STATUS = {
    "rate_limited": (429, "rate_limit_error", "Number of requests has exceeded your rate limit"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
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


@dataclass
class ClaudeDouble:
    """A Messages API. ``violations`` must be empty at the end of a test.

    Attributes:
        key: the only API key it accepts.
        thinking: seconds before each answer.
    """

    key: str = "sk-ant-api03-double-0123456789abcdef"
    thinking: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    paid_turns: int = 0
    url: str = ""
    _scripts: list[tuple[Callable[[dict[str, Any]], bool], Script]] = field(default_factory=list)
    _cache: PromptCache = field(default_factory=PromptCache)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def play(self, script: Script, *, when: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        """Answer conversations for which ``when`` holds with ``script``; later calls win."""
        self._scripts.insert(0, (when, script))

    def misbehave(
        self, kind: str, *, times: int = 1, retry_after: str | None = None, after_turns: int = 0
    ) -> None:
        """Plan a fault."""
        self.faults.append(Fault(kind, times, retry_after, after_turns))

    async def __aenter__(self) -> Self:
        listener = bind("127.0.0.1:0", "(a free port)")
        self.url = await self._stack.enter_async_context(serving(self._app, listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _app(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if scope["method"] != "POST" or scope["path"] != "/v1/messages":
            await _error(send, 404, "not_found_error", f"no route {scope['path']}")
        elif self.key not in _keys(headers):
            await _error(send, 401, "authentication_error", "invalid x-api-key")
        else:
            with contextlib.suppress(ConnectionError):
                await self._messages(json.loads(body), headers, send)

    async def _messages(self, body: dict[str, Any], headers: dict[str, str], send: Send) -> None:
        problems = request_problems(body)
        if "anthropic-version" not in headers:
            problems.append("anthropic-version is missing")
        if problems:
            self.violations.extend(problems)
            await _error(send, 400, "invalid_request_error", "; ".join(problems)[:500])
            return
        self.requests.append(body)
        await asyncio.sleep(self.thinking)
        fault = self._due()
        if fault is not None and fault.kind in _STATUS:
            status, kind, text = _STATUS[fault.kind]
            await _error(send, status, kind, text, fault.retry_after)
            return
        content, stop = play(self._script(body), body)
        message = _message(body, content, stop, self._cache.usage(body))
        if fault is not None:
            await _misbehave(send, fault.kind, message)
            return
        check_message(message)
        self.paid_turns += 1
        if body.get("stream"):
            await _stream(send, _events(message))
        else:
            await _whole(send, 200, json.dumps(message).encode(), "application/json")

    def _script(self, body: dict[str, Any]) -> Script:
        return next(
            (script for when, script in self._scripts if when(body)), answer_only("No script was set.")
        )

    def _due(self) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and self.paid_turns >= fault.after_turns:
                fault.times -= 1
                return fault
        return None


def _keys(headers: dict[str, str]) -> tuple[str, str]:
    """The two places for a key: SDK 2.12 sends it as a bearer token, earlier ones as ``x-api-key``."""
    return headers.get("x-api-key", ""), headers.get("authorization", "").removeprefix("Bearer ")


def _message(
    body: dict[str, Any], content: list[dict[str, Any]], stop: str, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": f"msg_{len(body['messages']):020d}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": max(1, len(json.dumps(content)) // 4)},
    }


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    start = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            opening: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            opening = block | {"input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in _pieces(json.dumps(block["input"]))
            ]
        events.append({"type": "content_block_start", "index": index, "content_block": opening})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": message["usage"]["output_tokens"]},
        }
    )
    events.append({"type": "message_stop"})
    for event in events:
        check_event(event)
    return events


def _pieces(text: str, size: int = 40) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


async def _misbehave(send: Send, kind: str, message: dict[str, Any]) -> None:
    match kind:
        case "html":
            await _whole(send, 200, b"<html>hello</html>", "text/html")
        case "truncated_json":
            await _stream(send, [], tail=b'event: message_start\ndata: {"type": "message_sta\n\n')
        case "stream_cut":
            events = _events(message)
            await _stream(send, events[: max(2, len(events) // 2)])
        case "stall":
            await _head(send, 200, "text/event-stream")
            await asyncio.sleep(3600)
        case "drop":
            await _head(send, 200, "text/event-stream")
            raise ConnectionError("dropped on purpose")
        case "content_null":
            broken = message | {"content": None}
            await _stream(send, [{"type": "message_start", "message": broken}, {"type": "message_stop"}])
        case "unknown_stop":
            await _stream(send, _raw_events(message | {"stop_reason": "gave_up"}))
        case "empty":
            await _stream(send, _raw_events(message | {"content": []}))
        case "refusal":
            await _stream(send, _raw_events(message | {"stop_reason": "refusal", "content": []}))
        case "max_tokens":
            events = _raw_events(message | {"stop_reason": "max_tokens"})
            await _stream(send, [e for e in events if e["type"] != "content_block_stop"])
        case "error_event":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            await _stream(send, [_events(message)[0], error])
        case _:
            raise ValueError(f"the double knows no fault {kind!r}")


def _raw_events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Events that are wrong on purpose: not held to the SDK's types."""
    good = _events(message | {"stop_reason": "end_turn"})
    good[-2]["delta"]["stop_reason"] = message["stop_reason"]
    return good


async def _stream(send: Send, events: list[dict[str, Any]], tail: bytes = b"") -> None:
    await _head(send, 200, "text/event-stream")
    for event in events:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": tail})


async def _head(send: Send, status: int, kind: str, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    headers = [(b"content-type", kind.encode()), (b"request-id", b"req_double"), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _whole(
    send: Send, status: int, body: bytes, kind: str, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    await _head(send, status, kind, extra)
    await send({"type": "http.response.body", "body": body})


async def _error(send: Send, status: int, kind: str, text: str, retry_after: str | None = None) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_double"})
    extra = () if retry_after is None else ((b"retry-after", retry_after.encode()),)
    await _whole(send, status, body.encode(), "application/json", extra)
