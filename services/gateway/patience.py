"""How long the gateway waits for what: all in one place, so that tests can be impatient."""

from collections.abc import Callable
from typing import NamedTuple

from services.gateway.deliveries import COMMIT_SECONDS
from services.gateway.intake import BODY_SECONDS
from services.gateway.relay import MAX_TRIES, again_in
from services.kit.slow_clients import Deadlines


class Patience(NamedTuple):
    """Seconds; ``again_in`` gives those before the next try of a delivery from the tries so far."""

    clients: Deadlines = Deadlines()
    body: float = BODY_SECONDS
    commit: float = COMMIT_SECONDS
    again_in: Callable[[int], float] = again_in
    tries: int = MAX_TRIES
