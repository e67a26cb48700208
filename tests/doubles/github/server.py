"""The double as an ASGI application on a free port: REST, git and pages, with faults and the record."""

import asyncio
import contextlib
import json
import re
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from tests.doubles.github import git_http, openapi, pages, rest
from tests.doubles.github.auth import DeniedError, Identity, Vault
from tests.doubles.github.faults import Faults
from tests.doubles.github.http import DOCUMENTATION, Answer, Call, Problem
from tests.doubles.github.state import World
from tests.doubles.github.webhooks import Deliverer

_PREFIX = "/api/v3"
_GIT = re.compile(r"/([^/]+)/([^/]+)\.git/(.+)")
_BY_ID = re.compile(r"/repositories/(\d+)(/.*)?")
_BY_NAME = re.compile(r"/repos/([^/]+)/([^/]+)(/.*)?")
_PAGE = re.compile(r"/([^/]+)/([^/]+)/(pull|issues)/(\d+)")


@dataclass
class Exchange:
    """One request and what became of it; ``status`` is ``None`` when the connection was dropped."""

    method: str
    path: str
    template: str
    query: dict[str, str]
    body: Any
    who: str = "anonymous"
    status: int | None = None


@dataclass
class Incoming:
    """A request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Application:
    """Answers requests; keeps ``exchanges`` and ``violations``."""

    def __init__(
        self, world: World, vault: Vault, deliverer: Deliverer, faults: Faults, violations: list[str]
    ) -> None:
        self.world, self.vault, self.deliverer, self.faults = world, vault, deliverer, faults
        self.violations = violations
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request (ASGI)."""
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        path = scope["raw_path"].decode("latin-1")
        answer = await self._answer(
            Incoming(scope["method"], path, scope["query_string"].decode(), headers, body)
        )
        if answer is None:
            # No ASGI message says "hang up": the transport behind uvicorn's send does it.
            send.__self__.transport.abort()
            await receive()
            return
        await _send(send, answer)

    async def _answer(self, it: Incoming) -> Answer | None:
        exchange = Exchange(
            it.method, it.path, it.path, dict(parse_qsl(it.query, keep_blank_values=True)), None
        )
        self.exchanges.append(exchange)
        endpoint = self._endpoint(it)
        exchange.template = endpoint.split(" ", 1)[1]
        fault = self.faults.take(endpoint)
        if fault and fault.mode in {"before", "delay"}:
            await asyncio.sleep(fault.seconds)
        if fault and fault.mode == "before":
            answer = fault.answer()
        else:
            answer = await self._applied(it, exchange)
        if fault and fault.mode == "after":
            await asyncio.sleep(fault.seconds)
            answer = fault.answer()
        exchange.status = answer.status if answer else None
        return answer

    def _endpoint(self, it: Incoming) -> str:
        if it.path.startswith(_PREFIX):
            found = openapi.rest().match(it.method, self._path(it))
            return found[0].endpoint if found else f"{it.method} {self._path(it)}"
        git = _GIT.fullmatch(it.path)
        return f"{it.method} /{{owner}}/{{repo}}.git/{git[3]}" if git else f"{it.method} {it.path}"

    async def _applied(self, it: Incoming, exchange: Exchange) -> Answer:
        try:
            return await self._apply(it, exchange)
        except Exception as error:
            self.violations.append(f"{it.method} {it.path}: the double itself failed: {error!r}")
            raise

    def _path(self, it: Incoming) -> str:
        """The path below the prefix; ``/repositories/ID`` is a repository by its id, where redirects lead."""
        path = it.path.removeprefix(_PREFIX)
        found = _BY_ID.fullmatch(path)
        for repo in self.world.repositories.values() if found else ():
            if found and repo.id == int(found[1]):
                return f"/repos/{repo.full_name}{found[2] or ''}"
        return path

    def _moved(self, method: str, path: str) -> Answer | None:
        found = _BY_NAME.fullmatch(path)
        repo = self.world.moved.get(f"{found[1]}/{found[2]}".lower()) if found else None
        if found is None or repo is None:
            return None
        url = f"{self.world.api_url}/repositories/{repo.id}{found[3] or ''}"
        body = {"message": "Moved Permanently", "url": url, "documentation_url": DOCUMENTATION}
        return Answer(301 if method == "GET" else 307, body, {"location": url})

    async def _apply(self, it: Incoming, exchange: Exchange) -> Answer:
        try:
            if it.path.startswith(_PREFIX):
                return self._rest(it, exchange)
            git, page = _GIT.fullmatch(it.path), _PAGE.fullmatch(it.path)
            if git and git[3] in git_http.SERVICES:
                return await self._git(it, exchange, git)
            if page and it.method == "GET":
                return pages.serve(self.world.repository(page[1], page[2]), page[3], page[4])
        except DeniedError as error:
            challenge = {} if it.path.startswith(_PREFIX) else {"www-authenticate": 'Basic realm="GitHub"'}
            answer = Problem(error.status, str(error)).answer()
            return Answer(answer.status, answer.body, challenge)
        return Answer(404, b"Not Found", {"content-type": "text/plain"})

    def _rest(self, it: Incoming, exchange: Exchange) -> Answer:
        described, path = openapi.rest(), self._path(it)
        moved = self._moved(it.method, path)
        if moved is not None:
            return moved
        found = described.match(it.method, path)
        if found is None:
            self.violations.append(f"{it.method} {path}: not in GitHub's description")
            return Problem(404, "Not Found").answer()
        operation, params = found
        answer = self._handled(it, exchange, operation, params, path)
        if not isinstance(answer.body, bytes):
            wrong = described.wrong_answer(operation, answer.status, answer.body)
            self.violations += [f"{operation.endpoint}: answer {answer.status}: {why}" for why in wrong]
        self.deliverer.spawn()
        return answer

    def _handled(
        self,
        it: Incoming,
        exchange: Exchange,
        operation: openapi.Operation,
        params: dict[str, str],
        path: str,
    ) -> Answer:
        try:
            rest.check_headers(it.headers)
            who = self._identify(it)
            exchange.who, exchange.body = str(who), rest.parse(it.body)
            call = Call(
                self.world,
                self.vault,
                it.method,
                params,
                exchange.query,
                it.headers,
                exchange.body,
                who,
                path,
            )
            return rest.apply(call, operation, openapi.rest(), self.violations)
        except Problem as problem:
            return problem.answer()

    def _identify(self, it: Incoming) -> Identity:
        try:
            return rest.identify(self.vault, it.headers)
        except DeniedError as error:
            raise Problem(error.status, str(error)) from error

    async def _git(self, it: Incoming, exchange: Exchange, found: re.Match[str]) -> Answer:
        who = git_http.identify(self.vault, it.headers)
        exchange.who = str(who)
        repo = self.world.repository(found[1], found[2])
        moved = self.world.moved.get(f"{found[1]}/{found[2]}".lower())
        if repo is None and moved is not None:
            asked = f"?{it.query}" if it.query else ""
            location = f"{self.world.url}/{moved.full_name}.git/{found[3]}{asked}"
            return Answer(301, b"", {"location": location})
        writes = found[3] == "git-receive-pack" or "service=git-receive-pack" in it.query
        refused = git_http.refusal(who, repo, writes=writes)
        if refused is not None or repo is None:
            return refused or Answer(404, b"Not Found")
        return await git_http.serve(repo, it.method, found[3], it.query, it.headers, it.body)


async def _send(send: Any, answer: Answer) -> None:
    content = b""
    headers = {"x-github-request-id": uuid.uuid4().hex, **answer.headers}
    if isinstance(answer.body, bytes):
        content = answer.body
    elif answer.body is not None:
        content = json.dumps(answer.body).encode()
        headers.setdefault("content-type", "application/json; charset=utf-8")
    if answer.status != 204:
        headers["content-length"] = str(len(content))
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})


class Server(uvicorn.Server):
    """A server inside somebody else's loop: signals are theirs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def listen() -> socket.socket:
    """A free port of the loopback."""
    # With its protocol named: else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.bind(("127.0.0.1", 0))
    return found


def server(application: Application) -> Server:
    """Not yet running."""
    # httptools by name: hanging up needs its transport, whatever else is installed.
    return Server(
        uvicorn.Config(
            application, http="httptools", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, ws="none", timeout_graceful_shutdown=1,
        )
    )  # fmt: skip
