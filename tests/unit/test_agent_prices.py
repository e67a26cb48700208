"""What a turn costs."""

import pytest

from contracts.facts import Usage
from services.agent.prices import cost

MILLION = 1_000_000


def read(tokens: int) -> Usage:
    return Usage(input_tokens=tokens)


def written(tokens: int) -> Usage:
    return Usage(output_tokens=tokens)


def stored(tokens: int) -> Usage:
    return Usage(cache_creation_input_tokens=tokens)


def cached(tokens: int) -> Usage:
    return Usage(cache_read_input_tokens=tokens)


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        # read, written, stored in the cache, read from it; per million tokens
        ("claude-haiku-4-5", (1.00, 5.00, 1.25, 0.10)),
        ("claude-sonnet-4-6", (3.00, 15.00, 3.75, 0.30)),
        ("claude-sonnet-5", (2.00, 10.00, 2.50, 0.20)),
        ("claude-sonnet-5-5", (2.00, 10.00, 2.50, 0.10)),
        ("claude-opus-4-1", (15.00, 75.00, 18.75, 1.50)),
        ("claude-opus-4-5-20251101", (5.00, 25.00, 6.25, 0.50)),
        ("claude-opus-5", (5.00, 25.00, 6.25, 0.50)),
        ("claude-opus-5-5", (4.00, 20.00, 5.00, 0.20)),
        ("claude-fable-5-1", (10.00, 50.00, 12.50, 0.25)),
    ],
)
def test_a_million_tokens_of_each_sort_cost_what_the_list_says(
    model: str, dollars: tuple[float, float, float, float]
) -> None:
    sorts = (read, written, stored, cached)
    assert tuple(cost(model, sort(MILLION)) / MILLION for sort in sorts) == dollars


def test_sorts_add_up_and_fractions_are_rounded() -> None:
    usage = Usage(input_tokens=3, output_tokens=7, cache_creation_input_tokens=11, cache_read_input_tokens=13)
    assert cost("claude-sonnet-4", usage) == round(9 + 105 + 41.25 + 3.9)


def test_a_long_prompt_costs_more_where_the_list_says_so() -> None:
    assert cost("claude-haiku-5-5", read(100_000)) == 10_000
    assert cost("claude-haiku-5-5", read(100_001)) == 50_000
    assert cost("claude-haiku-5-5", cached(200_000)) == 10_000
    assert cost("claude-haiku-5-5", written(1000)) == 500


@pytest.mark.parametrize("model", ["claude-mythos-7", "gpt-9", "", "claude-sonnet", "claude-sonnet-55"])
def test_an_unknown_model_costs_as_much_as_the_dearest(model: str) -> None:
    assert cost(model, written(MILLION)) == 75 * MILLION
    assert cost(model, read(MILLION)) == 15 * MILLION


def test_a_dated_name_has_the_price_of_its_model_not_of_a_shorter_one() -> None:
    assert cost("claude-sonnet-5-5-20260901", cached(MILLION)) == cost("claude-sonnet-5-5", cached(MILLION))
    assert cost("claude-sonnet-5-5", cached(MILLION)) != cost("claude-sonnet-5", cached(MILLION))


def test_nothing_costs_nothing() -> None:
    assert cost("claude-opus-5", Usage()) == 0
