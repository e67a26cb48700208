"""Answers on the wire: one JSON document, or the events of a stream."""

import json
from collections.abc import Callable
from typing import Any

from tests.doubles.model.check import check_event

Json = dict[str, Any]
Send = Callable[[Json], Any]
Receive = Callable[[], Any]


def events(message: Json) -> list[Json]:
    """The stream of a message, each event held to the SDK's types."""
    start = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
    found: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            opening: Json = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            opening = block | {"input": {}}
            pieces = _pieces(json.dumps(block["input"]))
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        found.append({"type": "content_block_start", "index": index, "content_block": opening})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    found += [{"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}]
    for event in found:
        check_event(event)
    return found


def _pieces(text: str, size: int = 40) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


async def stream(send: Send, sent: list[Json], tail: bytes = b"") -> None:
    """Server-sent events, then ``tail`` as it is."""
    await head(send, 200, "text/event-stream")
    for event in sent:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": tail})


async def head(send: Send, status: int, kind: str, retry_after: str | None = None) -> None:
    """The head of an answer whose body follows."""
    headers = [(b"content-type", kind.encode()), (b"request-id", b"req_double")]
    if retry_after is not None:
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def whole(
    send: Send, status: int, body: bytes, kind: str = "application/json", retry_after: str | None = None
) -> None:
    """A complete answer."""
    await head(send, status, kind, retry_after)
    await send({"type": "http.response.body", "body": body})


async def error(send: Send, status: int, kind: str, text: str, retry_after: str | None = None) -> None:
    """An error in the API's shape."""
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_double"}
    await whole(send, status, json.dumps(body).encode(), retry_after=retry_after)
