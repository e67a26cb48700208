"""Streams and consumers as the code wants them, created or brought up to date at each start.

A durable keeps its old settings until it is told otherwise, and whoever subscribes first with defaults
creates a wrong one: so this runs before any service does, and nothing else creates either.
"""

import asyncio

import msgspec
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from contracts.registry import HISTORY, SERVICES, heard_by
from contracts.subjects import (
    CHANGES,
    DEAD_LETTER_SUBJECTS,
    DEAD_LETTERS,
    STREAM,
    STREAM_SUBJECTS,
    every_run,
)
from services.kit.errors import Misconfigured

ACK_WAIT = 30.0
"""Seconds after which a silent worker counts as dead; heartbeats come every 10 s (``services.kit.bus``)."""
_LOOKED = 0.4

logger = structlog.get_logger(__name__)


def _streams(replicas: int) -> tuple[StreamConfig, ...]:
    shared = StreamConfig(
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=replicas,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        duplicate_window=120,
        max_msg_size=512 * 1024,
    )
    return (
        shared.evolve(
            name=STREAM, subjects=[STREAM_SUBJECTS], description="Every fact of every run; the truth."
        ),
        shared.evolve(
            name=DEAD_LETTERS,
            subjects=[DEAD_LETTER_SUBJECTS],
            description="Messages that a service gave up on, with the reason in a header.",
        ),
    )


def consumer_of(service: str) -> ConsumerConfig:
    """The durable pull consumer of a service: its kinds, in order, shared by all its replicas."""
    everything = service == HISTORY
    return ConsumerConfig(
        durable_name=service,
        name=service,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,  # the bus counts, so that it can put the last try into the dead letters itself
        max_ack_pending=4096,
        filter_subject=STREAM_SUBJECTS if everything else None,
        filter_subjects=None if everything else [every_run(fact) for fact in heard_by(service)],
    )


async def provision(client: Client, *, replicas: int = 1) -> None:
    """Create or update everything that Millrace keeps in NATS.

    Raises:
        Misconfigured: the server has no JetStream, or refuses a stream as the code wants it.
    """
    js = client.jetstream(timeout=10)
    try:
        for stream in _streams(replicas):
            await _stream(js, stream)
        for service in SERVICES:
            if heard_by(service):
                await js.add_consumer(STREAM, consumer_of(service))
        await _object_store(js, replicas)
    except nats.js.errors.ServiceUnavailableError as error:
        raise Misconfigured(
            "NATS answers, but JetStream is off: start nats-server with --jetstream and a --store_dir."
        ) from error
    except nats.js.errors.APIError as error:
        raise Misconfigured(f"NATS refused a stream or consumer: {error.description}") from error


async def let_go(client: Client) -> None:
    """Let the messages that a killed predecessor worked on come again at once, not after ``ACK_WAIT``.

    Only where nobody else can be working on them: on a server of our own. It looks through what is not
    acknowledged 0.1 s after a consumer's ``ack_wait`` has changed, and counts what is older as due.
    """
    js = client.jetstream(timeout=10)
    held = [
        service
        for service in SERVICES
        if heard_by(service) and (await js.consumer_info(STREAM, service)).num_ack_pending
    ]
    if not held:
        return
    for service in held:
        await js.add_consumer(STREAM, consumer_of(service).evolve(ack_wait=0.001))
    await asyncio.sleep(_LOOKED)
    for service in held:
        await js.add_consumer(STREAM, consumer_of(service))


async def _stream(js: JetStreamContext, wanted: StreamConfig) -> None:
    try:
        await js.add_stream(wanted)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != 10058:  # the name is in use with another configuration
            raise
        logger.info("stream brought up to date", stream=wanted.name)
        await js.update_stream(wanted)


async def _object_store(js: JetStreamContext, replicas: int) -> None:
    try:
        await js.object_store(CHANGES)
    except nats.js.errors.NotFoundError:
        await js.create_object_store(CHANGES, replicas=replicas, storage=StorageType.FILE)


def describe() -> bytes:
    """The wanted streams and consumers as JSON, for people (``millrace doctor``)."""
    return msgspec.json.encode(
        {
            "streams": [stream.as_dict() for stream in _streams(1)],
            "consumers": {name: consumer_of(name).as_dict() for name in SERVICES if heard_by(name)},
        }
    )
