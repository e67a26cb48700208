"""Every example is what it claims to be, and together they tell one run that could have happened."""

import hashlib
import json
from functools import reduce
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from contracts import story
from contracts.change import Change, reference
from contracts.codec import decode_fact, encode_fact
from contracts.facts import Fact, SandboxReady, TurnTaken
from contracts.registry import CATALOGUE, SUPERSEDED
from contracts.schema import every_fact, examples
from contracts.story import KEY, OTHERWISE, STORY, Said, envelope_of
from contracts.subjects import tag_of
from contracts.write import ROOT
from services.agent import state as agent
from services.agent.prices import cost
from services.history import runs as history
from services.kit.log import fact_id
from services.publisher import state as publisher
from services.sandbox_runner import state as runner
from services.sandbox_runner.decide import sandbox_id

ALL = pytest.mark.parametrize("said", [*STORY, *OTHERWISE], ids=lambda said: said.title)
CURRENT = [said for said in (*STORY, *OTHERWISE) if type(said.fact) not in SUPERSEDED]


def stored(said: Said) -> bytes:
    return (ROOT / f"contracts/examples/{said.title}.json").read_bytes()


@pytest.mark.parametrize("said", CURRENT, ids=lambda said: said.title)
def test_an_example_decodes_to_its_fact_and_encodes_to_the_same_bytes(said: Said) -> None:
    fact = decode_fact(stored(said))
    assert fact == said.fact
    assert msgspec.json.format(encode_fact(fact)) == stored(said).rstrip()


@pytest.mark.parametrize("said", CURRENT, ids=lambda said: said.title)
def test_an_example_leaves_no_field_out(said: Said) -> None:
    assert set(json.loads(stored(said))) == {"type", *type(said.fact).__struct_fields__}


@ALL
def test_an_example_fits_its_schema(said: Said) -> None:
    schema = json.loads((ROOT / f"contracts/schemas/{tag_of(said.fact)}.json").read_bytes())
    judge = jsonschema_rs.validator_for(schema)
    example: dict[str, Any] = json.loads(stored(said))
    judge.validate(example)
    assert not judge.is_valid(example | {"type": "run.requested.v0"})
    for name in schema["$defs"][schema["$ref"].rpartition("/")[2]]["required"]:
        assert not judge.is_valid({key: value for key, value in example.items() if key != name})


@ALL
def test_an_example_is_said_by_a_producer_because_of_something_said_before(said: Said) -> None:
    (entry,) = [e for e in CATALOGUE if tag_of(e.fact)[:-1] == tag_of(said.fact)[:-1]]
    assert said.by in entry.producers
    if isinstance(said.because, Fact):
        (cause,) = [each for each in (*STORY, *OTHERWISE) if each.fact == said.because]
        assert cause.at < said.at
        assert any(type(said.because) is each.fact and said.by in each.consumers for each in CATALOGUE)


def test_the_story_has_the_ids_that_the_log_would_give() -> None:
    ids = [envelope_of(said).id for said in STORY]
    assert ids == [fact_id(KEY, recorded.fact) for recorded in story.recorded()]
    assert len(set(ids)) == len(ids)


def test_the_story_goes_forward_in_time() -> None:
    times = [said.at for said in STORY]
    assert times == sorted(times)


def test_the_story_is_finished_for_every_service_that_folds_it() -> None:
    facts = [recorded.fact for recorded in story.recorded()]
    assert isinstance(reduce(agent.evolve, facts, agent.START), agent.Ended)
    assert isinstance(reduce(publisher.evolve, facts, publisher.START), publisher.Finished)
    assert reduce(runner.evolve, facts, runner.START) == runner.Over(generation=3)
    row = None
    for recorded in story.recorded():
        row = history.evolve(row, KEY, recorded.fact, recorded.envelope.time)
    assert row is not None
    assert (row.state, row.outcome, row.turns) == ("finished", "pull_request", 6)


def test_the_story_costs_what_its_tokens_cost() -> None:
    turns = [said.fact for said in STORY if isinstance(said.fact, TurnTaken)]
    assert [turn.cost for turn in turns] == [cost(turn.model, turn.usage) for turn in turns]


def test_the_storys_sandboxes_have_the_names_that_the_runner_gives() -> None:
    ready = [said.fact for said in STORY if isinstance(said.fact, SandboxReady)]
    assert [each.sandbox_id for each in ready] == [sandbox_id(KEY.run, each.generation) for each in ready]


@pytest.mark.parametrize(
    "change", [story.NOTHING, story.FIRST, story.SECOND], ids=["base", "first", "second"]
)
def test_the_storys_references_name_its_changes(change: Change) -> None:
    named = {ref["digest"] for said in STORY for ref in _references(msgspec.to_builtins(said.fact))}
    assert reference(change).digest in named
    for entry in change.written:
        head = f"blob {len(entry.content)}\0".encode()
        assert hashlib.sha1(head + entry.content, usedforsecurity=False).hexdigest() == entry.blob


@pytest.mark.parametrize("fact", every_fact(), ids=tag_of)
def test_a_field_of_a_newer_minor_version_is_passed_over(fact: type[Fact]) -> None:
    body = json.loads(msgspec.json.encode(examples(fact)[0].fact))
    newer = body | {"arrived_later": {"deep": [1, None]}}
    assert decode_fact(json.dumps(newer).encode()) == decode_fact(json.dumps(body).encode())


def _references(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        own = [node] if "digest" in node else []
        return own + [found for each in node.values() for found in _references(each)]
    if isinstance(node, list | tuple):
        return [found for each in node for found in _references(each)]
    return []
