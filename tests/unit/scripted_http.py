"""A real HTTP server on loopback that gives scripted answers and keeps what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn


@dataclass
class Asked:
    """One request as it arrived; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Reply:
    """One answer; ``json`` takes the place of ``body``."""

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Asked], Reply]


@dataclass
class Server:
    """Where it listens and what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    script: Script = lambda _: Reply(404, {"message": "Not Found"})


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """Serve ``script`` until the context ends."""
    server = Server(script=script)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], scope["query_string"].decode(), headers, body)
        server.asked.append(asked)
        reply = server.script(asked)
        content = reply.body if reply.json is None else json.dumps(reply.json).encode()
        given = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": given})
        await send({"type": "http.response.body", "body": content})

    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off", date_header=False)
    running = uvicorn.Server(config)
    socket = config.bind_socket()
    server.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    task = asyncio.create_task(running.serve([socket]))
    try:
        yield server
    finally:
        running.should_exit = True
        await task
