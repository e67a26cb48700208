"""``docs/events.md``: the catalogue of facts as a page for people, made from the structs. Pure."""

import inspect
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from contracts.codec import TYPE_PREFIX, headers_of
from contracts.envelope import identity_of
from contracts.facts import Fact
from contracts.registry import CATALOGUE, HISTORY, SERVICES, SUPERSEDED, Entry
from contracts.schema import examples, summary, versions
from contracts.story import STORY, Said, envelope_of
from contracts.subjects import kind_of, tag_of

_HEAD = """\
# Events

Every step of a run is a fact: something that happened, never changed and never taken back. This page lists
them in the order in which one run produces them. It is written by `python -m contracts.write`; change
`contracts/facts.py` and `contracts/registry.py` instead, and the example run in `contracts/story.py`.

A fact is a message of the JetStream stream `ISSUES`. Its subject is
`issues.<repository_id>.<issue>.<run>.<kind>`, its body JSON, its attributes CloudEvents 1.0 (NATS protocol
binding, binary mode). Questions and answers between services (`vault.v1.…`, `sandbox.v1.…`, `history.v1.…`)
are no facts and stand in no stream. The same catalogue for programs: [asyncapi.json](asyncapi.json).

A new field has a default, so that old messages stay readable, and readers ignore fields that they do not
know. A new meaning gets a new version; old versions are translated when read (`contracts/upcast.py`), and
what is stored stays as it is. Money is in millionths of a US dollar, time in seconds, sizes in bytes.
"""

_ATTRIBUTES = {
    "ce-specversion": "the version of CloudEvents",
    "ce-id": "derived from the run, the kind and what tells the fact from others of its kind",
    "ce-type": "the kind and its version",
    "ce-source": "the service that says it",
    "ce-subject": "the subject once more, for readers outside NATS",
    "ce-time": "when it was said, UTC",
    "ce-cause": "the id of the fact or delivery that led to it",
    "content-type": "always the same",
    "traceparent": "W3C trace context, where the run is traced",
}
_WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    type(None): "null",
}
_ONCE = {
    "turn": "turn",
    "tool_use_id": "tool call",
    "attempt": "attempt",
    "generation": "sandbox",
    "comment_id": "comment",
    "stage": "stage",
}


def events_page() -> str:
    """The page."""
    parts = [_HEAD, _attributes(), _overview(), _run(), *map(_kind, CATALOGUE), _values(), _old()]
    return "\n".join(parts)


def _attributes() -> str:
    first = STORY[0]
    shown = headers_of(envelope_of(first), first.fact)
    rows = (
        (f"`{name}`", words, f"`{shown[name]}`" if name in shown else "")
        for name, words in _ATTRIBUTES.items()
    )
    return "## Attributes\n\n" + _table(("attribute", "what it says", "example"), rows)


def _overview() -> str:
    rows = (
        (
            f"[`{kind_of(entry.fact)}`](#{_anchor(kind_of(entry.fact))})",
            summary(entry.fact),
            _services(entry.producers),
            _services(entry.consumers - {HISTORY}),
        )
        for entry in CATALOGUE
    )
    head = ("kind", "what it says", "said by", "heard by")
    return "## Kinds\n\n" + _table(head, rows) + "\n`history` hears and archives all of them.\n"


def _run() -> str:
    rows = ((_clock(said.at), said.by, _example(said)) for said in STORY)
    words = (
        "The examples tell one run, from the issue to the pull request (times since the issue was opened):"
    )
    return f"## One run\n\n{words}\n\n" + _table(("time", "said by", "example"), rows)


def _kind(entry: Entry) -> str:
    fact = entry.fact
    kind = kind_of(fact)
    facts = [
        f"- `ce-type: {TYPE_PREFIX}{tag_of(fact)}`",
        f"- subject `issues.<repository_id>.<issue>.<run>.{kind}`",
        f"- said by {_services(entry.producers)}; heard by {_services(entry.consumers)}",
        f"- at most one per {_once(fact)}",
        f"- [schema](../contracts/schemas/{tag_of(fact)}.json), examples: "
        + ", ".join(_example(said) for said in examples(fact)),
    ]
    older = [tag_of(old) for old in versions(entry)[1:]]
    if older:
        facts.append(
            "- older versions still read: " + ", ".join(f"[`{tag}`](#old-versions)" for tag in older)
        )
    return f"## {kind}\n\n{_description(fact)}\n\n" + "\n".join(facts) + "\n\n" + _fields(fact)


def _values() -> str:
    parts = [f"### {value.__name__}\n\n{_description(value)}\n\n{_fields(value)}" for value in _carried()]
    return "## Values\n\nWhat several facts carry.\n\n" + "\n".join(parts)


def _old() -> str:
    parts = [
        f"### {tag_of(fact)}\n\n{_description(fact)}\n\n"
        f"- [schema](../contracts/schemas/{tag_of(fact)}.json), examples: "
        + ", ".join(_example(said) for said in examples(fact))
        + f"\n\n{_fields(fact)}"
        for fact in SUPERSEDED
    ]
    return "## Old versions\n\nStill in old streams and archives, never written again.\n\n" + "\n".join(parts)


def _carried() -> Iterator[type[msgspec.Struct]]:
    seen: set[Any] = set()
    for entry in CATALOGUE:
        for annotation in get_type_hints(entry.fact).values():
            yield from _structs(annotation, seen)


def _structs(annotation: Any, seen: set[Any]) -> Iterator[type[msgspec.Struct]]:
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for inner in get_type_hints(annotation).values():
            yield from _structs(inner, seen)
    for argument in get_args(annotation):
        yield from _structs(argument, seen)


def _fields(struct: type[msgspec.Struct]) -> str:
    hints = get_type_hints(struct)
    rows = [
        (f"`{field.name}`", _type(hints[field.name]), _default(field))
        for field in msgspec.structs.fields(struct)
    ]
    return _table(("field", "type", "default"), rows) if rows else "It has no fields.\n"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, Union):
        return " or ".join(_type(each) for each in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _WORDS[origin or annotation]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default
    return "empty" if value in ("", ()) else f"`{msgspec.json.encode(value).decode()}`"


def _once(fact: type[Fact]) -> str:
    identity = identity_of(examples(fact)[0].fact)
    names = [_ONCE[part.partition("=")[0]] for part in identity.split(",") if part]
    return " and ".join(["run", *names])


def _example(said: Said) -> str:
    return f"[{said.title}](../contracts/examples/{said.title}.json)"


def _services(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in SERVICES if name in names) or "nobody else"


def _description(struct: type[msgspec.Struct]) -> str:
    return inspect.cleandoc(struct.__doc__ or "").replace("``", "`")


def _anchor(title: str) -> str:
    return title.replace(".", "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}:{rest:06.3f}"


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "".join(f"| {line} |\n" if index != 1 else f"|{line}|\n" for index, line in enumerate(lines))
