"""Facts as JSON Schema and as an AsyncAPI document, both made from the structs. Pure."""

import json
from typing import Any

import msgspec

from contracts.codec import TYPE_PREFIX, headers_of
from contracts.facts import Fact
from contracts.registry import CATALOGUE, SERVICES, SUPERSEDED, Entry
from contracts.story import OTHERWISE, STORY, Said, envelope_of
from contracts.subjects import kind_of, tag_of

Json = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_COMPONENTS = "#/components/schemas/{name}"
_SPACE = "issues.{repository_id}.{issue}.{run}."


def schema_of(fact: type[Fact]) -> Json:
    """The JSON Schema (2020-12) of one kind and version; fields it does not name are allowed."""
    return {"$schema": _DRAFT, "$id": f"urn:millrace:{tag_of(fact)}", **msgspec.json.schema(fact)}


def example_of(said: Said) -> Json:
    """The body of an example."""
    body: Json = json.loads(msgspec.json.encode(said.fact, order="deterministic"))
    return body


def examples(fact: type[Fact]) -> list[Said]:
    """The examples of one kind and version, the run's own first."""
    return [said for said in (*STORY, *OTHERWISE) if type(said.fact) is fact]


def versions(entry: Entry) -> list[type[Fact]]:
    """All versions of a kind that are still read, the current one first."""
    return [entry.fact, *(old for old in SUPERSEDED if kind_of(old) == kind_of(entry.fact))]


def every_fact() -> list[type[Fact]]:
    """All kinds and versions, in the order of a run."""
    return [fact for entry in CATALOGUE for fact in versions(entry)]


def asyncapi() -> Json:
    """The log as an AsyncAPI 3 document: a channel per kind, an operation per service that has part in it."""
    facts = every_fact()
    _, components = msgspec.json.schema_components(facts, ref_template=_COMPONENTS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millrace: the facts of a run",
            "version": "1",
            "description": "Written by `python -m contracts.write` from contracts/; see docs/events.md.",
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": {kind_of(entry.fact): _channel(entry) for entry in CATALOGUE},
        "operations": _operations(),
        "components": {
            "messages": {tag_of(fact): _message(fact) for fact in facts},
            "schemas": components,
        },
    }


def _channel(entry: Entry) -> Json:
    return {
        "address": _SPACE + kind_of(entry.fact),
        "description": "Held by the JetStream stream ISSUES.",
        "messages": {
            tag_of(fact): {"$ref": f"#/components/messages/{tag_of(fact)}"} for fact in versions(entry)
        },
        "parameters": {
            "repository_id": {"description": "GitHub's numeric id of the repository."},
            "issue": {"description": "The issue's number."},
            "run": {"description": "The run's id, a ULID."},
        },
    }


def _operations() -> Json:
    found: Json = {}
    for service in SERVICES:
        for entry in CATALOGUE:
            kind = kind_of(entry.fact)
            if service in entry.producers:
                found[f"{service}.sends.{kind}"] = _operation("send", kind, service, [entry.fact])
            if service in entry.consumers:
                found[f"{service}.receives.{kind}"] = _operation("receive", kind, service, versions(entry))
    return found


def _operation(action: str, kind: str, service: str, facts: list[type[Fact]]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{kind}"},
        "messages": [{"$ref": f"#/channels/{kind}/messages/{tag_of(fact)}"} for fact in facts],
        "tags": [{"name": service}],
    }


def _message(fact: type[Fact]) -> Json:
    said = examples(fact)
    return {
        "name": tag_of(fact),
        "title": fact.__name__,
        "summary": summary(fact),
        "contentType": "application/json",
        "headers": _headers(fact, said[0]),
        "payload": {"$ref": _COMPONENTS.format(name=fact.__name__)},
        "examples": [
            {
                "name": one.title,
                "headers": headers_of(envelope_of(one), one.fact),
                "payload": example_of(one),
            }
            for one in said
        ],
    }


def _headers(fact: type[Fact], said: Said) -> Json:
    """The attributes as ``headers_of`` writes them; the trace context is there when the run is traced."""
    always = headers_of(envelope_of(said), said.fact)
    properties: Json = {name: {"type": "string"} for name in always} | {"traceparent": {"type": "string"}}
    properties["ce-specversion"] = {"const": always["ce-specversion"]}
    properties["ce-type"] = {"const": TYPE_PREFIX + tag_of(fact)}
    properties["ce-time"] = {"type": "string", "format": "date-time"}
    return {"type": "object", "properties": properties, "required": sorted(always)}


def summary(fact: type[Fact]) -> str:
    """The first sentence of a fact's description, as Markdown."""
    first = (fact.__doc__ or "").strip().splitlines()[0]
    return first.partition(". ")[0].rstrip(".").replace("``", "`") + "."
