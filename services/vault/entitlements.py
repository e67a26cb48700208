"""Who may ask for what, and how narrow a token each step gets (pure).

The asker is read from the subject, which the bus's permissions tie to the service's identity; nothing in
the body can widen it.
"""

from collections.abc import Mapping

from contracts.vault import (
    AskCloneToken,
    AskInstallation,
    AskModelKey,
    AskReadToken,
    AskView,
    AskWebhookSecrets,
    AskWriteToken,
    ClearCredentials,
    Question,
    StoreCredentials,
    TokenQuestion,
    thing_of,
)

ENTITLED: Mapping[str, frozenset[type[Question]]] = {
    "gateway": frozenset(
        {AskWebhookSecrets, StoreCredentials, AskView, ClearCredentials, AskReadToken, AskInstallation}
    ),
    "sandbox_runner": frozenset({AskCloneToken}),
    "agent": frozenset({AskModelKey}),
    "publisher": frozenset({AskWriteToken}),
}


def is_entitled(service: str, thing: str) -> bool:
    """Whether ``service`` may ask on the subject of ``thing``."""
    return thing in {thing_of(question) for question in ENTITLED.get(service, frozenset())}


def permissions_for(question: TokenQuestion) -> dict[str, str]:
    """The permissions of the step, in the names of GitHub's installation tokens."""
    match question:
        case AskReadToken():
            return {"metadata": "read", "issues": "read"}
        case AskCloneToken():
            return {"metadata": "read", "contents": "read"}
        case AskWriteToken(step="comment"):
            return {"metadata": "read", "issues": "write", "pull_requests": "write"}
        case AskWriteToken(step="publish"):
            return {"metadata": "read", "contents": "write", "pull_requests": "write"}
    raise AssertionError(question)  # msgspec admits no other step
