"""The log: one stream of facts, appended with the sequence that the writer expects, read by run.

Facts about NATS 2.15 that this module rests on: all writers of a run use the very same filter for the
expected sequence (two different ones can both win on a cluster); a lost acknowledgement is resolved by
reading, never by the error alone (one node answers "wrong last sequence", three answer "duplicate").
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from contracts.codec import decode_recorded, encode_fact, headers_of
from contracts.envelope import Envelope, Recorded, RunKey, derive_id, identity_of
from contracts.facts import AnyFact
from contracts.subjects import STREAM, issue_subjects, kind_of, run_subjects, subject_of
from services.kit.errors import Conflict, Later, Refused, Unreadable

_WRONG_LAST_SEQUENCE = (10071, 10164)
_STREAM_FULL = 10077
_BATCH = 512

logger = structlog.get_logger(__name__)


def fact_id(key: RunKey, fact: AnyFact) -> str:
    """The id of this fact in this run; the same fact said again has the same id."""
    return derive_id(key.run, kind_of(fact), identity_of(fact))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Log:
    """Reads and appends facts as one service.

    Args:
        client: a connected NATS client.
        source: the service's name; it becomes ``ce-source``.
        clock: aware UTC time; an argument so that tests decide it.
    """

    def __init__(self, client: Client, source: str, clock: Callable[[], datetime] = _utc_now) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._source = f"/millrace/{source}"
        self._clock = clock

    async def read(self, key: RunKey, *, after: int = 0) -> list[Recorded]:
        """The run's facts in order, those with a sequence above ``after``.

        Raises:
            Later: the server did not answer.
            Unreadable: a stored message is not a fact.
        """
        return await self._collect(run_subjects(key), after)

    async def read_issue(self, repository_id: int, issue: int) -> list[Recorded]:
        """The facts of all runs of an issue, in order."""
        return await self._collect(issue_subjects(repository_id, issue), 0)

    async def append(
        self, key: RunKey, fact: AnyFact, *, expected: int, cause: str, whole_issue: bool = False
    ) -> Recorded:
        """Append a fact if the run's last sequence is ``expected`` (0: the run has no fact yet).

        Saying the same fact again returns the one that stands, whatever became of the first try. With
        ``whole_issue``, ``expected`` is the last sequence of all runs of the issue: for a run's first fact,
        so that two beginnings cannot both win.

        Raises:
            Conflict: another fact came first; read, decide again.
            Later: the server did not answer, or the stream is full.
            Refused: the fact is larger than a fact may be.
        """
        envelope = Envelope(
            id=fact_id(key, fact), key=key, source=self._source, time=self._clock(), cause=cause
        )
        try:
            body = encode_fact(fact)
        except ValueError as error:
            raise Refused(str(error), kind="fact_too_large") from error
        scope = issue_subjects(key.repository_id, key.issue) if whole_issue else run_subjects(key)
        headers = headers_of(envelope, fact) | {
            "Nats-Msg-Id": envelope.id,
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Last-Subject-Sequence-Subject": scope,
        }
        try:
            ack = await self._js.publish(subject_of(key, fact), body, headers=headers, stream=STREAM)
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                return await self._resolve(envelope, expected, scope)
            if error.err_code == _STREAM_FULL:
                raise Later("the stream ISSUES is full: give it more room", kind="stream_full") from error
            raise Later(f"the log refused a {kind_of(fact)}: {error}", kind="log_unavailable") from error
        except (TimeoutError, nats.errors.Error, OSError) as error:
            logger.warning("append without an answer", kind=kind_of(fact), run=key.run, error=repr(error))
            return await self._resolve(envelope, expected, scope)
        if ack.duplicate:
            return await self._resolve(envelope, expected, scope)
        return Recorded(sequence=ack.seq, envelope=envelope, fact=fact)

    async def _resolve(self, envelope: Envelope, expected: int, scope: str) -> Recorded:
        """What became of an append whose answer was lost or negative: the run itself tells."""
        history = await self._collect(scope, 0)
        for recorded in history:
            if recorded.envelope.id == envelope.id:
                return recorded
        last = history[-1].sequence if history else 0
        if last != expected:
            raise Conflict(f"{scope} is at {last}, not at {expected}")
        raise Later("the log did not confirm an append", kind="log_unavailable")

    async def follow(self, subjects: str, *, after: int = 0) -> AsyncIterator[Recorded]:
        """What the stream holds on ``subjects`` above ``after``, then what comes, without end."""
        start = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        if after:
            start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
        subscription = await self._js.subscribe(subjects, stream=STREAM, ordered_consumer=True, config=start)
        try:
            async for message in subscription.messages:
                yield _recorded(message, message.metadata.sequence.stream)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _collect(self, subjects: str, after: int) -> list[Recorded]:
        facts: list[Recorded] = []
        start = after + 1
        try:
            while True:
                batch, more = await self._batch(subjects, start)
                facts.extend(batch)
                if not more or not batch:
                    return facts
                start = batch[-1].sequence + 1
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Later(f"the log did not answer: {error!r}", kind="log_unavailable") from error

    async def _batch(self, subjects: str, start: int) -> tuple[list[Recorded], bool]:
        """One batched direct get (ADR-31): messages until an end-of-batch status."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        facts: list[Recorded] = []
        try:
            question = msgspec.json.encode({"seq": start, "batch": _BATCH, "next_by_subj": subjects})
            await self._client.publish(f"$JS.API.DIRECT.GET.{STREAM}", question, reply=inbox)
            while True:
                message = await answers.next_msg(timeout=5)
                headers = message.headers or {}
                match headers.get("Status"):
                    case None:
                        facts.append(_recorded(message, int(headers["Nats-Sequence"])))
                    case "204":
                        return facts, int(headers.get("Nats-Num-Pending", "0")) > 0
                    case "404":
                        return facts, False
                    case status:
                        raise Later(
                            f"the log answered {status} {headers.get('Description', '')}",
                            kind="log_unavailable",
                        )
        finally:
            with suppress(nats.errors.Error):
                await answers.unsubscribe()


def _recorded(message: Msg, sequence: int) -> Recorded:
    headers = message.headers or {}
    subject = headers.get("Nats-Subject", message.subject)
    try:
        return decode_recorded(subject, sequence, headers, message.data)
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise Unreadable(f"message {sequence} on {subject} is not a fact: {error}") from error


def last_sequence(history: Sequence[Recorded]) -> int:
    """The sequence that the next append to this run expects."""
    return history[-1].sequence if history else 0
