"""Podman's REST API with a deadline on every request and errors in our words."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from podman.api.client import APIClient
from podman.errors import PodmanError

from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner.profile import LABEL

API_VERSION = "4.0.0"
"""The oldest API that has everything used here; newer services answer it too."""

_OLDEST = 4
_THREADS = 16  # of our own, so that a hanging service cannot use up asyncio's


class PodmanApi:
    """Asks one Podman service.

    Args:
        url: ``unix:///path``, ``ssh://…`` or ``tcp://…``.
        seconds: the deadline of an ordinary request.

    Every method raises ``Later`` if the service did not answer or failed, ``Refused`` if it said no.
    """

    def __init__(self, url: str, seconds: float = 20.0) -> None:
        self.url = url
        self._seconds = seconds
        self._client = APIClient(base_url=url, version=API_VERSION, num_pools=_THREADS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="podman")

    async def ping(self, seconds: float = 3.0) -> str:
        """The service's version; ``Later`` if it is too old or not there."""
        answer = await self._ask("GET", "/version", compatible=True, seconds=seconds)
        version = str(answer.get("Version", ""))
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) < _OLDEST:
            raise Later(
                f"Podman at {self.url} has version {version or 'unknown'}; {API_VERSION} or newer is needed",
                kind="podman_too_old",
            )
        return version

    async def create(self, spec: Mapping[str, Any]) -> str:
        """Create a container and say its id; one that has its name already is removed first."""
        for first in (True, False):
            try:
                answer = await self._ask("POST", "/containers/create", body=spec)
            except Refused as error:
                taken = error.kind == "podman_conflict" or "already in use" in str(error)
                if not (first and taken):
                    raise
                await self.remove(str(spec["name"]))
            except Later as error:
                if not (first and "already in use" in str(error)):  # Podman 4 answers 500 here
                    raise
                await self.remove(str(spec["name"]))
            else:
                return str(answer["Id"])
        raise AssertionError("unreachable")

    async def start(self, container: str) -> None:
        """Start it; a container that runs already is fine."""
        await self._ask("POST", f"/containers/{container}/start", seconds=60)

    async def inspect(self, container: str) -> dict[str, Any]:
        """Podman's description of a container."""
        answer: dict[str, Any] = await self._ask("GET", f"/containers/{container}/json")
        return answer

    async def remove(self, container: str) -> None:
        """Kill and delete a container and its volumes; one that is gone already is fine."""
        params = {"force": "true", "volumes": "true", "timeout": "0", "ignore": "true"}
        for pause in (0.1, 0.5, 2.0, None):
            try:
                await self._ask("DELETE", f"/containers/{container}", params=params, seconds=60)
            except Refused as error:
                if error.kind != "podman_not_found":
                    raise
            except Later as error:  # its end and its removal at once: mounts are busy for a moment
                if error.kind != "podman_failed" or pause is None:
                    raise
                await asyncio.sleep(pause)
                continue
            return

    async def containers(self, runner: str) -> list[dict[str, Any]]:
        """All containers of a runner, running or not. The library's own filter returns nothing."""
        filters = json.dumps({"label": [f"{LABEL}.runner={runner}"]})
        params = {"all": "true", "filters": filters}
        answer: list[dict[str, Any]] = await self._ask("GET", "/containers/json", params=params)
        return answer

    async def image(self, name: str) -> str | None:
        """The id of an image, or None if it is not here."""
        try:
            answer = await self._ask("GET", f"/images/{name}/json")
        except Refused as error:
            if error.kind == "podman_not_found":
                return None
            raise
        return str(answer["Id"])

    def close(self) -> None:
        """Let go of the connections; requests that hang end with their own deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        compatible: bool = False,
    ) -> Any:
        seconds = seconds or self._seconds
        what = f"{method} {path.split('/')[1]}"

        def request() -> Any:
            function = {"GET": self._client.get, "POST": self._client.post, "DELETE": self._client.delete}
            extra: dict[str, Any] = {"data": json.dumps(body)} if body is not None else {}
            response = function[method](
                path,
                params=dict(params or {}),
                headers={"Content-Type": "application/json"},
                timeout=(min(seconds, 5.0), seconds),
                compatible=compatible,
                **extra,
            )
            if response.status_code >= 400:
                raise _problem(what, response.status_code, response.text)
            return response.json() if response.content else None

        try:
            async with asyncio.timeout(seconds + 10):  # a body that trickles in has no end of its own
                return await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except TimeoutError as error:
            raise Later(f"Podman did not answer {what} in time", kind="podman_timeout") from error
        except (requests.RequestException, PodmanError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, requests.Timeout) or isinstance(error.__cause__, requests.Timeout):
                raise Later(
                    f"Podman did not answer {what} within {seconds:g} s", kind="podman_timeout"
                ) from error
            raise Later(
                f"Podman cannot be reached at {self.url}: {type(error).__name__}. Is its service running?",
                kind="podman_unavailable",
            ) from error


def _problem(what: str, status: int, text: str) -> MillraceError:
    """What an error answer means for the one who asked."""
    try:
        answer = json.loads(text)
        words = str(answer.get("message") or answer.get("cause") or "")
    except (ValueError, AttributeError):
        words = ""
    words = words.strip()[:500] or f"status {status}"
    if "cannot find UID/GID for user containers" in words or "could not find enough available IDs" in words:
        return Refused(
            "Podman cannot give the sandbox a user namespace of its own: /etc/subuid and /etc/subgid need a"
            " line such as `containers:2147483647:2147483648` (deploy/sandbox/setup.sh adds it)",
            kind="podman_no_user_namespace",
        )
    if status == 404 and "image" not in words:
        return Refused(f"Podman, {what}: {words}", kind="podman_not_found")
    if "no such image" in words or "image not known" in words:
        return Refused(
            f"the sandbox image is not on this machine: {words}",
            kind="podman_not_found" if "GET" in what else "image_missing",
        )
    if status == 409:
        return Refused(f"Podman, {what}: {words}", kind="podman_conflict")
    if status >= 500:
        return Later(f"Podman failed at {what}: {words}", kind="podman_failed")
    return Refused(f"Podman refused {what}: {words}", kind="podman_refused")
