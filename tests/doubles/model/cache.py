"""Prompt caching as the API does it: the longest known prefix that ends at a breakpoint is read back."""

import hashlib
import json
from typing import Any


class PromptCache:
    """Remembers prefixes by their digest, for one key and model each."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Input tokens split into read, written and plain; four characters count as one token."""
        digest = hashlib.sha256(str(body["model"]).encode())
        total = read = marked = 0
        fresh: list[str] = []
        for block in _blocks(body):
            plain = {key: value for key, value in block.items() if key != "cache_control"}
            text = json.dumps(plain, sort_keys=True)
            digest.update(text.encode())
            total += max(1, len(text) // 4)
            name = digest.hexdigest()
            if name in self._known:
                read = total
            if "cache_control" in block:
                marked = total
                fresh.append(name)
        self._known.update(fresh)
        written = max(marked - read, 0)
        return {
            "input_tokens": total - max(marked, read),
            "cache_creation_input_tokens": written,
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
