"""What an engine asks the model, read just as far as it has to be judged. Pure.

The request was written inside a sandbox: its fields and betas go on as the bytes they are, or not at all.
Refused is what would ask somebody else (another path, another model), spend differently than is counted
(another speed or tier, services with prices of their own), or reach the network in the sandbox's name:
servers, containers and files at Anthropic, and sources that Anthropic would fetch.
"""

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from contracts.engine import Asked
from contracts.facts import TurnTaken, Usage
from services.agent.decide import Room
from services.agent.prices import cost
from services.agent.prompt import MAX_OUTPUT
from services.agent.state import tool_uses

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
_FIELDS = frozenset(
    {
        "context_management", "max_tokens", "messages", "metadata", "model", "output_config", "output_format",
        "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k",
        "top_p",
    }
)  # fmt: skip
"""Fields whose values pass unread. Any other could cost or reach something that nobody here knows of."""
_TOOLS = ("custom", "bash_", "text_editor_", "memory_", "tool_search_tool_")
"""Kinds of tools that run in the sandbox or need nothing from outside."""
_SOURCES = frozenset({"base64", "text", "content"})
_HEADERS = ("anthropic-version", "anthropic-beta", "accept", "content-type", "user-agent", "x-app")
_HEADER_LENGTH = 2000
_BYTES_PER_TOKEN = 4


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may go out. ``results`` are those of tools, by tool use id: text, and whether an error.

    ``side`` means that it offers no tools: it is no step of the conversation.
    """

    target: str
    headers: dict[str, str]
    body: bytes
    digest: str
    model: str
    max_tokens: int
    stream: bool
    counts: bool
    side: bool
    uses: frozenset[str]
    results: dict[str, tuple[str, bool]]

    def knows(self, turn: TurnTaken) -> bool:
        """Whether the conversation goes on after this turn's tool calls."""
        return any(use["id"] in self.uses for use in tool_uses(turn))


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A request that goes nowhere: the HTTP status and the words for the engine."""

    status: int
    why: str


def read_question(asked: Asked, body: bytes, model: str) -> Question | Rejected:
    """Judge a request for ``model``."""
    target = urlsplit(asked.target)
    if (
        asked.method != "POST"
        or target.path not in (MESSAGES, COUNT)
        or target.query not in ("", "beta=true")
    ):
        return Rejected(status=404, why=f"{asked.method[:10]} {target.path[:80]} is not served here")
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Rejected(status=400, why="the body is not JSON")
    counts = target.path == COUNT
    try:
        problem = _problem(given, model, counts=counts)
        if problem:
            return Rejected(status=400, why=problem)
        blocks = list(_blocks(given["messages"]))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return Rejected(status=400, why="the body is not a request for a message")
    results = {
        str(block["tool_use_id"]): (_text(block.get("content")), bool(block.get("is_error")))
        for block in blocks
        if block.get("type") == "tool_result" and "tool_use_id" in block
    }
    return Question(
        target=asked.target,
        headers=_headers(asked.headers),
        body=body,
        digest=hashlib.sha256(body).hexdigest(),
        model=model,
        max_tokens=0 if counts else given["max_tokens"],
        stream=bool(given.get("stream")),
        counts=counts,
        side=not given.get("tools"),
        uses=frozenset(str(block.get("id")) for block in blocks if block.get("type") == "tool_use"),
        results=results,
    )


def over(question: Question, room: Room) -> str:
    """The kind of limit that the longest answer could pass; empty if there is room for it.

    A token is taken for four bytes, and all of the request for new to the cache.
    """
    read = len(question.body) // _BYTES_PER_TOKEN
    if read + question.max_tokens > room.tokens:
        return "budget_tokens"
    dearest = Usage(cache_creation_input_tokens=read, output_tokens=question.max_tokens)
    return "budget_cost" if cost(question.model, dearest) > room.cost else ""


def _problem(given: dict[str, Any], model: str, *, counts: bool) -> str:
    unknown = sorted(given.keys() - _FIELDS)
    if unknown:
        return f"these fields are not passed on: {', '.join(unknown)[:200]}"
    if given["model"] != model:
        return f"the model is {model}"
    tokens = given.get("max_tokens")
    if not counts and (type(tokens) is not int or not 0 < tokens <= MAX_OUTPUT):
        return f"max_tokens is at most {MAX_OUTPUT}"
    for tool in given.get("tools") or ():
        if not str(tool.get("type") or "custom").startswith(_TOOLS):
            return f"tools of this type are not passed on: {str(tool.get('type'))[:40]}"
    for block in _blocks([*given["messages"], {"content": given.get("system") or []}]):
        source = block.get("source")
        if block.get("type") == "container_upload" or (
            isinstance(source, dict) and source.get("type") not in _SOURCES
        ):
            return "what lies elsewhere is not fetched: send contents, not addresses"
    return ""


def _blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All blocks of all messages, those inside results and documents too."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from content
            yield from _blocks(content)
        source = message.get("source")
        if isinstance(source, dict):
            yield from _blocks([source])


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = (part if isinstance(part, dict) else {} for part in content)
        return "\n".join(
            str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}]"
            for part in parts
        )
    return str(content or "")


def _headers(headers: dict[str, str]) -> dict[str, str]:
    """Those that may go out; a credential is not among them."""
    return {
        name: value[:_HEADER_LENGTH]
        for name, value in headers.items()
        if (name in _HEADERS or name.startswith("x-stainless-")) and value.isprintable() and value.isascii()
    }
