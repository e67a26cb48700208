"""What GitHub's refusals mean for us (pure): wait, or give up, under a stable name.

Sources: GitHub's REST documentation, "Rate limits for the REST API" (obey ``retry-after``, else
``x-ratelimit-reset`` when nothing remains, else wait a minute) and "Troubleshooting the REST API".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from services.kit.errors import Later, Refused

SECONDARY_SECONDS = 60.0
_LONGEST_SECONDS = 86400.0
_LONGEST_MESSAGE = 300

_FORBIDDEN = (
    ("suspended", "installation_suspended"),
    ("archived", "repository_archived"),
    ("not accessible by integration", "needs_permission"),
    ("ip allow list", "ip_not_allowed"),
    ("saml", "sso_required"),
    ("single sign-on", "sso_required"),
    ("blocked", "blocked"),
    ("interaction", "interaction_limited"),
    ("disabled", "repository_disabled"),
)
_REFUSED = {
    400: "invalid",
    401: "bad_credentials",
    404: "not_found",
    409: "conflict",
    410: "gone",
    413: "too_large",
    422: "invalid",
    451: "legally_blocked",
}


class GitHubRefused(Refused):
    """GitHub said no, and would again.

    Args:
        status: the HTTP status; callers decide by it (404 and 422 are information).
        message: GitHub's own sentence with its errors, clipped; text of a stranger.
        date: GitHub's time when it answered, if it said.
        needs: the permissions that would have sufficed (``x-accepted-github-permissions``), if it said.
    """

    def __init__(
        self, why: str, *, kind: str, status: int, message: str = "", date: datetime | None = None,
        needs: str = "",
    ) -> None:  # fmt: skip
        super().__init__(why, kind=kind)
        self.status = status
        self.message = message
        self.date = date
        self.needs = needs


def classify(
    what: str, status: int, headers: Mapping[str, str], body: Any, *, now: datetime
) -> Later | GitHubRefused:
    """The error for an answer that is neither 2xx nor a redirect that is followed.

    Args:
        what: method and path, for the sentence.
        headers: with lower-case names.
        body: the decoded JSON, or ``None``.
        now: the host's time, used where GitHub sent no ``date``.
    """
    message = message_of(body)
    date = date_of(headers)
    lowered = message.lower()
    if status == 429 or (status == 403 and _is_rate_limit(headers, lowered)):
        seconds = limit_seconds(headers, date or now)
        return Later(
            f"GitHub limits the rate ({status} to {what}): waiting {seconds:.0f} s",
            seconds=seconds,
            kind="github_rate_limited",
        )
    if status >= 500 or status in {304, 408, 425}:
        return Later(
            f"GitHub answered {status} to {what}",
            seconds=_retry_after(headers, date or now),
            kind="github_unavailable",
        )
    if status == 403:
        kind = next((kind for words, kind in _FORBIDDEN if words in lowered), "forbidden")
    elif 300 <= status < 400:
        kind = "moved"
    else:
        kind = _REFUSED.get(status, "refused")
    needs = headers.get("x-accepted-github-permissions", "")[:_LONGEST_MESSAGE]
    return GitHubRefused(
        f"GitHub refused {what}: {status} {message or 'without a reason'}",
        kind=kind,
        status=status,
        message=message,
        date=date,
        needs=needs,
    )


def limit_seconds(headers: Mapping[str, str], now: datetime) -> float:
    """How long GitHub wants us to wait; at least a minute when it does not say."""
    asked = _retry_after(headers, now)
    if asked is not None:
        return asked
    if headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdecimal():
        wait = int(headers["x-ratelimit-reset"][:12]) - now.timestamp()
        return min(max(wait, 0.0) + 1.0, _LONGEST_SECONDS)
    return SECONDARY_SECONDS


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """The answer's ``date``, aware, or ``None``."""
    return _http_date(headers.get("date", ""))


def message_of(body: Any) -> str:
    """GitHub's sentence and the errors beside it, on one clipped line."""
    if not isinstance(body, dict):
        return ""
    parts = [body.get("message")]
    errors = body.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            parts.append(error.get("message") or " ".join(
                str(error[name]) for name in ("resource", "field", "code") if name in error
            ))  # fmt: skip
        else:
            parts.append(error)
    text = "; ".join(str(part) for part in parts if isinstance(part, str) and part)
    return "".join(char if char.isprintable() else " " for char in text)[:_LONGEST_MESSAGE]


def _is_rate_limit(headers: Mapping[str, str], message: str) -> bool:
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "rate limit" in message
        or "abuse detection" in message
    )


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return min(float(value), _LONGEST_SECONDS)
    date = _http_date(value)
    return None if date is None else min(max((date - now).total_seconds(), 0.0), _LONGEST_SECONDS)


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
