"""The double's server: an ASGI application in the caller's event loop."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from services.kit.http import bind, serving
from tests.doubles.model.cache import PromptCache
from tests.doubles.model.check import check_message, request_problems
from tests.doubles.model.faults import Fault, misbehave
from tests.doubles.model.script import Script, play
from tests.doubles.model.sessions import answer_only
from tests.doubles.model.wire import Json, Receive, Send, error, events, stream, whole


@dataclass
class ClaudeDouble:
    """A Messages API. ``violations`` must be empty at the end of a test.

    Attributes:
        key: the only API key it accepts.
        thinking: seconds before each answer.
        requests: the requests it understood, in order.
        headers: theirs.
        paid_turns: how many of them it answered well.
    """

    key: str = "sk-ant-api03-double-0123456789abcdef"
    thinking: float = 0.0
    requests: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    paid_turns: int = 0
    url: str = ""
    _scripts: list[tuple[Callable[[Json], bool], Script]] = field(default_factory=list)
    _cache: PromptCache = field(default_factory=PromptCache)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def play(self, script: Script, *, when: Callable[[Json], bool] = lambda _: True) -> None:
        """Answer conversations for which ``when`` holds with ``script``; later calls win."""
        self._scripts.insert(0, (when, script))

    def misbehave(
        self, kind: str, *, times: int = 1, retry_after: str | None = None, after_turns: int = 0
    ) -> None:
        """Plan a fault; ``ValueError`` names the kinds there are."""
        self.faults.append(Fault(kind, times, retry_after, after_turns))

    async def __aenter__(self) -> Self:
        listener = bind("127.0.0.1:0", "(a free port)")
        self.url = await self._stack.enter_async_context(serving(self._app, listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _app(self, scope: Json, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if scope["method"] != "POST" or scope["path"] != "/v1/messages":
            self.violations.append(f"{scope['method']} {scope['path']} is not served")
            await error(send, 404, "not_found_error", f"no route {scope['path']}")
        elif self.key not in _keys(headers):
            await error(send, 401, "authentication_error", "invalid x-api-key")
        else:
            with contextlib.suppress(ConnectionError):
                await self._messages(body, headers, receive, send, beta=scope["query_string"] == b"beta=true")

    async def _messages(
        self, body: bytes, headers: dict[str, str], receive: Receive, send: Send, *, beta: bool
    ) -> None:
        request, problems = _read(body, beta=beta)
        if "anthropic-version" not in headers:
            problems.append("anthropic-version is missing")
        if problems:
            self.violations.extend(problems)
            await error(send, 400, "invalid_request_error", "; ".join(problems)[:500])
            return
        self.requests.append(request)
        self.headers.append(headers)
        number = len(self.requests)
        await asyncio.sleep(self.thinking)
        fault = self._due()
        content, stop = play(self._script(request), request)
        usage = self._cache.usage(request) | {"output_tokens": max(1, len(json.dumps(content)) // 4)}
        answer = {
            "id": f"msg_{number:020d}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }
        check_message(answer)
        if fault is not None:
            await misbehave(fault, answer, receive, send)
            return
        self.paid_turns += 1
        if request.get("stream"):
            await stream(send, events(answer))
        else:
            await whole(send, 200, json.dumps(answer).encode())

    def _script(self, request: Json) -> Script:
        found = (script for when, script in self._scripts if when(request))
        return next(found, answer_only("No script was set."))

    def _due(self) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and self.paid_turns >= fault.after_turns:
                fault.times -= 1
                return fault
        return None


def _read(body: bytes, *, beta: bool) -> tuple[Json, list[str]]:
    try:
        request = json.loads(body)
    except ValueError as broken:
        return {}, [f"the body is not JSON: {broken}"]
    return request, request_problems(request, beta=beta)


def _keys(headers: dict[str, str]) -> tuple[str, str]:
    """The two places for a key: SDK 2.12 sends it as a bearer token, earlier ones as ``x-api-key``."""
    return headers.get("x-api-key", ""), headers.get("authorization", "").removeprefix("Bearer ")
