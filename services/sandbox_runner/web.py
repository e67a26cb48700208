"""The runner's own pages: ``GET /``, ``GET /health``, ``GET /status``, ``POST /process-issue``."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException
from litestar.handlers.base import BaseRouteHandler

from contracts.subjects import PROCESS_SUBJECT
from services.kit.bus import Bus
from services.kit.errors import Later
from services.kit.http import bind, serving
from services.kit.operator import is_operator, operator_token
from services.kit.serve import Health
from services.kit.settings import Settings


def build(token: str, bus: Bus, status: Callable[[], Awaitable[bytes]], health: Health) -> Litestar:
    """The application; ``/status`` and ``/process-issue`` are for operators."""

    def operators_only(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        if not is_operator(connection.headers.get("authorization"), token):
            raise NotAuthorizedException("send the operator token as Authorization: Bearer")

    @get("/")
    async def index() -> dict[str, str]:
        return {"name": "millrace sandbox_runner", "status": "running"}

    @get("/health")
    async def is_healthy() -> Response[dict[str, str]]:
        state = await health()
        return Response(state, status_code=200 if set(state.values()) == {"ok"} else 503)

    @get("/status", guards=[operators_only])
    async def what_it_holds() -> Response[bytes]:
        return Response(await status(), media_type="application/json")

    @post("/process-issue", guards=[operators_only])
    async def process_issue(request: Request[Any, Any, Any]) -> Response[bytes]:
        try:
            answer = msgspec.json.decode(await bus.ask(PROCESS_SUBJECT, await request.body(), timeout=20))
        except Later as error:
            problem = msgspec.json.encode({"error": f"the gateway cannot take it now: {error}; try again"})
            return Response(problem, status_code=503, media_type="application/json")
        body = msgspec.json.encode(answer["body"])
        return Response(body, status_code=answer["status"], media_type="application/json")

    handlers = [index, is_healthy, what_it_holds, process_issue]
    # Litestar's own logging would replace the handlers that redact (services.kit.logs).
    return Litestar(handlers, openapi_config=None, logging_config=None)


@asynccontextmanager
async def serve_web(
    settings: Settings, bus: Bus, status: Callable[[], Awaitable[bytes]], health: Health
) -> AsyncIterator[str]:
    """Serve the pages on ``runner_listen``; yields their URL."""
    app = build(operator_token(settings), bus, status, health)
    async with serving(app, bind(settings.runner_listen, "MILLRACE_RUNNER_LISTEN")) as url:
        yield url
