"""What the model answered an engine, read from the bytes that go on to it, and written again from a record.

Pure. Source of the stream's form: Anthropic's documentation, "Streaming Messages".
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from contracts.facts import TurnTaken, Usage
from services.agent.model import broken_off
from services.agent.prices import cost
from services.kit.errors import Later

STREAM, WHOLE = "text/event-stream", "application/json"
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_HOUR = 1.6
"""A cache entry for an hour costs 2 times the input price, one for five minutes 1.25 times."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. ``cost`` is in millionths of a dollar at the asked model's price."""

    content: tuple[dict[str, Any], ...]
    stop_reason: str
    usage: Usage
    model: str
    cost: int


def read_answer(kind: str, body: bytes, asked: str) -> Read:
    """What an answer with status 200 says.

    Args:
        kind: its content type.
        asked: the model that was asked.

    Raises:
        Later: it is cut off, malformed, or an error in the middle of a stream.
    """
    try:
        message = _from_events(body) if kind.startswith(STREAM) else msgspec.json.decode(body)
        stop, content, usage = message["stop_reason"], message["content"], message["usage"]
        blocks = tuple(dict(block) for block in content)
        if stop is None:
            raise Later("the model's answer was cut off", kind="model_stream_cut")
        if not blocks and stop != "refusal":
            raise Later("the model's answer is empty", kind="model_malformed")
        if (stop == "tool_use") != any(
            block["type"] == "tool_use" for block in blocks
        ) and stop != "max_tokens":
            raise Later("the model's stop reason does not fit its answer", kind="model_malformed")
        counted = _usage(usage)
        return Read(
            content=blocks,
            stop_reason=str(stop),
            usage=counted,
            model=str(message["model"]),
            cost=cost(asked, _weighed(counted, usage)),
        )
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Later(
            f"the model's answer is malformed ({type(error).__name__})", kind="model_malformed"
        ) from None


def answer_again(turn: TurnTaken, *, stream: bool) -> tuple[str, bytes]:
    """Content type and body of a recorded answer, as if it were given now."""
    message = {
        "id": f"msg_recorded_{turn.turn}",
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "content": list(turn.content),
        "stop_reason": turn.stop_reason,
        "stop_sequence": None,
        "usage": msgspec.to_builtins(turn.usage),
    }
    if not stream:
        return WHOLE, msgspec.json.encode(message)
    events = _to_events(message)
    return STREAM, b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)) for event in events
    )


def _from_events(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = {}
    pieces: dict[int, list[str]] = {}
    for event in _events(body):
        match event.get("type"):
            case "message_start":
                message = dict(event["message"])
                message["content"], message["usage"] = [], dict(message["usage"])
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                _add(
                    message["content"][event["index"]], event["delta"], pieces.setdefault(event["index"], [])
                )
            case "message_delta":
                message["stop_reason"] = event["delta"]["stop_reason"]
                told = event.get("usage") or {}
                message["usage"].update({name: value for name, value in told.items() if value is not None})
            case "error":
                raise broken_off((event.get("error") or {}).get("type"))
    for index, found in pieces.items():
        block = message["content"][index]
        text = "".join(found)
        if text:
            block["input"] = _input(text, cut=message["stop_reason"] == "max_tokens")
    return message


def _add(block: dict[str, Any], delta: dict[str, Any], pieces: list[str]) -> None:
    kind = delta["type"]
    if kind == "input_json_delta":
        pieces.append(delta["partial_json"])
    elif kind in _DELTAS:
        block[_DELTAS[kind]] = block.get(_DELTAS[kind], "") + delta[_DELTAS[kind]]
    # Others, such as citations, add to what is shown; the answer goes back without them.


def _input(text: str, *, cut: bool) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        if cut:
            return {}
        raise


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    for part in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"".join(line[5:].lstrip() for line in part.split(b"\n") if line.startswith(b"data:"))
        if data:
            yield msgspec.json.decode(data)


def _to_events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    start = message | {"content": [], "stop_reason": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        opening, deltas = dict(block), []
        match block["type"]:
            case "text":
                opening["text"] = ""
                deltas = [{"type": "text_delta", "text": block["text"]}]
            case "thinking":
                opening |= {"thinking": "", "signature": ""}
                deltas = [
                    {"type": "thinking_delta", "thinking": block["thinking"]},
                    {"type": "signature_delta", "signature": block.get("signature", "")},
                ]
            case "tool_use":
                opening["input"] = {}
                given = msgspec.json.encode(block["input"]).decode()
                deltas = [{"type": "input_json_delta", "partial_json": given}]
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": message["usage"]}
    yield {"type": "message_stop"}


def _usage(usage: dict[str, Any]) -> Usage:
    names = Usage.__struct_fields__
    return Usage(**{name: int(usage.get(name) or 0) for name in names})


def _weighed(counted: Usage, usage: dict[str, Any]) -> Usage:
    """With cache entries that live for an hour counted at what they cost in entries of five minutes."""
    hour = int((usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0)
    hour = min(hour, counted.cache_creation_input_tokens)
    written = counted.cache_creation_input_tokens + round(hour * (_HOUR - 1))
    return msgspec.structs.replace(counted, cache_creation_input_tokens=written)
