"""The HTTP routes (design, names that other programs rely on). What is not marked public is for operators."""

import asyncio
import base64
import hashlib
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import msgspec
import structlog
from litestar import Litestar, MediaType, Request, Response, asgi, delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    PathItem,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.openapi.spec import Parameter as OpenAPIParameter
from litestar.params import FromPath, Parameter, SkipValidation
from litestar.response import ServerSentEvent
from sqlalchemy.exc import SQLAlchemyError

from services.gateway import intake, pages
from services.gateway.deliveries import Deliveries
from services.gateway.follow import follow
from services.gateway.intake import Intake
from services.gateway.metrics import Metrics
from services.gateway.operators import Operators, Outcome, problem
from services.kit.errors import Later, Refused
from services.kit.log import Log
from services.kit.operator import is_operator
from services.kit.serve import Health

MAX_BODY = 512 * 1024
"""What an operator may send, half of what NATS carries; webhooks have their own limit."""
VERSION = version("millrace")
_WEBHOOKS = ("/webhook/github", "/webhooks/github")
_ANYONE = {"public": True}
_NO_TOKEN: list[dict[str, list[str]]] = [{}]

_STYLE = base64.b64encode(hashlib.sha256(pages.STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE}'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Limit = Annotated[int, Parameter(ge=1, le=1000, description="How many at most.")]
Number = Annotated[int, Parameter(ge=1, le=2**63 - 1, description="The issue's number.")]

logger = structlog.get_logger(__name__)


class Parts(NamedTuple):
    """What the routes work on. ``health`` tells of each dependency; ``stopping`` ends what has no end."""

    token: str
    intake: Intake
    operators: Operators
    deliveries: Deliveries
    metrics: Metrics
    log: Log
    health: Health
    stopping: asyncio.Event


Given = NamedDependency[SkipValidation[Parts]]


# --- for anyone -------------------------------------------------------------------------------------------


@get("/", opt=_ANYONE, security=_NO_TOKEN, media_type=MediaType.HTML, summary="What this is")
async def index(request: Request[Any, Any, Any]) -> Response[Any]:
    """A page for browsers, JSON for programs."""
    if "text/html" in request.headers.get("accept", ""):
        return Response(pages.front(VERSION), media_type=MediaType.HTML)
    return _json(Outcome(200, {"name": "millrace", "version": VERSION, "status": "running"}))


@get("/health", opt=_ANYONE, security=_NO_TOKEN, summary="Whether this process is alive")
async def alive() -> Response[bytes]:
    """It is, if it answers."""
    return _json(Outcome(200, {"status": "ok"}))


@get("/ready", opt=_ANYONE, security=_NO_TOKEN, summary="Whether everything it needs is there")
async def ready(parts: Given) -> Response[bytes]:
    """200, or 503 with what is wrong."""
    state = await parts.health()
    good = set(state.values()) == {"ok"}
    body = {"status": "ok" if good else "degraded", "dependencies": state}
    return _json(Outcome(200 if good else 503, body))


# --- for operators ----------------------------------------------------------------------------------------


@get("/config", summary="What credentials are stored, without any secret")
async def view_config(parts: Given) -> Response[bytes]:
    """The safe view."""
    return _json(await parts.operators.view())


@post("/config", status_code=200, summary="Store credentials; what is absent stays as it is")
async def store_config(request: Request[Any, Any, Any], parts: Given) -> Response[bytes]:
    """appId, privateKey, webhookSecret, installationId, anthropicApiKey."""
    return _json(await parts.operators.store(await request.body()))


@delete("/config", status_code=200, summary="Forget every credential")
async def clear_config(parts: Given) -> Response[bytes]:
    """All of them."""
    return _json(await parts.operators.clear())


@post("/container/process", status_code=202, summary="Start a run directly")
async def process(request: Request[Any, Any, Any], parts: Given) -> Response[bytes]:
    """repository, issue (number, title, body), and a key that makes repeating it harmless."""
    return _json(await parts.operators.process(await request.body()))


@get("/container/health", summary="The runners and their sandboxes")
async def runners(parts: Given) -> Response[bytes]:
    """Those that answer."""
    return _json(await parts.operators.runners())


@get("/api/issues", summary="The newest runs")
async def issues(parts: Given, limit: Limit = 100) -> Response[bytes]:
    """Newest first."""
    return _json(await parts.operators.issues(limit))


@get("/api/issues/{owner:str}/{repo:str}/{number:int}/events", summary="Everything about one issue")
async def events(
    request: Request[Any, Any, Any], parts: Given, owner: FromPath[str], repo: FromPath[str], number: Number
) -> Response[Any]:
    """A JSON document, or server-sent events without end."""
    told = await parts.operators.events(f"{owner}/{repo}", number)
    if told.status != 200 or "text/event-stream" not in request.headers.get("accept", ""):
        return _json(told)
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isascii() and last.isdecimal() and len(last) < 19 else 0
    return ServerSentEvent(follow(parts.log, told.body, number, parts.stopping, after=after))


@get("/api/deliveries", summary="The newest webhook deliveries and what became of them")
async def recent_deliveries(parts: Given, limit: Limit = 100) -> Response[bytes]:
    """Newest first, without their text."""
    return _json(await parts.operators.deliveries(limit))


@post("/api/deliveries/{delivery:str}/retry", status_code=202, summary="Try a dead delivery anew")
async def retry_delivery(parts: Given, delivery: FromPath[str]) -> Response[bytes]:
    """After what killed it was mended."""
    return _json(await parts.operators.revive(delivery))


@get("/metrics", media_type=MediaType.TEXT, summary="Prometheus")
async def show_metrics(parts: Given) -> Response[bytes]:
    """Prometheus' text format."""
    text = parts.metrics.render(*await parts.deliveries.backlog())
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


_ROUTES = (
    index,
    alive,
    ready,
    view_config,
    store_config,
    clear_config,
    process,
    runners,
    issues,
    events,
    recent_deliveries,
    retry_delivery,
    show_metrics,
)


def build(parts: Parts) -> Litestar:
    """The application: webhooks as a raw ASGI route, everything else above."""

    def operators_only(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public"):
            return
        if not is_operator(connection.headers.get("authorization"), parts.token):
            raise NotAuthorizedException("send the operator's token as Authorization: Bearer")

    webhooks = asgi([*_WEBHOOKS], opt=_ANYONE, copy_scope=False)(parts.intake)
    scheme = SecurityScheme(type="http", scheme="bearer")
    app = Litestar(
        [webhooks, *_ROUTES],
        dependencies={"parts": Provide(lambda: parts, sync_to_thread=False)},
        guards=[operators_only],
        request_max_body_size=MAX_BODY,
        after_request=_with_headers,
        exception_handlers={Exception: _refuse},
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Millrace",
            version=VERSION,
            description="Turns GitHub issues into pull requests.",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/")],
            components=Components(security_schemes={"operator": scheme}),
            security=[{"operator": []}],
        ),
    )
    if app.openapi_schema.paths is not None:
        app.openapi_schema.paths.update({path: _described(path) for path in _WEBHOOKS})
    return app


def _described(path: str) -> PathItem:
    """The webhooks' route: Litestar describes no raw ASGI application."""
    answers = {
        "200": "A ping.",
        "202": "Remembered: `delivery`, `status` (accepted, duplicate, ignored), `reason`.",
        "400": "Signed, but not what GitHub sends.",
        "401": "No valid signature, or about another App.",
        "408": "The body took too long.",
        "413": f"The body is larger than {intake.MAX_BODY} bytes.",
        "415": "Signed, but neither JSON nor a form.",
        "503": "Not remembered: send it again.",
    }
    text = Schema(type=OpenAPIType.STRING)
    headers = ("X-Hub-Signature-256", "X-GitHub-Delivery", "X-GitHub-Event")
    payload = {"application/json": OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))}
    return PathItem(
        post=Operation(
            summary="A webhook from GitHub",
            operation_id="Webhook" + path.title().replace("/", ""),
            security=_NO_TOKEN,
            parameters=[
                OpenAPIParameter(name=name, param_in="header", required=True, schema=text) for name in headers
            ],
            request_body=RequestBody(content=payload, required=True),
            responses={status: OpenAPIResponse(description=words) for status, words in answers.items()},
        )
    )


def _json(outcome: Outcome) -> Response[bytes]:
    body = msgspec.json.encode(outcome.body)
    return Response(body, status_code=outcome.status, media_type=MediaType.JSON)


def _with_headers(response: Response[Any]) -> Response[Any]:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _refuse(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Every error as JSON with a sentence; what we did not expect is logged and not shown."""
    headers: dict[str, str] = {}
    match error:
        case Later() | Refused() | SQLAlchemyError() | OSError():
            outcome = problem(error)
            if outcome.status == 503:
                headers["retry-after"] = "5"
        case NotAuthorizedException():
            outcome = Outcome(401, {"error": error.detail})
            headers["www-authenticate"] = "Bearer"
        case HTTPException():
            outcome = Outcome(error.status_code, {"error": error.detail})
            headers |= error.headers or {}
        case _:
            logger.error("request failed", path=request.url.path, exc_info=error)
            outcome = Outcome(500, {"error": "Millrace failed here; its log says why"})
    response = _with_headers(_json(outcome))
    response.headers.update(headers)
    return response
