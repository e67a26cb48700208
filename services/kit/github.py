"""GitHub's REST API: one request, one classified answer.

Nothing is repeated in here, so that a POST is never sent twice: callers look before they create again. The
credential goes to the API's own origin and nowhere else.
"""

import asyncio
import functools
import json as jsonlib
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import httpx2

from contracts.vault import Secret
from services.kit.errors import Later, Refused
from services.kit.github_errors import GitHubRefused, classify

__all__ = ["Answer", "GitHubClient", "GitHubRefused", "Limiter"]

API_VERSION = "2022-11-28"
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_REDIRECTS = 3
_MOVED = frozenset({301, 302, 307, 308})
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_WHOLE_SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """A 2xx answer. ``json`` is ``None`` when it was empty; header names are lower-case.

    ``url`` is where it finally came from: it differs from the question after a rename or a transfer.
    """

    status: int
    json: Any
    headers: Mapping[str, str]
    url: str


class Limiter:
    """One installation's writes: 1 s apart, at most 80 that create content a minute, pauses obeyed.

    Source: GitHub's REST documentation, "Best practices" and "Rate limits" (secondary limits). A wait of
    more than ``patience`` seconds is raised as ``Later``, so that no worker sleeps through it.
    """

    A_MINUTE = 80

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = 5.0,
        gap: float = 1.0,
    ) -> None:
        self._gap = gap
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._next_write = float("-inf")
        self._paused_until = float("-inf")
        self._created: deque[float] = deque(maxlen=self.A_MINUTE)

    @property
    def idle(self) -> bool:
        """Whether a write could go at once, and nobody waits for one."""
        full = len(self._created) == self.A_MINUTE and self._created[0] + 60.0 > self._clock()
        return not full and max(self._next_write, self._paused_until) <= self._clock()

    def pause(self, seconds: float) -> None:
        """GitHub asked for silence."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    async def turn(self, *, write: bool) -> None:
        """Wait for this request's turn.

        Raises:
            Later: that takes too long: because GitHub asked for silence (``github_rate_limited``), or because
                others stand in line (``queued``, which is nobody's failure).
        """
        now = self._clock()
        at = max(now, self._paused_until)
        if write:
            at = max(at, self._next_write)
            if len(self._created) == self.A_MINUTE:
                at = max(at, self._created[0] + 60.0)
        if at - now > self._patience:
            raise Later(
                f"GitHub's limits leave no room for {at - now:.0f} s",
                seconds=at - now,
                kind="github_rate_limited" if at == self._paused_until else "queued",
            )
        if write:
            # the turn is taken before the wait: two writers never get the same second
            self._next_write = at + self._gap
            self._created.append(at)
        if at > now:
            await self._sleep(at - now)


class GitHubClient:
    """Requests to one GitHub API with one identity.

    Args:
        api_url: such as ``https://api.github.com`` or ``https://ghe.example/api/v3``.
        token: gives the credential for each request; absent for anonymous requests.
        limiter: the installation's, shared by all clients that write for it.
        transport: replaces the network connection (a proxy, a test).
    """

    def __init__(
        self,
        api_url: str,
        token: Callable[[], Awaitable[Secret]] | None = None,
        *,
        limiter: Limiter | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = httpx2.URL(api_url.rstrip("/") + "/")
        self._token = token
        self._limiter = limiter
        self._http = httpx2.AsyncClient(
            timeout=_TIMEOUT,
            follow_redirects=False,
            transport=transport,
            verify=_certificates(),
            headers={
                "accept": "application/vnd.github+json",
                "x-github-api-version": API_VERSION,
                "user-agent": "millrace",
            },
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str | int] | None = None
    ) -> Answer:
        """Ask once.

        Args:
            path: from the API's root, such as ``/repositories/1/issues/2``; ids survive renames.
            json: the body; absent when ``None``.

        Raises:
            Later: no connection, no whole answer, a 5xx, a rate limit (``seconds`` says how long), or an
                answer that is not JSON. A write may have happened nevertheless.
            GitHubRefused: any other answer that is not 2xx; ``status`` and ``kind`` say which.
        """
        what = f"{method} {path}"
        url = self._base.join(path.lstrip("/"))
        if not self._is_ours(url):
            raise ValueError(f"{path!r} leaves the API's address")
        for _ in range(_REDIRECTS + 1):
            if self._limiter is not None:
                await self._limiter.turn(write=method not in {"GET", "HEAD"})
            status, headers, body = await self._send(what, method, url, json, params)
            target = headers.get("location", "")
            if status not in _MOVED or method != "GET" or not target:
                break
            url, params = httpx2.URL(urljoin(str(url), target)), None
            if not self._is_ours(url):
                raise GitHubRefused(
                    f"GitHub sent {what} on to another address, which was not followed",
                    kind="moved",
                    status=status,
                )
        return self._read(what, status, headers, body, str(url))

    async def _send(
        self, what: str, method: str, url: httpx2.URL, json: Any, params: Mapping[str, str | int] | None
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {}
        if self._token is not None:
            headers["authorization"] = f"Bearer {(await self._token()).reveal()}"
        # a URL from a redirect has its own query, which an empty ``params`` would remove
        extra: dict[str, Any] = {"params": dict(params)} if params else {}
        if json is not None:
            extra["json"] = json
        try:
            async with (
                asyncio.timeout(_WHOLE_SECONDS),
                self._http.stream(method, url, headers=headers, **extra) as response,
            ):
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Refused(
                            f"GitHub's answer to {what} is over {MAX_ANSWER_BYTES} bytes", kind="too_large"
                        )
                return response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body)
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, TimeoutError) as error:
            raise Later(
                f"GitHub did not answer {what} ({type(error).__name__})", kind="github_unreachable"
            ) from None  # the foreign error holds the request with its credential

    def _read(self, what: str, status: int, headers: dict[str, str], body: bytes, url: str) -> Answer:
        try:
            decoded = jsonlib.loads(body) if body.strip() else None
        except (ValueError, RecursionError):
            if 200 <= status < 300:
                raise Later(f"GitHub's answer to {what} is not JSON", kind="github_malformed") from None
            decoded = None
        if 200 <= status < 300:
            return Answer(status=status, json=decoded, headers=headers, url=url)
        error = classify(what, status, headers, decoded, now=datetime.now(UTC))
        if isinstance(error, Later) and error.kind == "github_rate_limited" and self._limiter is not None:
            self._limiter.pause(error.seconds or 0.0)
        raise error

    def _is_ours(self, url: httpx2.URL) -> bool:
        return (
            (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)
            and url.path.startswith(self._base.path)
            and ".." not in url.path.split("/")
        )


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Who is trusted, read once: each reading takes 20 ms, and clients live for one step."""
    return httpx2.create_ssl_context()
