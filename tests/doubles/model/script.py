"""What the double says: one step per turn, found by how far the conversation is."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Say:
    """Words."""

    text: str


@dataclass(frozen=True)
class Use:
    """A tool call."""

    name: str
    input: dict[str, Any]


Block = Say | Use
Step = Sequence[Block] | Callable[[dict[str, Any]], Sequence[Block]]
Script = Sequence[Step]


FILLER = "No response requested."
"""What Claude Code puts in the assistant's mouth when it goes on after an interruption; nobody said it."""


def position(request: dict[str, Any]) -> int:
    """How many turns the assistant has had: the conversation itself tells, no counter."""
    said = [message["content"] for message in request["messages"] if message["role"] == "assistant"]
    return sum(content != [{"type": "text", "text": FILLER}] for content in said)


def first_user_text(request: dict[str, Any]) -> str:
    """The first user message as text."""
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def last_results(request: dict[str, Any]) -> str:
    """The tool results that the last message carries, as text."""
    content = request["messages"][-1]["content"]
    texts = []
    for block in content if isinstance(content, list) else []:
        inner = block.get("content", "")
        texts.append(inner if isinstance(inner, str) else "".join(part.get("text", "") for part in inner))
    return "\n".join(texts)


def play(script: Script, request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Content blocks and stop reason of the next turn; past the end the double says that it is done."""
    index = position(request)
    step: Step = script[index] if index < len(script) else (Say("I am done."),)
    blocks = step(request) if callable(step) else step
    content: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        match block:
            case Say(text=text):
                content.append({"type": "text", "text": text})
            case Use(name=name, input=given):
                seed = json.dumps([index, number, name, given, first_user_text(request)], sort_keys=True)
                identity = "toolu_" + hashlib.sha256(seed.encode()).hexdigest()[:24]
                content.append({"type": "tool_use", "id": identity, "name": name, "input": given})
    return content, "tool_use" if any(block["type"] == "tool_use" for block in content) else "end_turn"
