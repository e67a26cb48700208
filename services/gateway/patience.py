"""How long the gateway waits for what: all in one place, so that tests can be impatient."""

from collections.abc import Callable
from typing import NamedTuple

from services.gateway.deliveries import COMMIT_SECONDS
from services.gateway.intake import BODY_SECONDS
from services.gateway.relay import LOOK_SECONDS, MAX_TRIES, again_in
from services.kit.slow_clients import Deadlines


class Patience(NamedTuple):
    """What ``Intake``, ``Deliveries`` and ``Relay`` take; in seconds, but for ``tries``."""

    clients: Deadlines = Deadlines()
    body: float = BODY_SECONDS
    commit: float = COMMIT_SECONDS
    again_in: Callable[[int], float] = again_in
    tries: int = MAX_TRIES
    look: float = LOOK_SECONDS
