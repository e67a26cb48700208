"""An issue's events as server-sent events: what the history holds, then what comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar.response.sse import ServerSentEventMessage

from contracts.codec import TYPE_PREFIX
from contracts.envelope import Recorded
from contracts.subjects import issue_subjects, tag_of
from services.kit.log import Log

QUIET_SECONDS = 15.0
"""After so long without an event a comment is sent, so that nobody in between closes the connection."""


async def follow(
    log: Log, told: dict[str, Any], number: int, stopping: asyncio.Event, *, after: int = 0
) -> AsyncIterator[ServerSentEventMessage]:
    """Events with a sequence above ``after``, without end until ``stopping``.

    Args:
        told: the history's answer (``repository_id``, ``events``).
        number: the issue's.
    """
    for event in told["events"]:
        if event["sequence"] > after:
            after = event["sequence"]
            yield _message(event)
    subjects = issue_subjects(told["repository_id"], number)
    async for recorded in _with_pauses(log.follow(subjects, after=after), stopping):
        if recorded is None:
            yield ServerSentEventMessage(data=None, comment="still here")
        else:
            yield _message(described(recorded))


def described(recorded: Recorded) -> dict[str, Any]:
    """A fact in the form that the history gives."""
    return {
        "sequence": recorded.sequence,
        "id": recorded.envelope.id,
        "type": TYPE_PREFIX + tag_of(recorded.fact),
        "time": recorded.envelope.time.isoformat().replace("+00:00", "Z"),
        "source": recorded.envelope.source,
        "cause": recorded.envelope.cause,
        "run": recorded.key.run,
        "data": msgspec.to_builtins(recorded.fact),
    }


def _message(event: dict[str, Any]) -> ServerSentEventMessage:
    return ServerSentEventMessage(data=msgspec.json.encode(event), id=event["sequence"])


async def _with_pauses(
    facts: AsyncIterator[Recorded], stopping: asyncio.Event
) -> AsyncIterator[Recorded | None]:
    """The facts, with a None for each while of silence."""
    end = asyncio.ensure_future(stopping.wait())
    coming: asyncio.Future[Recorded] | None = None
    try:
        while not end.done():
            coming = coming or asyncio.ensure_future(anext(facts))
            either: set[asyncio.Future[Any]] = {coming, end}
            done, _ = await asyncio.wait(either, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if coming in done:
                fact, coming = coming.result(), None
                yield fact
            elif not done:
                yield None
    finally:
        end.cancel()
        if coming is not None:
            coming.cancel()
