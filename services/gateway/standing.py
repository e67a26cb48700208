"""GitHub's answer about a person and an issue, at the moment of the trigger."""

from typing import Literal

from contracts.facts import Person
from contracts.vault import AskInstallation, AskReadToken, Installation, Secret, Token
from services.gateway.decide import Standing
from services.gateway.heard import AnyHeard
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.errors import Later
from services.kit.github import GitHubClient, GitHubRefused

_PERMISSIONS = frozenset({"admin", "maintain", "write", "triage", "read", "none"})


class GitHub:
    """Questions to GitHub, each with a token that reads one repository and nothing else."""

    def __init__(self, bus: Bus, api_url: str) -> None:
        self._bus = bus
        self._api_url = api_url

    async def installation(self, full_name: str) -> Installation:
        """Which App is installed on ``owner/name``; ``Refused`` if none is."""
        return await ask_vault(self._bus, "gateway", AskInstallation(full_name=full_name), Installation)

    async def standing(self, heard: AnyHeard, installation_id: int, app_id: int) -> Standing:
        """What the actor may do, and whether the issue is open.

        Raises:
            Later: GitHub or the vault did not answer.
            Refused: they will not, whoever asks: the App is gone, or lacks a permission.
        """
        rejected = ""
        while True:
            question = AskReadToken(
                installation_id=installation_id,
                repository_id=heard.repository.id,
                app_id=app_id,
                rejected=rejected,
            )
            granted = await ask_vault(self._bus, "gateway", question, Token)
            try:
                return await self._ask(heard, granted.token)
            except GitHubRefused as refusal:
                if refusal.status != 401 or rejected:
                    raise
                rejected = granted.token.fingerprint()  # revoked meanwhile: once more, with another

    async def _ask(self, heard: AnyHeard, token: Secret) -> Standing:
        async def give() -> Secret:
            return token

        async with GitHubClient(self._api_url, give) as client:
            permission = await _permission(client, heard.repository.full_name, heard.actor)
            state = await _state(client, heard.repository.full_name, heard.issue.number)
        return Standing(permission=permission, state=state)


async def _permission(client: GitHubClient, full_name: str, actor: Person) -> str:
    """The permission of the account with this numeric id; a login that has changed hands has none."""
    path = f"/repos/{full_name}/collaborators/{actor.login}/permission"
    try:
        answer = (await client.request("GET", path)).json
    except GitHubRefused as refusal:
        if refusal.status == 404:
            return "none"
        raise
    if not isinstance(answer, dict):
        raise Later("GitHub's answer about a permission is malformed", kind="github_malformed")
    user = answer.get("user")
    if not isinstance(user, dict) or user.get("id") != actor.id:
        return "none"
    permission = str(answer.get("permission", "none"))
    return permission if permission in _PERMISSIONS else "none"


async def _state(
    client: GitHubClient, full_name: str, number: int
) -> Literal["open", "closed", "gone", "unknown"]:
    """Deliveries arrive in any order: an issue may be closed by the time its opening is heard."""
    try:
        answer = (await client.request("GET", f"/repos/{full_name}/issues/{number}")).json
    except GitHubRefused as refusal:
        if refusal.status in (404, 410):
            return "gone" if refusal.status == 410 else "unknown"
        raise
    match answer.get("state") if isinstance(answer, dict) else None:
        case "open":
            return "open"
        case "closed":
            return "closed"
    return "unknown"
