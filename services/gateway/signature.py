"""GitHub's signature over the raw body.

Source: GitHub Docs, "Validating webhook deliveries". Only ``X-Hub-Signature-256`` counts, in GitHub's own
spelling: ``sha256=`` and 64 lower-case hex digits. Anything else is no signature.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.vault import Secret

_FORM = re.compile(rb"sha256=([0-9a-f]{64})")


@dataclass(frozen=True)
class SignedBody:
    """A body that whoever knows App ``app_id``'s secret has signed; made by ``verify`` only."""

    raw: bytes
    app_id: int


def verify(
    raw: bytes, signatures: Sequence[bytes], secrets: Sequence[tuple[int, Secret]]
) -> SignedBody | None:
    """The body, if the one signature that came with it is by one of these secrets.

    Args:
        raw: the body as it came.
        signatures: every ``X-Hub-Signature-256`` header; exactly one must be there.
        secrets: App ids with their webhook secrets. All are tried, so that time tells nothing.
    """
    form = _FORM.fullmatch(signatures[0]) if len(signatures) == 1 else None
    if form is None:
        return None
    signed_by = None
    for app_id, secret in secrets:
        expected = hmac.digest(secret.reveal().encode(), raw, hashlib.sha256).hex().encode()
        if hmac.compare_digest(expected, form[1]) and signed_by is None:
            signed_by = app_id
    return None if signed_by is None else SignedBody(raw, signed_by)
