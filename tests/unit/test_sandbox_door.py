"""Where an engine's requests wait, over real sockets, with the relay before it as in a sandbox."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from contracts.engine import (
    MAX_REQUEST_BYTES,
    PART_BYTES,
    Asked,
    EngineAnswer,
    EngineQuestion,
    Gone,
    Next,
    Part,
    Quiet,
    Read,
    Reply,
    Taken,
    Unanswerable,
)  # fmt: skip
from services.sandbox_runner import door as doors
from services.sandbox_runner.door import Door
from services.sandbox_runner.toolserver import relay
from tests.e2e.deployment import eventually

_answers: msgspec.json.Decoder[EngineAnswer] = msgspec.json.Decoder(EngineAnswer)
BODY = os.urandom(PART_BYTES * 2 + 100)


class Outside:
    """The agent's side of a door, and connections to it."""

    def __init__(self, door: Door, path: Path) -> None:
        self.door = door
        self.path = str(path)

    async def ask(self, question: EngineQuestion) -> Any:
        return _answers.decode(await self.door.answer(msgspec.json.encode(question)))

    async def reply(self, asked: Asked, data: bytes, at: int = 0, *, last: bool = True) -> Any:
        headers = {"content-type": "text/plain"}
        return await self.ask(
            Reply(request=asked.request, status=529, headers=headers, at=at, data=data, last=last)
        )

    async def send(self, raw: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(raw)
        return reader, writer


def post(body: bytes, *lines: str) -> bytes:
    head = ["POST /v1/messages?beta=true HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest_asyncio.fixture
async def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outside]:
    monkeypatch.setattr(doors, "PATIENCE", 0.3)
    door = Door(tmp_path)
    here = Outside(door, tmp_path / "model")
    assert await here.ask(Next()) == Quiet()
    yield here
    await door.close()


async def waits(outside: Outside, known: str = "") -> Asked:
    async with asyncio.timeout(10):
        while not isinstance(asked := await outside.ask(Next(known=known)), Asked):
            pass
    return asked


async def test_a_request_waits_until_all_of_its_answer_is_there(outside: Outside) -> None:
    reader, _ = await outside.send(post(BODY, "X-Thing: 1"))
    asked = await waits(outside)
    assert (asked.method, asked.target, asked.headers["x-thing"]) == ("POST", "/v1/messages?beta=true", "1")
    assert await waits(outside) == asked  # asking changes nothing
    assert (await waits(outside, asked.request)).data == b""
    body = asked.data
    while len(body) < asked.size:
        part = await outside.ask(Read(request=asked.request, at=len(body)))
        assert isinstance(part, Part)
        body += part.data
    assert body == BODY
    assert await outside.reply(asked, b"on", last=False) == Taken()
    assert await outside.reply(asked, b"once ", last=False) == Taken()  # another agent begins anew
    assert await outside.reply(asked, b"more", 5) == Taken()
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 529 ")
    assert answer.endswith(b"\r\n\r\nonce more")
    assert await outside.reply(asked, b"more", 5) == Gone()
    assert await outside.ask(Next()) == Quiet()


async def test_a_part_that_comes_twice_counts_once(outside: Outside) -> None:
    reader, _ = await outside.send(post(b"{}"))
    asked = await waits(outside)
    for data, at in ((b"ab", 0), (b"cd", 2), (b"cd", 2)):
        await outside.reply(asked, data, at, last=False)
    await outside.reply(asked, b"", 4)
    assert (await reader.read()).endswith(b"\r\n\r\nabcd")


async def test_who_hangs_up_waits_no_more(outside: Outside) -> None:
    _, writer = await outside.send(post(b"{}"))
    asked = await waits(outside)
    writer.close()
    await eventually(lambda: not outside.door._waiting, what="nobody waits")
    assert await outside.ask(Next()) == Quiet()
    assert await outside.reply(asked, b"late") == Gone()
    assert await outside.ask(Read(request=asked.request, at=0)) == Gone()


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (post(b"", "Transfer-Encoding: chunked"), b"HTTP/1.1 411 "),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 411 "),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_REQUEST_BYTES + 1), b"HTTP/1.1 413 "),
        (b"POST /\r\n\r\n", b""),
        (b"\r\n\r\n", b""),
        (bytes(range(256)) * 4 + b"\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000, b""),
    ],
)
async def test_what_is_no_such_request_is_refused(outside: Outside, raw: bytes, answer: bytes) -> None:
    reader, writer = await outside.send(raw)
    if writer.can_write_eof():
        writer.write_eof()
    async with asyncio.timeout(10):
        try:
            told = await reader.read()
        except ConnectionError:
            told = b""
    assert told.startswith(answer)
    assert len(told) == 0 or answer
    assert await outside.ask(Next()) == Quiet()


async def test_it_keeps_no_more_than_it_may(outside: Outside) -> None:
    connections = [await outside.send(post(b"{}")) for _ in range(doors.WAITING)]
    asked = await waits(outside)
    await eventually(lambda: len(outside.door._waiting) == doors.WAITING, what="all of them wait")
    reader, _ = await outside.send(post(b"{}"))
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    await outside.reply(asked, b"ok")
    assert (await connections[0][0].read()).endswith(b"ok")
    reader, _ = await outside.send(post(b"{}"))
    await eventually(lambda: len(outside.door._waiting) == doors.WAITING, what="all of them wait")
    for _, writer in connections:
        writer.close()


async def test_an_unreadable_question_is_said_to_be_one(outside: Outside) -> None:
    assert isinstance(_answers.decode(await outside.door.answer(b"{}")), Unanswerable)


async def test_the_relay_carries_what_a_program_sends_to_loopback(outside: Outside) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=relay.serve, args=(listener, outside.path, 5.0), daemon=True).start()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(post(BODY))
    asked = await waits(outside)
    assert asked.size == len(BODY)
    await outside.reply(asked, b"yes")
    assert (await reader.read()).endswith(b"\r\n\r\nyes")


def test_the_relay_ends_as_its_program_does(capfd: pytest.CaptureFixture[str]) -> None:
    assert relay.main(["ADDRESS", "--", "/bin/sh", "-c", "echo $ADDRESS; exit 3"]) == 3
    assert capfd.readouterr().out.startswith("http://127.0.0.1:")
    assert relay.main(["ADDRESS", "--", "no-such-program"]) == 127
    assert relay.main(["ADDRESS", "--", "/bin/sh", "-c", "kill -9 $$"]) == 137
