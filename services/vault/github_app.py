"""One GitHub App's own calls, signed with its key: mint a token, find an installation."""

from collections.abc import Mapping
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from contracts.vault import InstalledRepository, Secret
from services.kit.errors import Later, Refused
from services.kit.github import Answer, GitHubClient, GitHubRefused
from services.vault.app_token import ServerClock, sign
from services.vault.grants import GrantedToken, read_grant, refusal

_DRIFT_SECONDS = 5.0

logger = structlog.get_logger(__name__)


class GitHubApp:
    """Speaks as the App, for as long as one question takes.

    Args:
        clock: GitHub's time, shared by all Apps: it learns from a refused signature.
    """

    def __init__(self, api_url: str, app_id: int, key: RSAPrivateKey, clock: ServerClock) -> None:
        self._api_url = api_url
        self._app_id = app_id
        self._key = key
        self._clock = clock

    async def mint(
        self, installation_id: int, repository: int | str, permissions: Mapping[str, str]
    ) -> GrantedToken:
        """A token for one repository, by id or name, with these permissions and no others.

        Raises:
            Later: GitHub is away, or answered nonsense.
            Refused: GitHub will not; ``kind`` as in ``services.vault.grants``.
        """
        which = "repository_ids" if isinstance(repository, int) else "repositories"
        try:
            answer = await self._ask(
                "POST",
                f"/app/installations/{installation_id}/access_tokens",
                {which: [repository], "permissions": dict(permissions)},
            )
        except GitHubRefused as error:
            raise refusal(error, installation_id) from None
        return read_grant(answer, repository, permissions)

    async def find(self, owner: str, name: str) -> tuple[int, InstalledRepository] | None:
        """Where the App is installed on ``owner/name``: installation and repository, or ``None``.

        Raises:
            Later, Refused: as ``mint``.
        """
        try:
            answer = await self._ask("GET", f"/repos/{owner}/{name}/installation")
        except GitHubRefused as error:
            if error.status == 404:
                return None
            raise refusal(error, 0) from None
        installation_id = answer.json.get("id") if isinstance(answer.json, dict) else None
        if not isinstance(installation_id, int):
            raise Later("GitHub named no installation", kind="github_malformed")
        granted = await self.mint(installation_id, name, {"metadata": "read"})

        async def token() -> Secret:
            return granted.token

        async with GitHubClient(self._api_url, token) as client:
            described = (await client.request("GET", f"/repos/{owner}/{name}")).json
        return installation_id, _read_repository(described)

    async def _ask(self, method: str, path: str, json: Any = None) -> Answer:
        """Signed; once more if the signature failed for the host's clock.

        Repeating a POST is safe here: a refused signature did nothing.
        """

        async def token() -> Secret:
            return sign(self._app_id, self._key, self._clock.now())

        async with GitHubClient(self._api_url, token) as client:
            try:
                return await client.request(method, path, json=json)
            except GitHubRefused as error:
                if error.status != 401 or error.date is None:
                    raise
                wrong = self._clock.learn(error.date)
                if abs(wrong) < _DRIFT_SECONDS:
                    raise
                logger.warning("this machine's clock differs from GitHub's", seconds=round(wrong))
                return await client.request(method, path, json=json)


def _read_repository(described: Any) -> InstalledRepository:
    match described:
        case {
            "id": int(id_),
            "full_name": str(full_name),
            "default_branch": str(branch),
            "private": bool(private),
        }:
            return InstalledRepository(id=id_, full_name=full_name, default_branch=branch, private=private)
    raise Refused("GitHub described the repository incompletely", kind="github_malformed")
