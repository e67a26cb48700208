"""Bytes in and out: the one place that knows that the wire is JSON and the attributes are CloudEvents.

Attributes follow the CloudEvents NATS protocol binding 1.0, binary mode: each as a header ``ce-…``.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from contracts.envelope import Envelope, Recorded
from contracts.facts import AnyFact, Fact, VerificationFinishedV1
from contracts.subjects import parse_subject, subject_of, tag_of
from contracts.upcast import upcast

TYPE_PREFIX = "dev.millrace."
MAX_FACT_BYTES = 256 * 1024
"""No fact is larger; what is larger lies in the object store (design, the log)."""

_OLD = VerificationFinishedV1
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(AnyFact | _OLD)


def encode_fact(fact: AnyFact) -> bytes:
    """The body of a fact; ``ValueError`` above ``MAX_FACT_BYTES``."""
    body = _encoder.encode(fact)
    if len(body) > MAX_FACT_BYTES:
        raise ValueError(f"a {tag_of(fact)} of {len(body)} bytes is over the limit of {MAX_FACT_BYTES}")
    return body


def decode_fact(body: bytes) -> AnyFact:
    """The fact in its current version; ``msgspec.DecodeError`` or ``ValidationError`` if it is none."""
    return upcast(_decoder.decode(body))


def headers_of(envelope: Envelope, fact: Fact) -> dict[str, str]:
    """The CloudEvents attributes and the trace context."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": envelope.id,
        "ce-type": TYPE_PREFIX + tag_of(fact),
        "ce-source": envelope.source,
        "ce-subject": subject_of(envelope.key, fact),
        "ce-time": envelope.time.isoformat().replace("+00:00", "Z"),
        "ce-cause": envelope.cause,
        "content-type": "application/json",
    }
    if envelope.traceparent:
        headers["traceparent"] = envelope.traceparent
    return headers


def decode_recorded(subject: str, sequence: int, headers: Mapping[str, str] | None, body: bytes) -> Recorded:
    """A stored message as a fact with its envelope.

    Raises ``msgspec.DecodeError``, ``KeyError`` or ``ValueError`` when the message is not one of ours.
    """
    key, _ = parse_subject(subject)
    attributes = headers or {}
    return Recorded(
        sequence=sequence,
        envelope=Envelope(
            id=attributes["ce-id"],
            key=key,
            source=attributes["ce-source"],
            time=datetime.fromisoformat(attributes["ce-time"]),
            cause=attributes.get("ce-cause", ""),
            traceparent=attributes.get("traceparent", ""),
        ),
        fact=decode_fact(body),
    )
