"""What a turn costs. Pure.

Source: the table "Model pricing" on Anthropic's pricing page, November 2026, and its note that Haiku 5.5
costs more for prompts over 100,000 tokens. A cache write (5 minutes) is 1.25 times the input price. A model
that is not listed costs as much as the dearest one: an unknown cost counts as spent.
"""

from typing import NamedTuple

from contracts.facts import Usage


class Price(NamedTuple):
    """US dollars per million tokens: read, written, read from the cache."""

    read: float
    written: float
    cached: float


_PRICES = {
    "claude-haiku-4-5": Price(1.0, 5.0, 0.1),
    "claude-haiku-5-5": Price(0.1, 0.5, 0.01),
    "claude-sonnet-4": Price(3.0, 15.0, 0.3),
    "claude-sonnet-5": Price(2.0, 10.0, 0.2),
    "claude-sonnet-5-5": Price(2.0, 10.0, 0.1),
    "claude-opus-4": Price(15.0, 75.0, 1.5),
    "claude-opus-4-5": Price(5.0, 25.0, 0.5),
    "claude-opus-4-6": Price(5.0, 25.0, 0.5),
    "claude-opus-4-7": Price(5.0, 25.0, 0.5),
    "claude-opus-4-8": Price(5.0, 25.0, 0.5),
    "claude-opus-5": Price(5.0, 25.0, 0.5),
    "claude-opus-5-5": Price(4.0, 20.0, 0.2),
    "claude-fable-5": Price(10.0, 50.0, 1.0),
    "claude-fable-5-1": Price(10.0, 50.0, 0.25),
}
_LONG_PROMPTS = {"claude-haiku-5-5": (100_000, Price(0.5, 2.5, 0.05))}
_DEAREST = _PRICES["claude-opus-4"]


def cost(model: str, usage: Usage) -> int:
    """Millionths of a dollar; the longest listed name that ``model`` begins with sets the price."""
    names = [name for name in _PRICES if model == name or model.startswith(name + "-")]
    price = _price(max(names, key=len), usage) if names else _DEAREST
    return round(
        usage.input_tokens * price.read
        + usage.output_tokens * price.written
        + usage.cache_creation_input_tokens * price.read * 1.25
        + usage.cache_read_input_tokens * price.cached
    )


def _price(name: str, usage: Usage) -> Price:
    prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    longest, dearer = _LONG_PROMPTS.get(name, (prompt, _DEAREST))
    return dearer if prompt > longest else _PRICES[name]
