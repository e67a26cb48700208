"""One question to the model, as data; the adapter in ``services.agent.model`` asks it."""

from typing import Any

import msgspec


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a Messages API request that differ from turn to turn."""

    model: str
    system: tuple[dict[str, Any], ...]
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    max_tokens: int
