"""How long to wait before the next try."""

import random

FIRST, LONGEST = 0.5, 120.0


def wait_before(tries: int, *, at_least: float | None = None, jitter: float | None = None) -> float:
    """Seconds before the next try after ``tries`` tries: doubling from 0.5 s to 2 minutes, with jitter.

    ``at_least`` is what the other side asked for; it is never undercut. ``jitter`` in [0, 1) replaces
    chance in tests.
    """
    chance = random.random() if jitter is None else jitter  # noqa: S311  spreads load, keeps no secret
    backoff: float = min(LONGEST, FIRST * 2 ** min(max(tries, 1) - 1, 16))
    return max(at_least or 0.0, backoff * (0.75 + 0.5 * chance))
