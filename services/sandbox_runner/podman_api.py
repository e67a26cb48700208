"""Podman's REST API with a deadline on every request and errors in our words."""

import asyncio
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import structlog
from podman.api.client import APIClient
from podman.errors import PodmanError

from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner.profile import LABEL

API_VERSION = "4.0.0"
"""The oldest API that has everything used here; newer services answer it too."""

_OLDEST = 4
_THREADS = 16  # of our own, so that a hanging service cannot use up asyncio's
_MACHINE = "the machine that runs the sandboxes"

logger = structlog.get_logger(__name__)


class PodmanApi:
    """Asks one Podman service.

    Args:
        url: ``unix:///path``, ``ssh://…`` or ``tcp://…``; empty: nowhere yet.
        seconds: the deadline of an ordinary request.

    Every method raises ``Later`` if the service did not answer or failed, ``Refused`` if it said no. Their
    sentences are fit for strangers: addresses, paths and Podman's own words are in the log only.
    """

    def __init__(self, url: str = "", seconds: float = 20.0) -> None:
        self.url = url
        self._seconds = seconds
        self._client = APIClient(base_url=url, version=API_VERSION, num_pools=_THREADS) if url else None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="podman")

    async def ping(self, seconds: float = 3.0) -> str:
        """The service's version; ``Later`` if it is too old or not there."""
        answer = await self._ask("GET", "/version", compatible=True, seconds=seconds)
        version = str(answer.get("Version", ""))
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) < _OLDEST:
            raise Later(
                f"Podman on {_MACHINE} has version {version or 'unknown'}; {API_VERSION} or newer is needed.",
                kind="podman_too_old",
            )
        return version

    async def create(self, spec: Mapping[str, Any]) -> str:
        """Create a container and say its id."""
        return str((await self._ask("POST", "/containers/create", body=spec, seconds=60))["Id"])

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
        if self._client is not None:
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
        client = self._client
        if client is None:
            raise Later(f"Podman on {_MACHINE} cannot be reached.", kind="podman_unavailable")

        def request() -> Any:
            function = {"GET": client.get, "POST": client.post, "DELETE": client.delete}
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
            raise _no_answer(what, self.url) from error
        except (requests.RequestException, PodmanError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, requests.Timeout) or isinstance(error.__cause__, requests.Timeout):
                raise _no_answer(what, self.url) from error
            logger.warning("Podman cannot be reached", what=what, url=self.url, error=repr(error))
            raise Later(f"Podman on {_MACHINE} cannot be reached.", kind="podman_unavailable") from error


def _no_answer(what: str, url: str) -> Later:
    logger.warning("Podman did not answer in time", what=what, url=url)
    return Later(f"Podman on {_MACHINE} did not answer in time.", kind="podman_timeout")


_PROBLEMS: tuple[tuple[str, type[Later] | type[Refused], str, str], ...] = (
    (
        r"cannot find UID/GID for user containers|could not find enough available IDs|no subuid ranges",
        Refused,
        "podman_no_user_namespace",
        f"{_MACHINE} cannot give a sandbox user ids of its own; `millrace doctor` says what to add there.",
    ),
    (
        r"no space left on device|disk quota exceeded",
        Later,
        "disk_full",
        f"the disk of {_MACHINE} is full.",
    ),
    (
        r"exec format error|image architecture|architecture .* does not match",
        Refused,
        "image_wrong_architecture",
        "the sandbox image was made for another kind of processor.",
    ),
    (
        r"no such image|image not known|unable to find a name and tag match",
        Refused,
        "image_missing",
        f"the sandbox image is not on {_MACHINE}; `millrace doctor` says how to get it there.",
    ),
    (
        r"cgroup controller .* is not available|controller .* not available",
        Refused,
        "podman_no_limits",
        f"{_MACHINE} cannot limit what a sandbox uses; `millrace doctor` says what it lacks.",
    ),
)
"""What Podman's words mean: pattern, what happens next, kind, a sentence for strangers."""


def _problem(what: str, status: int, text: str) -> MillraceError:
    """What an error answer means for the one who asked."""
    try:
        answer = json.loads(text)
        words = f"{answer.get('message') or ''} {answer.get('cause') or ''}".strip()
    except (ValueError, AttributeError):
        words = ""
    words = words[:1000] or f"status {status}"
    if status == 404 and ("GET" in what or "image" not in words):
        return Refused("Podman does not know it.", kind="podman_not_found")
    logger.warning("Podman said no", what=what, status=status, words=words)
    for pattern, error, kind, sentence in _PROBLEMS:
        if re.search(pattern, words, re.IGNORECASE):
            return error(sentence[0].upper() + sentence[1:], kind=kind)
    if status >= 500:
        return Later(f"Podman failed on {_MACHINE}.", kind="podman_failed")
    if status == 409:
        return Refused(f"Podman on {_MACHINE} is busy with the same thing.", kind="podman_conflict")
    return Refused(f"Podman on {_MACHINE} refused what was asked of it.", kind="podman_refused")
