"""What a turn costs. Pure.

Prices in US dollars per million tokens: input, output, cache write (5 minutes), cache read. Source:
Anthropic's price list; a cache write is 1.25 times and a cache read 0.1 times the input price. A model
that is not listed costs as much as the dearest one: an unknown cost counts as spent.
"""

from contracts.facts import Usage

_INPUT_OUTPUT = {
    "claude-haiku-4": (1.0, 5.0),
    "claude-haiku-5": (1.0, 5.0),
    "claude-sonnet-4": (3.0, 15.0),
    "claude-sonnet-5": (3.0, 15.0),
    "claude-opus-4": (5.0, 25.0),
    "claude-opus-5": (5.0, 25.0),
}
_DEAREST = (15.0, 75.0)


def cost(model: str, usage: Usage) -> int:
    """Millionths of a dollar; the longest listed name that ``model`` begins with sets the price."""
    names = [name for name in _INPUT_OUTPUT if model == name or model.startswith(name + "-")]
    read, written = _INPUT_OUTPUT[max(names, key=len)] if names else _DEAREST
    return round(
        usage.input_tokens * read
        + usage.output_tokens * written
        + usage.cache_creation_input_tokens * read * 1.25
        + usage.cache_read_input_tokens * read * 0.1
    )
