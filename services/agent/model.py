"""Claude through the Anthropic SDK: one turn, one attempt, every failure with a name.

The SDK's own retries are off: it would sleep for any ``retry-after``. Redirects are off: the key must not
follow one. A stream that was cut yields a final message without a stop reason, and httpx2, JSON and
assertion errors come through: all of that becomes ``Later`` or ``Refused`` here.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast

import anthropic
import httpx2
import msgspec

from contracts.facts import Usage
from services.agent.request import ModelRequest
from services.kit.errors import Later, Refused
from services.kit.logs import redact

STALL_SECONDS = 120.0
"""Longest silence within an answer."""
TURN_SECONDS = 900.0
"""Longest answer."""
_LONGEST_WAIT = 3600.0
_STOPS = frozenset({"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn"})
_BLOCKS = {
    "text": ("type", "text"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
}


class ModelTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. ``content`` can be sent back as it is."""

    content: tuple[dict[str, Any], ...]
    stop_reason: str
    usage: Usage
    model: str
    request_id: str


class Model(Protocol):
    """Something that answers."""

    async def take_turn(self, request: ModelRequest) -> ModelTurn:
        """One answer; ``Later`` or ``Refused`` otherwise."""


class AnthropicModel:
    """The Messages API.

    Args:
        key: gives the API key for each turn, so that a changed one is used at once.
        base_url: another endpoint than Anthropic's.
        stall: seconds of silence that end a turn.
        total: seconds that a turn may take.
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
        timeout = httpx2.Timeout(stall, connect=10.0)
        self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False)
        self._client = anthropic.AsyncAnthropic(
            api_key="replaced for each request",
            base_url=base_url or "https://api.anthropic.com",
            max_retries=0,
            timeout=timeout,
            http_client=self._http,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def take_turn(self, request: ModelRequest) -> ModelTurn:
        """Ask once.

        Raises:
            Later: it may work on another try: ``model_rate_limited``, ``model_overloaded``,
                ``model_unreachable``, ``model_stream_cut``, ``model_malformed``.
            Refused: it will not: ``model_key_rejected``, ``model_no_credit``, ``model_unknown``,
                ``model_context_too_long``, ``model_bad_request``, ``model_refused``.
        """
        client = self._client.with_options(api_key=await self._key())
        arguments = cast("Any", msgspec.structs.asdict(request))
        try:
            async with asyncio.timeout(self._total), client.messages.stream(**arguments) as stream:
                message = await stream.get_final_message()
                return _turn(message, stream.request_id or "")
        except (Later, Refused):
            raise
        except anthropic.APIStatusError as error:
            if error.status_code == 200:  # an error event inside the stream
                raise broken_off(error.type) from None
            raise status_error(error.status_code, error.response.headers, _words(error)) from None
        except (anthropic.APIConnectionError, httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
            raise Later(
                f"the model did not answer ({type(error).__name__})", kind="model_unreachable"
            ) from None
        except Exception as error:  # noqa: BLE001  the SDK asserts and indexes on malformed answers
            raise Later(
                f"the model's answer is malformed ({type(error).__name__})", kind="model_malformed"
            ) from None


def _turn(message: Any, request_id: str) -> ModelTurn:
    stop = message.stop_reason
    if stop is None:
        raise Later("the model's answer was cut off", kind="model_stream_cut")
    if stop == "refusal":
        raise Refused("the model refused to go on with this issue", kind="model_refused")
    if stop == "model_context_window_exceeded":
        raise Refused("the work grew longer than the model's context", kind="model_context_too_long")
    content = tuple(_block(block.model_dump(mode="json")) for block in message.content)
    if stop not in _STOPS or not content:
        raise Later(
            f"the model ended with {str(stop)[:40]!r} and {len(content)} blocks", kind="model_malformed"
        )
    uses = [block for block in content if block["type"] == "tool_use"]
    if (stop == "tool_use") != bool(uses) and stop != "max_tokens":
        raise Later("the model's stop reason does not fit its answer", kind="model_malformed")
    if stop == "max_tokens" and uses:
        # Half a tool call cannot be answered: keep the words before it, ask the model to go on.
        content = tuple(block for block in content if block["type"] != "tool_use")
        if not content:
            raise Later("the model's tool call was cut at the length limit", kind="model_malformed")
    usage = message.usage
    return ModelTurn(
        content=content,
        stop_reason=stop,
        usage=Usage(
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            cache_creation_input_tokens=usage.cache_creation_input_tokens or 0,
            cache_read_input_tokens=usage.cache_read_input_tokens or 0,
        ),
        model=message.model,
        request_id=request_id,
    )


def _block(dumped: dict[str, Any]) -> dict[str, Any]:
    """The fields that the API takes back; the SDK adds others."""
    fields = _BLOCKS.get(dumped.get("type", ""))
    if fields is None:
        raise Later(
            f"the model sent a block of type {str(dumped.get('type'))[:40]!r}", kind="model_malformed"
        )
    block = {name: dumped[name] for name in fields}
    if block["type"] == "tool_use" and not isinstance(block["input"], dict):
        raise Later("the model sent a tool call without an object", kind="model_malformed")
    return block


def _words(error: anthropic.APIStatusError) -> str:
    body = error.body
    inner = body.get("error") if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else ""
    return redact(str(message or ""))[:300]


def status_error(status: int, headers: Mapping[str, str], words: str) -> Later | Refused:
    """A refusal by its status; ``words`` are the API's, without secrets."""
    said = f": {words}" if words else ""
    long = "prompt is too long" in words.lower() or "context" in words.lower()
    match status:
        case 401 | 403:
            return Refused(
                f"the model's key was rejected ({status}): store another with `millrace config set`",
                kind="model_key_rejected",
            )
        case 402:
            return Refused("the model's account has no credit: add some, then retry", kind="model_no_credit")
        case 404:
            return Refused(f"the model does not exist{said}: set MILLRACE_MODEL", kind="model_unknown")
        case 413:
            return Refused("the work grew too large for the model", kind="model_context_too_long")
        case 400 if long:
            return Refused(f"the work grew too long for the model{said}", kind="model_context_too_long")
        case 429:
            return Later(
                "the model's rate limit is reached",
                seconds=_retry_after(headers.get("retry-after")),
                kind="model_rate_limited",
            )
        case 408 | 409:
            return Later(f"the model asks to try again ({status})", kind="model_overloaded")
        case status if status >= 500:
            seconds = _retry_after(headers.get("retry-after")) if "retry-after" in headers else None
            return Later(
                f"the model is overloaded or down ({status})", seconds=seconds, kind="model_overloaded"
            )
        case _ if 300 <= status < 400:
            return Refused(
                f"the model's address redirects ({status}), which is not followed: check ANTHROPIC_BASE_URL",
                kind="model_bad_request",
            )
    return Refused(f"the model refused the request ({status}){said}", kind="model_bad_request")


def broken_off(kind: str | None) -> Later:
    """The error events of a stream come with status 200: their type is all that tells them apart."""
    names = {"rate_limit_error": "model_rate_limited", "invalid_request_error": "model_malformed"}
    return Later(
        f"the model broke off its answer ({kind or 'no reason given'})",
        kind=names.get(kind or "", "model_overloaded"),
    )


def _retry_after(value: str | None) -> float:
    """Seconds to wait, from a number or an HTTP date: 1 s to an hour, 30 s where nothing sensible stands."""
    text = (value or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            seconds = 30.0
    if math.isnan(seconds) or seconds < 0:
        seconds = 30.0
    return min(max(seconds, 1.0), _LONGEST_WAIT)
