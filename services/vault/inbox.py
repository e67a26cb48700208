"""The door: who asks is read from the subject, what is asked from the body; every question is audited."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import nats.errors
import sqlalchemy as sa
import structlog
from nats.aio.msg import Msg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.subjects import vault_subject
from contracts.vault import Answer, Denied, Question, decode_question, encode, thing_of
from services.kit.bus import Bus
from services.kit.errors import Later, MillraceError
from services.kit.sql import writing
from services.vault.entitlements import is_entitled
from services.vault.tables import audit

QUEUE = "vault"
AT_ONCE = 64
_NOT_ENTITLED = Denied(kind="not_entitled", why="this service may not ask the vault for that")
_UNREADABLE = Denied(kind="unreadable", why="the question does not follow contracts.vault")
_AWAY = Denied(kind="vault_unavailable", why="the vault cannot answer just now", retry_after=2.0)

logger = structlog.get_logger(__name__)


class Door:
    """Lets entitled questions through to ``answer`` and writes down how each ended.

    A question that cannot be audited is not answered.
    """

    def __init__(self, engine: AsyncEngine, answer: Callable[[Question], Awaitable[Answer]]) -> None:
        self._engine = engine
        self._answer = answer

    async def ask(self, service: str, thing: str, body: bytes) -> Answer:
        """The answer, or ``Denied``; never raises, because a traceback here would hold secrets."""
        question: Question | None = None
        answer: Answer = _NOT_ENTITLED  # one and the same, whatever was asked and whatever is stored
        if is_entitled(service, thing):
            question = _read(thing, body)
            answer = _UNREADABLE if question is None else await self._answer_or_deny(question)
        outcome = answer.kind if isinstance(answer, Denied) else "granted"
        try:
            await self._audit(service, thing, _about(question), outcome)
        except (SQLAlchemyError, OSError) as error:
            logger.error("no audit", service=service, error=type(error).__name__)  # noqa: TRY400
            return _AWAY
        if outcome != "granted":
            logger.warning("denied", service=service, thing=thing, outcome=outcome)
        return answer

    async def _answer_or_deny(self, question: Question) -> Answer:
        try:
            return await self._answer(question)
        except Later as error:
            return Denied(kind=error.kind, why=str(error), retry_after=error.seconds or 1.0)
        except MillraceError as error:
            return Denied(kind=getattr(error, "kind", "refused"), why=str(error))
        except Exception as error:  # noqa: BLE001  named by type: its text or its frames may hold a secret
            kind = type(question).__name__
            logger.error("a question failed", question=kind, error=type(error).__name__)  # noqa: TRY400
            return _AWAY

    async def _audit(self, service: str, thing: str, about: str, outcome: str) -> None:
        async with writing(self._engine) as connection:
            await connection.execute(
                sa.insert(audit).values(
                    at=datetime.fromtimestamp(time.time(), UTC),
                    service=service[:100],
                    thing=thing[:100],
                    about=about,
                    outcome=outcome,
                )
            )


@contextlib.asynccontextmanager
async def answering(bus: Bus, door: Door) -> AsyncIterator[None]:
    """Answer on every subject of the vault, together with its replicas, until the context ends.

    One wildcard subscription: a question from a service we do not know is denied and audited as well.
    """
    room = asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    async def reply(message: Msg) -> None:
        _, _, service, thing = message.subject.split(".")
        async with room:
            answer = await door.ask(service, thing, message.data)
        with contextlib.suppress(nats.errors.Error, OSError):  # the asker asks again
            await bus.client.publish(message.reply, encode(answer))

    async def on_message(message: Msg) -> None:
        if message.reply:
            task = asyncio.create_task(reply(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    subscription = await bus.client.subscribe(vault_subject("*", "*"), queue=QUEUE, cb=on_message)
    await bus.client.flush()
    try:
        yield
    finally:
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
        if tasks:
            await asyncio.wait(tasks, timeout=10)


def _read(thing: str, body: bytes) -> Question | None:
    """The question, if it is the one that belongs on this subject."""
    try:
        question = decode_question(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return question if thing_of(question) == thing else None


def _about(question: Question | None) -> str:
    """Ids only."""
    names = ("app_id", "installation_id", "repository_id", "step")
    return " ".join(
        f"{name}={getattr(question, name)}" for name in names if getattr(question, name, None) is not None
    )
