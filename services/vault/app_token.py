"""The App's own JWT, and the clock that signs it.

GitHub's rules (REST documentation, "Generating a JSON Web Token for a GitHub App"): RS256, ``exp`` at most
10 minutes ahead, ``iat`` 60 seconds back against drift. Signing uses the time GitHub last told us.
"""

from collections.abc import Callable
from datetime import datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from contracts.vault import Secret

BACK = 60
AHEAD = 540


class ServerClock:
    """Seconds since the epoch as GitHub counts them: the host's clock plus what GitHub's ``Date`` taught."""

    def __init__(self, host: Callable[[], float]) -> None:
        self._host = host
        self._offset = 0.0

    def now(self) -> float:
        """GitHub's time, as well as it is known."""
        return self._host() + self._offset

    def learn(self, date: datetime) -> float:
        """Take ``date`` as now; returns by how many seconds this clock was wrong."""
        wrong = date.timestamp() - self.now()
        self._offset += wrong
        return wrong


def claims(app_id: int, now: float) -> dict[str, int | str]:
    """What the App says about itself at ``now``."""
    return {"iat": int(now) - BACK, "exp": int(now) + AHEAD, "iss": str(app_id)}


def sign(app_id: int, key: RSAPrivateKey, now: float) -> Secret:
    """The App's JWT."""
    return Secret(jwt.encode(claims(app_id, now), key, algorithm="RS256"))
