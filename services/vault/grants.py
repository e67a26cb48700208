"""What GitHub granted, read and compared with what was asked (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contracts.vault import Secret
from services.kit.errors import Later, Refused
from services.kit.github import Answer, GitHubRefused
from services.kit.github_errors import date_of

_LEVELS = ("read", "write", "admin")


@dataclass(frozen=True)
class GrantedToken:
    """An installation token that is as narrow as asked; made by ``read_grant`` only.

    ``seconds`` is how long it lives, counted by GitHub's own clock from its answer.
    """

    token: Secret
    expires_at: datetime
    seconds: float


def read_grant(answer: Answer, repository: int | str, permissions: Mapping[str, str]) -> GrantedToken:
    """The token in GitHub's answer to "Create an installation access token for an app".

    Args:
        repository: the id, or for a token made to find the id, the name.
        permissions: what was asked for.

    Raises:
        Later: ``token_malformed``: a part is missing or makes no sense.
        Refused: ``token_too_wide``: it opens more than was asked; ``needs_permission``: it opens less.
    """
    body = answer.json if isinstance(answer.json, dict) else {}
    token, expires_at = body.get("token"), _time(body.get("expires_at"))
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise _malformed("no token")
    if expires_at is None:
        raise _malformed("no time of expiry")
    seconds = (expires_at - (date_of(answer.headers) or datetime.now(UTC))).total_seconds()
    if seconds <= 0:
        raise _malformed("a token that has expired")
    _compare_repositories(body, repository)
    _compare_permissions(body.get("permissions"), permissions)
    return GrantedToken(token=Secret(token), expires_at=expires_at, seconds=seconds)


def refusal(error: GitHubRefused, installation_id: int) -> Refused:
    """GitHub's refusal to mint, in our words: what a person can do about it."""
    where = f"installation {installation_id}"
    lowered = error.message.lower()
    match error.status:
        case 401:
            return Refused(
                "GitHub does not accept the App's private key: store a current one", kind="app_key_rejected"
            )
        case 404:
            return Refused(
                f"the App is no longer installed ({where}): install it again", kind="installation_gone"
            )
        case 403 if error.kind == "installation_suspended":
            return Refused(
                f"the App is suspended ({where}): unsuspend it on GitHub", kind="installation_suspended"
            )
        case 422 if "repositor" in lowered and ("accessible" in lowered or "not exist" in lowered):
            return Refused(
                f"the App is not installed on this repository ({where}): add the repository to it",
                kind="repository_not_installed",
            )
        case 422:
            return Refused(
                f"the App lacks a permission that this step needs ({where}): grant contents, issues and "
                "pull requests, then accept the change in the installation",
                kind="needs_permission",
            )
    return error


def _compare_repositories(body: Mapping[str, Any], repository: int | str) -> None:
    granted = body.get("repositories")
    if body.get("repository_selection") == "all" or not isinstance(granted, list) or len(granted) != 1:
        raise _wide("repositories")
    only = granted[0] if isinstance(granted[0], dict) else {}
    name = str(only.get("name", "")).lower()
    if isinstance(repository, int) and only.get("id") != repository:
        raise _wide("another repository")
    if isinstance(repository, str) and name != repository.lower():
        raise _wide("another repository")


def _compare_permissions(granted: Any, asked: Mapping[str, str]) -> None:
    if not isinstance(granted, dict):
        raise _malformed("no permissions")
    for name, level in granted.items():
        # every installation token reads metadata, asked or not
        allowed = asked.get(name, "read" if name == "metadata" else None)
        if allowed is None or _rank(level) > _rank(allowed):
            raise _wide(f"{name}: {level}")
    for name, level in asked.items():
        if name != "metadata" and _rank(granted.get(name)) < _rank(level):
            raise Refused(
                f"the App lacks the permission {name}: {level}: grant it, then accept the change in the "
                "installation",
                kind="needs_permission",
            )


def _rank(level: Any) -> int:
    return _LEVELS.index(level) + 1 if level in _LEVELS else (0 if level is None else len(_LEVELS) + 1)


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _malformed(what: str) -> Later:
    return Later(f"GitHub answered a request for a token with {what}", seconds=5.0, kind="token_malformed")


def _wide(what: str) -> Refused:
    return Refused(f"GitHub granted more than was asked for ({what[:80]})", kind="token_too_wide")
