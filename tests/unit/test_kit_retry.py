"""How long to wait before the next try."""

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from services.kit.retry import FIRST, LONGEST, wait_before


@pytest.mark.parametrize(
    ("tries", "seconds"),
    [(0, 0.5), (1, 0.5), (2, 1), (3, 2), (4, 4), (8, 64), (9, 120), (10, 120), (10**9, 120), (-1, 0.5)],
)
def test_the_wait_doubles_up_to_two_minutes(tries: int, seconds: float) -> None:
    assert wait_before(tries, jitter=0.5) == seconds


@each(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_quarter(tries: int, jitter: float) -> None:
    middle = wait_before(tries, jitter=0.5)
    assert 0.75 * middle <= wait_before(tries, jitter=jitter) <= 1.25 * middle


@each(st.integers(0, 100), st.floats(0, 10_000))
def test_what_the_other_side_asked_for_is_never_undercut(tries: int, asked: float) -> None:
    assert wait_before(tries, at_least=asked, jitter=0.5) == max(asked, wait_before(tries, jitter=0.5))


def test_chance_spreads_the_waits() -> None:
    waits = {wait_before(5) for _ in range(50)}
    assert len(waits) > 1
    assert all(0.75 * FIRST * 16 <= wait <= 1.25 * FIRST * 16 for wait in waits)
    assert max(wait_before(99) for _ in range(50)) <= 1.25 * LONGEST
