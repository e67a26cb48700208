"""Requests and answers held to the Anthropic SDK's own types."""

import functools
from collections.abc import Iterable
from typing import Any

import jsonschema_rs
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import message_create_params as beta_params
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from pydantic import TypeAdapter

BREAKPOINTS = 4
"""Blocks with ``cache_control`` that a request may have."""


def _closed(schema: Any) -> Any:
    """The schema with unknown properties refused: a typing mistake in a request must not pass.

    Where the SDK takes any object, as for a tool's own schema, that variant has no properties and stays open.
    """
    if isinstance(schema, dict):
        closed = {key: _closed(value) for key, value in schema.items()}
        if closed.get("type") == "object" and "properties" in closed:
            closed["additionalProperties"] = False
        return closed
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema


@functools.cache
def _requests(*, stream: bool) -> Any:
    params = MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming
    return jsonschema_rs.validator_for(_closed(TypeAdapter(params).json_schema()))


@functools.cache
def _events() -> TypeAdapter[Any]:
    return TypeAdapter(RawMessageStreamEvent)


@functools.cache
def _beta_requests() -> Any:
    """Open: Claude Code is ahead of the SDK's types, and a beta may add any field."""
    params = beta_params.MessageCreateParamsStreaming
    return jsonschema_rs.validator_for(TypeAdapter(params).json_schema())


def request_problems(body: Any, *, beta: bool = False) -> list[str]:
    """What the SDK's types, and the API's rules about conversations, find wrong with a request.

    ``beta`` is for requests of Claude Code: its turns of the system in the middle of a conversation are left
    out before the rules are applied.
    """
    if beta:
        found = _told(_beta_requests().iter_errors(body))
        if found:
            return found
        messages = [message for message in body["messages"] if message["role"] != "system"]
        return [*_conversation_problems(messages), *_block_problems({**body, "messages": messages})]
    stream = isinstance(body, dict) and bool(body.get("stream"))
    found = _told(_requests(stream=stream).iter_errors(body))
    return found or [*_conversation_problems(body["messages"]), *_block_problems(body)]


def _told(errors: Iterable[Any]) -> list[str]:
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}" for error in errors]


def prepare() -> None:
    """Make the schemas of requests now: it takes a second, which whoever measures should not see."""
    request_problems({"stream": True})


def check_event(event: dict[str, Any]) -> None:
    """Raises ``pydantic.ValidationError`` if a streamed event is not one of the SDK's."""
    _events().validate_python(event)


def check_message(message: dict[str, Any]) -> None:
    """Raises ``pydantic.ValidationError`` if an answer is not the SDK's Message."""
    Message.model_validate(message)


def _conversation_problems(messages: list[dict[str, Any]]) -> list[str]:
    problems = []
    if not messages or messages[0]["role"] != "user":
        problems.append("the first message is not the user's")
    open_uses: list[str] = []
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = [block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"]
        if sorted(results) != sorted(open_uses):
            problems.append(f"messages.{index}: results {results} do not answer the calls {open_uses}")
        open_uses = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        if index and message["role"] == messages[index - 1]["role"]:
            problems.append(f"messages.{index}: two {message['role']} messages in a row")
        if not message["content"]:
            problems.append(f"messages.{index}: empty content")
    if open_uses or messages[-1]["role"] != "user":
        problems.append("the last message does not wait for an answer")
    return problems


def _block_problems(body: dict[str, Any]) -> list[str]:
    """Rules about blocks that types cannot tell.

    Source: Anthropic's documentation, "Prompt caching" (four breakpoints) and "Tool use" (results first),
    and the API's own refusal of empty text.
    """
    problems = []
    system = body.get("system", ())
    parts = [*body.get("tools", ()), *(system if isinstance(system, list) else ())]
    for index, message in enumerate(body["messages"]):
        blocks = message["content"] if isinstance(message["content"], list) else []
        parts += blocks
        results = [block.get("type") == "tool_result" for block in blocks]
        if results != sorted(results, reverse=True):
            problems.append(f"messages.{index}: results must come before other blocks")
    if any(part.get("type") == "text" and not part["text"].strip() for part in parts):
        problems.append("text blocks must not be empty")
    if sum("cache_control" in part for part in parts) > BREAKPOINTS:
        problems.append(f"more than {BREAKPOINTS} blocks with cache_control")
    return problems
