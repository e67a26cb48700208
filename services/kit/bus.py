"""The bus: what a service hears, answers and asks, over FastStream's NATS broker.

Acknowledgement is ours (``AckPolicy.MANUAL``): FastStream's default ends a message at the first exception
and its NACK policy repeats without delay. One worker per fetch and several fetch loops, because one loop
with several workers delivered long messages twice. Consumers are provisioned elsewhere
(``services.kit.provision``); a service only binds to its own.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec
import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from contracts.codec import decode_recorded
from contracts.envelope import Recorded
from contracts.subjects import STREAM, STREAM_SUBJECTS, dead_letter_subject
from services.kit.errors import Conflict, Later, Misconfigured
from services.kit.log import Log
from services.kit.objects import Objects
from services.kit.retry import wait_before

HEARTBEAT = 10.0
"""Seconds between signs of life on a message that is being worked on; a third of the consumers' ack_wait."""
MAX_TRIES = 12
"""Failures of one message in one process before it becomes a dead letter."""
MAX_DELIVERIES = 60
"""Deliveries of one message, over all processes, before it is taken for the reason that they die."""
PATIENT = ("queued", "stopping")
"""Kinds of ``Later`` that are nobody's failure."""

logger = structlog.get_logger(__name__)


class Handler(Protocol):
    """What a service does about one fact; raising ``Later`` means: again after a while."""

    async def __call__(self, heard: Recorded, *, last_try: bool) -> None:
        """Handle one fact."""


class Bus:
    """One service's connection.

    Args:
        url: where NATS is, with credentials; never logged.
        name: the service and replica, shown by NATS to operators.
        grace: seconds that running handlers get when the service stops.
    """

    def __init__(self, url: str, name: str, *, grace: float = 20.0) -> None:
        self._broker = NatsBroker(
            url,
            name=name,
            graceful_timeout=grace,
            logger=None,
            connect_timeout=3,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=20,
            pending_size=-1,  # a publish while the server is away fails at once, no ghost arrives later
            error_cb=self._connection_error,
        )
        self._name = name
        self._client: Client | None = None
        self._objects: Objects | None = None
        self._failures: dict[int, int] = {}
        self._waited: set[int] = set()
        self._grace = grace
        self._batches: list[asyncio.Task[None]] = []
        self._taking: set[asyncio.Task[None]] = set()
        self.stopping = False

    @property
    def client(self) -> Client:
        """The connected NATS client."""
        assert self._client is not None, "the bus is not connected"  # noqa: S101  a programming error
        return self._client

    @property
    def objects(self) -> Objects:
        """The object store."""
        if self._objects is None:
            self._objects = Objects(self.client)
        return self._objects

    def log(self, source: str) -> Log:
        """The log, written as ``source``."""
        return Log(self.client, source)

    async def connect(self) -> None:
        """Connect; handlers can then be registered. ``Misconfigured`` if nobody answers or lets us in."""
        try:
            self._client = await asyncio.wait_for(self._broker.connect(), 10)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Misconfigured(
                f"NATS does not answer or refuses us ({type(error).__name__}): check MILLRACE_NATS_URL "
                "and that nats-server runs."
            ) from error

    async def close(self) -> None:
        """Stop taking messages, let handlers end within the grace, disconnect."""
        if self.stopping:
            return
        self.stopping = True
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        if self._taking:
            await asyncio.wait(self._taking, timeout=self._grace)
        try:
            await self._broker.stop()
        except (nats.errors.Error, OSError) as error:
            logger.warning("NATS was away at the end", error=repr(error))
            with contextlib.suppress(nats.errors.Error, OSError):
                await self.client.close()

    def healthy(self) -> str:
        """``ok``, or what is wrong with the connection."""
        return "ok" if self._client is not None and self._client.is_connected else "NATS is not connected"

    async def hears(self, service: str, handler: Handler, *, workers: int) -> None:
        """Give each fact of the service's consumer to ``handler``, ``workers`` at a time."""
        await self._await_consumer(service)
        for _ in range(workers):
            subscriber = self._broker.subscriber(
                STREAM_SUBJECTS,
                durable=service,
                stream=JStream(STREAM, declare=False),
                pull_sub=PullSub(batch_size=1, timeout=5.0),
                ack_policy=AckPolicy.MANUAL,
                decoder=_undecoded,
            )

            @subscriber
            async def _hear(message: NatsMessage) -> None:
                await self._deliver(service, handler, message.raw_message)

            await subscriber.start()

    async def hears_batches(
        self, service: str, handler: Callable[[list[Msg]], Awaitable[None]], *, size: int = 256
    ) -> None:
        """Give batches of the service's messages, raw, to ``handler``; acknowledged after it returns.

        Without FastStream, whose batches end at a timeout: a remainder of it below 0.1 ms makes an invalid
        request, and the messages that had come until then are lost until their redelivery.
        """
        await self._await_consumer(service)
        subscription = await self.client.jetstream().pull_subscribe_bind(service, STREAM)

        async def take() -> None:
            try:
                while not self.stopping:  # a cancellation that meets a message is lost (asyncio.wait_for)
                    messages = await _up_to(subscription, size)
                    if messages:
                        taking = asyncio.create_task(_take_batch(service, handler, messages))
                        self._taking.add(taking)
                        taking.add_done_callback(self._taking.discard)
                        await asyncio.shield(taking)
            finally:
                with contextlib.suppress(nats.errors.Error):  # or the connection would wait for it at its end
                    await subscription.unsubscribe()

        self._batches.append(asyncio.create_task(take()))

    async def answers(
        self, subject: str, handler: Callable[[bytes], Awaitable[bytes]], *, queue: str = ""
    ) -> None:
        """Answer requests on ``subject``; with ``queue``, one replica answers each."""
        # no_reply: FastStream would send what the handler returns, which is nothing, as a second answer.
        subscriber = self._broker.subscriber(
            subject, queue=queue, decoder=_undecoded, max_workers=64, no_reply=True
        )

        @subscriber
        async def _answer(message: NatsMessage) -> None:
            raw = message.raw_message
            if not raw.reply:
                return
            try:
                answer = await handler(raw.data)
            except Exception:
                logger.exception("request failed", subject=subject)
                return
            await self.client.publish(raw.reply, answer)

        await subscriber.start()
        await self.client.flush()

    @contextlib.asynccontextmanager
    async def answering(
        self, subject: str, handler: Callable[[bytes], Awaitable[bytes | None]]
    ) -> AsyncIterator[None]:
        """Answer requests on ``subject`` for as long as the context lasts (a sandbox's own subject).

        Where the handler returns None, nothing is said: another may answer.
        """
        tasks: set[asyncio.Task[None]] = set()

        async def reply(message: Msg) -> None:
            answer = await handler(message.data)
            if answer is not None:
                await self.client.publish(message.reply, answer)

        async def on_message(message: Msg) -> None:
            task = asyncio.create_task(reply(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        subscription = await self.client.subscribe(subject, cb=on_message)
        await self.client.flush()
        try:
            yield
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
            for task in tasks:
                task.cancel()

    async def ask(self, subject: str, question: bytes, *, timeout: float = 5.0) -> bytes:
        """One answer to a question.

        Raises:
            Later: ``kind="no_responders"`` when nobody listens, ``kind="no_answer"`` when nobody answered
                in time, ``kind="log_unavailable"`` when NATS is away.
        """
        try:
            return (await self.client.request(subject, question, timeout=timeout)).data
        except nats.errors.NoRespondersError as error:
            raise Later(f"nobody answers on {subject}", kind="no_responders") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise Later(f"no answer on {subject} within {timeout:g} s", kind="no_answer") from error
        except (nats.errors.Error, OSError) as error:
            raise Later(f"NATS is away: {type(error).__name__}", kind="log_unavailable") from error

    async def ask_all(
        self, subject: str, question: bytes, *, seconds: float = 2.0, more: float = 0.3
    ) -> list[bytes]:
        """The first answer, if it comes within ``seconds``, and all within ``more`` after it.

        Raises:
            Later: NATS is away.
        """
        answers: list[bytes] = []
        first = asyncio.Event()
        inbox = self.client.new_inbox()

        async def collect(message: Msg) -> None:
            if not (message.headers or {}).get("Status"):  # the server itself, for want of anybody else
                answers.append(message.data)
            first.set()

        try:
            subscription = await self.client.subscribe(inbox, cb=collect)
            try:
                await self.client.publish(subject, question, reply=inbox)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(first.wait(), seconds)
                if answers:
                    await asyncio.sleep(more)
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError) as error:
            raise Later(f"NATS is away: {type(error).__name__}", kind="log_unavailable") from error
        return answers

    async def _connection_error(self, error: Exception) -> None:
        # While the first connection is tried, one sentence at the end says it; see connect().
        level = logging.WARNING if self._client is not None else logging.DEBUG
        logger.log(level, "NATS connection", error=repr(error))

    async def _await_consumer(self, service: str) -> None:
        """FastStream would create a missing consumer with defaults: wait for the provisioned one."""
        js = self.client.jetstream(timeout=5)
        for _ in range(120):
            with contextlib.suppress(NotFoundError, nats.errors.Error, asyncio.TimeoutError):
                await js.consumer_info(STREAM, service)
                return
            await asyncio.sleep(0.5)
        raise Misconfigured(
            f"the consumer {service} of stream {STREAM} does not exist: run `millrace provision` once"
        )

    async def _deliver(self, service: str, handler: Handler, message: Msg) -> None:
        sequence = message.metadata.sequence.stream
        tries = self._failures.get(sequence, 0) + 1
        if message.metadata.num_delivered > MAX_DELIVERIES and sequence not in self._waited:
            tries = MAX_TRIES
        try:
            recorded = decode_recorded(message.subject, sequence, message.headers, message.data)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            await self._bury(service, message, f"unreadable: {error}")
            return
        try:
            async with _signs_of_life(message):
                await handler(recorded, last_try=tries >= MAX_TRIES)
        except (Later, Conflict) as error:
            await self._again(service, message, error, tries)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("handler failed", service=service, subject=message.subject)
            await self._again(service, message, error, tries)
        else:
            self._forget(sequence)
            await message.ack()

    def _forget(self, sequence: int) -> None:
        self._failures.pop(sequence, None)
        self._waited.discard(sequence)

    async def _again(self, service: str, message: Msg, error: Exception, tries: int) -> None:
        sequence = message.metadata.sequence.stream
        asked = getattr(error, "seconds", None)
        if getattr(error, "kind", "") in PATIENT:
            self._waited.add(sequence)  # its deliveries are knocks, not deaths
            await message.nak(delay=asked or None)
        elif tries >= MAX_TRIES:
            self._forget(sequence)
            await self._bury(service, message, f"{type(error).__name__}: {error}")
        else:
            self._failures[sequence] = tries
            delay = wait_before(tries, at_least=asked)
            logger.warning(
                "will try again", service=service, subject=message.subject, tries=tries,
                seconds=round(delay, 1), why=str(error),
            )  # fmt: skip
            await message.nak(delay=delay)

    async def _bury(self, service: str, message: Msg, why: str) -> None:
        """Keep the message where people can see it, then end its deliveries."""
        logger.error("dead letter", service=service, subject=message.subject, why=why)
        headers = dict(message.headers or {}) | {
            "Millrace-Dead-Because": why.replace("\r", " ").replace("\n", " ")[:1000],
            "Millrace-Dead-Sequence": str(message.metadata.sequence.stream),
            "Nats-Msg-Id": f"{service}-{message.metadata.sequence.stream}",
        }
        await self.client.jetstream().publish(
            dead_letter_subject(service, message.subject), message.data, headers=headers
        )
        await message.term()


async def _up_to(subscription: JetStreamContext.PullSubscription, size: int) -> list[Msg]:
    """At least one message, and what follows within 20 ms; nothing if none comes for a while."""
    messages: list[Msg] = []
    try:
        messages += await subscription.fetch(1, timeout=5.0)
        messages += await subscription.fetch(size - 1, timeout=0.02)
    except (TimeoutError, nats.errors.TimeoutError):
        pass
    except nats.errors.Error as error:
        if not messages:
            logger.warning("NATS gave no messages", error=repr(error))
            await asyncio.sleep(1.0)
    return messages


async def _take_batch(
    service: str, handler: Callable[[list[Msg]], Awaitable[None]], messages: list[Msg]
) -> None:
    try:
        await handler(messages)
    except Exception as error:  # noqa: BLE001  the batch comes again; the reason is logged
        logger.log(
            logging.DEBUG if isinstance(error, Later) else logging.WARNING,
            "batch failed",
            service=service,
            size=len(messages),
            error=repr(error),
        )
        for each in messages:
            await each.nak(delay=getattr(error, "seconds", None) or 2)
        return
    for each in messages:
        await each.ack()


@contextlib.asynccontextmanager
async def _signs_of_life(message: Msg) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            with contextlib.suppress(nats.errors.Error):
                await message.in_progress()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()


async def _undecoded(message: NatsMessage) -> bytes:
    """FastStream hands the message on as it came; contracts.codec reads it."""
    return message.body
