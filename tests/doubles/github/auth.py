"""Who asks, and what they may: app JWTs, installation tokens, permissions.

Sources: GitHub Docs, "Generating a JSON Web Token (JWT) for a GitHub App", "Generating an installation
access token for a GitHub App", "Permissions required for GitHub Apps".
"""

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from tests.doubles.github.state import App, Installation, Repository, World

LEVELS = ("none", "read", "write", "admin")
_LIFETIME = timedelta(hours=1)
_TOKEN_CHARACTERS = 516
_SKEW_SECONDS = 60
_LONGEST_SECONDS = 600


class DeniedError(Exception):
    """Authentication failed: GitHub's status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Token:
    """An installation token; ``repositories`` and ``permissions`` are what it was narrowed to."""

    value: str = field(repr=False)
    installation: Installation
    repositories: list[Repository]
    permissions: dict[str, str]
    expires_at: datetime
    revoked: bool = False

    def reaches(self, repo: Repository) -> bool:
        """Whether the token was made for a repository that the installation still has."""
        return repo in self.repositories and repo in self.installation.repositories

    def allows(self, permission: str, level: str) -> bool:
        """Whether the token holds a permission at this level or above."""
        return LEVELS.index(self.permissions.get(permission, "none")) >= LEVELS.index(level)


@dataclass(frozen=True)
class Identity:
    """An app, an installation, or nobody."""

    app: App | None = None
    token: Token | None = None

    def __str__(self) -> str:
        if self.app is not None:
            return f"app:{self.app.id}"
        return f"installation:{self.token.installation.id}" if self.token else "anonymous"


def new_private_key() -> str:
    """A fresh RSA key, PKCS#1 PEM as GitHub hands it out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _public_key(app: App) -> RSAPublicKey:
    public = serialization.load_pem_private_key(app.private_key_pem.encode(), None).public_key()
    if not isinstance(public, RSAPublicKey):
        raise TypeError(f"the key of app {app.id} is not RSA")
    return public


def _check_times(claims: dict[str, Any]) -> None:
    now = time.time()
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int) or issued > now + _SKEW_SECONDS:
        raise DeniedError(401, "'Issued at' claim ('iat') must be an Integer, the time that it was issued")
    if not isinstance(expires, int) or expires <= now:
        raise DeniedError(401, "'Expiration time' claim ('exp') must be a numeric value in the future")
    if expires > now + _LONGEST_SECONDS:
        raise DeniedError(401, "'Expiration time' claim ('exp') is too far in the future")


class Vault:
    """Every token that was handed out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tokens: dict[str, Token] = {}

    def mint(
        self, installation: Installation, repositories: list[Repository], permissions: dict[str, str]
    ) -> Token:
        """A token of about 520 characters, good for an hour. Metadata may always be read."""
        value = "ghs_" + secrets.token_urlsafe(_TOKEN_CHARACTERS)[:_TOKEN_CHARACTERS]
        granted = {"metadata": "read", **permissions}
        expires = (datetime.now(UTC) + _LIFETIME).replace(microsecond=0)
        token = Token(value, installation, repositories, granted, expires)
        self.tokens[value] = token
        return token

    def identify(self, credential: str | None) -> Identity:
        """Who a credential belongs to; no credential is nobody.

        Raises:
            DeniedError: 401 for anything unknown or expired, 403 when the installation is suspended.
        """
        if credential is None:
            return Identity()
        if credential.count(".") == 2 and credential not in self.tokens:
            return Identity(app=self._app(credential))
        token = self.tokens.get(credential)
        if (
            token is None
            or token.revoked
            or token.installation.deleted
            or token.expires_at <= datetime.now(UTC)
        ):
            raise DeniedError(401, "Bad credentials")
        if token.installation.suspended:
            raise DeniedError(403, "This installation has been suspended")
        return Identity(token=token)

    def _app(self, credential: str) -> App:
        unreadable = DeniedError(401, "A JSON web token could not be decoded")
        try:
            issuer = str(jwt.decode(credential, options={"verify_signature": False}).get("iss"))
            app = self.world.apps.get(int(issuer))
            if app is None:
                raise DeniedError(401, "Integration not found")
            checks: Options = {"verify_exp": False, "verify_iat": False, "verify_iss": False}
            claims = jwt.decode(credential, _public_key(app), algorithms=["RS256"], options=checks)
        except (jwt.PyJWTError, ValueError) as error:
            raise unreadable from error
        _check_times(claims)
        return app
