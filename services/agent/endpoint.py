"""The Messages endpoint for requests that others wrote: bytes out, bytes back, the key added here alone."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
import msgspec

from contracts.engine import MAX_REPLY_BYTES
from services.agent.engine_request import Question
from services.agent.model import STALL_SECONDS, TURN_SECONDS, status_error
from services.kit.errors import Later
from services.kit.logs import redact

_RETURNED = ("content-type", "request-id")
_ERROR_BYTES = 64 * 1024


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with status 200. ``headers`` are those that may go on."""

    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """Its content type."""
        return self.headers.get("content-type", "")


class Endpoint:
    """Anthropic, or whoever answers at ``base_url``.

    Args:
        key: gives the API key for each request, so that a changed one is used at once.
        base_url: another endpoint than Anthropic's.
        stall: seconds of silence that end a request.
        total: seconds that an answer may take.
    """

    def __init__(
        self,
        key: Callable[[], Awaitable[str]],
        base_url: str | None = None,
        *,
        stall: float = STALL_SECONDS,
        total: float = TURN_SECONDS,
    ) -> None:
        self._key = key
        self._total = total
        self._url = (base_url or "https://api.anthropic.com").rstrip("/")
        timeout = httpx2.Timeout(stall, connect=10.0)
        self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def ask(self, question: Question) -> Returned:
        """Ask once; the body goes out as it came.

        Raises:
            Later: another try may work. Refused: it will not. Kinds as in ``services.agent.model``.
        """
        headers = {**question.headers, "x-api-key": await self._key()}
        try:
            async with (
                asyncio.timeout(self._total),
                self._http.stream(
                    "POST", self._url + question.target, content=question.body, headers=headers
                ) as answer,
            ):
                limit = MAX_REPLY_BYTES if answer.status_code == 200 else _ERROR_BYTES
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > limit:
                        raise Later("the model's answer is too long", kind="model_malformed")
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
            raise Later(
                f"the model did not answer ({type(error).__name__})", kind="model_unreachable"
            ) from None
        if answer.status_code != 200:
            raise status_error(answer.status_code, answer.headers, _words(bytes(body)))
        returned = {name: answer.headers[name] for name in _RETURNED if name in answer.headers}
        return Returned(headers=returned, body=bytes(body))


class _Error(msgspec.Struct):
    message: str = ""


class _Body(msgspec.Struct):
    error: _Error


def _words(body: bytes) -> str:
    try:
        return redact(msgspec.json.decode(body, type=_Body).error.message)[:300]
    except msgspec.DecodeError:
        return ""
