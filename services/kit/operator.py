"""The operator's token: given by setting, or made once and kept in a 0600 file."""

import contextlib
import hmac
import os
import secrets

from services.kit.settings import Settings


def operator_token(settings: Settings) -> str:
    """The token that operators send as ``Authorization: Bearer``."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    file = settings.home / "admin-token"
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        draft = settings.home / f".admin-token-{secrets.token_hex(4)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(f"mlr_{secrets.token_urlsafe(32)}")
        try:
            os.link(draft, file)  # whole or not at all, and the first one wins
        finally:
            draft.unlink()
    return file.read_text().strip()


def is_operator(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token; compared in constant time."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
