"""What git's words after a failed fetch mean, one sentence per class (pure; fault F-48).

git's own text is never passed on: it may repeat an address or what a server said.
"""

import re

from services.kit.errors import Later, MillraceError, Refused

_BROKEN = (
    r"early EOF|unexpected (disconnect|EOF)|still expected|expected (flush|'packfile')|Empty reply"
    r"|hung up|RPC fail|transfer closed|index-pack|reset by peer|SSL_"
)
_CLASSES: tuple[tuple[str, str, str, bool], ...] = (
    (r"No space left|disk full|Disk quota", "disk_full", "the runner's disk is full", True),
    (
        r"couldn't find remote ref|no such remote ref|Remote branch .* not found",
        "branch_missing",
        "the branch does not exist any more",
        False,
    ),
    (
        r"not our ref|unadvertised object|did not send all necessary objects",
        "commit_gone",
        "the commit is not in the repository any more; start again on the current branch",
        False,
    ),
    (
        r"error: 401|could not read Username|Authentication failed|invalid credentials",
        "clone_unauthorized",
        "GitHub did not accept the token for reading the repository; is the App still installed there?",
        False,
    ),
    (
        r"error: 403|Write access to repository not granted|access denied",
        "clone_forbidden",
        "reading the repository is forbidden: suspended installation, SSO or an IP allow list",
        False,
    ),
    (
        r"error: 404|Repository not found|repository '.*' not found|does not appear to be a git repository",
        "repository_not_found",
        "the repository does not exist or the App may not see it",
        False,
    ),
    (
        r"error: 429|error: 5\d\d|over.{0,20}quota|rate limit",
        "clone_unavailable",
        "GitHub cannot serve the repository at the moment",
        True,
    ),
    (
        _BROKEN,
        "clone_interrupted",
        "the connection broke while the repository was being read",
        True,
    ),
    (
        r"timed out|Operation too slow|Timeout|less than \d+ bytes/sec",
        "clone_timeout",
        "reading the repository took too long",
        True,
    ),
    (
        r"Could not resolve|Failed to connect|Couldn't connect|Connection refused|Network is unreachable",
        "clone_unreachable",
        "GitHub cannot be reached from here",
        True,
    ),
    (
        r"error: 30\d|unable to update url base from redirection",
        "clone_redirected",
        "the repository has moved to another address",
        False,
    ),
    (
        r"transport .* not allowed|protocol .* is not supported",
        "clone_forbidden",
        "the repository's address is neither http nor https",
        False,
    ),
)


def clone_error(words: str) -> MillraceError:
    """The error for what git said; what nobody knows may pass, so it is worth another try."""
    for pattern, kind, sentence, again in _CLASSES:
        if re.search(pattern, words, re.IGNORECASE):
            text = f"The repository could not be read: {sentence}."
            return Later(text, kind=kind) if again else Refused(text, kind=kind)
    return Later("The repository could not be read: git failed for an unknown reason.", kind="clone_failed")


def empty_repository() -> Refused:
    """There is no commit yet."""
    return Refused(
        "The repository is empty: it needs a first commit before anybody can work on it.",
        kind="repository_empty",
    )


def too_large(limit: int) -> Refused:
    """The limit is the operator's."""
    return Refused(
        f"The repository's current state is larger than the {limit / 1e9:.1f} GB that this runner takes.",
        kind="repository_too_large",
    )
