"""Prompt caching as the API does it: a prefix that ended at a breakpoint is read back at a later one.

Source: Anthropic's documentation, "Prompt caching": a breakpoint looks at most 20 blocks back for a
prefix that was written before, and a prefix below the minimum length is not written.
"""

import hashlib
import json
from typing import Any

MINIMUM = 1024
"""Tokens that a prefix must have to be kept."""
LOOK_BACK = 20
"""Blocks before a breakpoint, itself included, that may end a known prefix."""


class PromptCache:
    """Remembers prefixes by their digest, for one key and any number of models."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Input tokens split into read, written and plain; four characters count as one token."""
        digest = hashlib.sha256(str(body["model"]).encode())
        prefixes: list[tuple[str, int]] = []
        breakpoints: list[int] = []
        total = 0
        for index, block in enumerate(_blocks(body)):
            plain = {key: value for key, value in block.items() if key != "cache_control"}
            text = json.dumps(plain, sort_keys=True)
            digest.update(text.encode())
            total += max(1, len(text) // 4)
            prefixes.append((digest.hexdigest(), total))
            if "cache_control" in block and total >= MINIMUM:
                breakpoints.append(index)
        within = [prefixes[max(0, at - LOOK_BACK + 1) : at + 1] for at in breakpoints]
        read = max((size for part in within for name, size in part if name in self._known), default=0)
        marked = prefixes[breakpoints[-1]][1] if breakpoints else 0
        self._known.update(prefixes[at][0] for at in breakpoints)
        return {
            "input_tokens": total - marked,
            "cache_creation_input_tokens": marked - read,
            "cache_read_input_tokens": read,
        }


def _blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Tools, system, messages: the order in which the API builds its prefix."""
    blocks = [dict(tool) for tool in body.get("tools", ())]
    system = body.get("system", ())
    blocks += [{"type": "text", "text": system}] if isinstance(system, str) else [dict(b) for b in system]
    for message in body["messages"]:
        content = message["content"]
        inner = [{"type": "text", "text": content}] if isinstance(content, str) else content
        blocks += [dict(block, role=message["role"]) for block in inner]
    return blocks
