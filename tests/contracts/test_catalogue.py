"""The catalogue is whole: each kind has producers, consumers, a schema and examples; no file is left over."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from contracts import facts
from contracts.facts import AnyFact, Fact
from contracts.registry import CATALOGUE, HISTORY, SERVICES, SUPERSEDED, current_facts, heard_by, produced_by
from contracts.schema import asyncapi, every_fact, examples
from contracts.subjects import every_run, kind_of, tag_of
from contracts.write import ROOT, documents, orphans, write

KINDS = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: kind_of(entry.fact))
ASYNCAPI = Path(__file__).parents[1] / "data" / "asyncapi" / "3.0.0.json.gz"


def test_the_catalogue_lists_what_services_write_and_fold_in_the_same_order() -> None:
    assert tuple(entry.fact for entry in CATALOGUE) == get_args(AnyFact)
    assert current_facts() == set(get_args(AnyFact))


def test_every_struct_that_is_a_fact_is_in_the_catalogue() -> None:
    defined = {
        value
        for value in vars(facts).values()
        if isinstance(value, type) and issubclass(value, Fact) and value is not Fact
    }
    assert defined == set(every_fact()) == current_facts() | set(SUPERSEDED)


@KINDS
def test_every_kind_has_producers_and_consumers_that_exist(entry: Any) -> None:
    assert entry.producers
    assert entry.producers <= set(SERVICES)
    assert HISTORY in entry.consumers
    assert entry.consumers <= set(SERVICES)
    for service in SERVICES:
        assert (entry.fact in heard_by(service)) == (service in entry.consumers)
        assert (entry.fact in produced_by(service)) == (service in entry.producers)


def test_the_history_hears_everything_and_says_nothing() -> None:
    assert set(heard_by(HISTORY)) == current_facts()
    assert produced_by(HISTORY) == ()


def test_kinds_have_subjects_of_their_own() -> None:
    assert len({every_run(entry.fact) for entry in CATALOGUE}) == len(CATALOGUE)


def test_versions_of_a_kind_count_from_one_without_gaps() -> None:
    tags: dict[str, list[int]] = {}
    for fact in every_fact():
        kind, _, version = tag_of(fact).rpartition(".v")
        tags.setdefault(kind, []).append(int(version))
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in tags.values())


@pytest.mark.parametrize("fact", every_fact(), ids=tag_of)
def test_every_kind_and_version_has_examples_with_names_of_their_own(fact: type[Fact]) -> None:
    names = [said.name for said in examples(fact)]
    assert names[0] == ""
    assert len(set(names)) == len(names)


def test_the_files_on_disk_are_exactly_what_is_generated() -> None:
    stale = [path for path, text in documents().items() if not _is(ROOT / path, text)]
    assert stale == [], "run: python -m contracts.write"


def test_nothing_is_orphaned_on_disk() -> None:
    assert orphans() == []


def test_writing_makes_every_file_and_removes_what_is_left_over(tmp_path: Path) -> None:
    left_over = tmp_path / "contracts/examples/run.forgotten.v1.json"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("{}")
    assert set(write(tmp_path)) == {*documents(), "contracts/examples/run.forgotten.v1.json (removed)"}
    assert not left_over.exists()
    assert write(tmp_path) == []


def test_the_page_links_to_files_and_headings_that_exist() -> None:
    page = documents()["docs/events.md"]
    headings = {line.lstrip("# ").replace(".", "").lower() for line in page.splitlines() if line[:1] == "#"}
    for target in _links(page):
        if target.startswith("#"):
            assert target[1:].replace("-", " ") in headings, target
        else:
            assert (ROOT / "docs" / target).is_file(), target


def test_the_asyncapi_document_is_valid_by_asyncapis_own_schema() -> None:
    judge = jsonschema_rs.validator_for(json.loads(gzip.decompress(ASYNCAPI.read_bytes())))
    judge.validate(asyncapi())
    assert not judge.is_valid(asyncapi() | {"channels": {"run.requested": {"address": 7}}})


def test_the_asyncapi_documents_references_lead_somewhere() -> None:
    document = asyncapi()
    found = list(_references(document))
    assert len(found) > 100
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_asyncapi_documents_examples_fit_their_messages() -> None:
    document = asyncapi()
    for message in document["components"]["messages"].values():
        headers = jsonschema_rs.validator_for(message["headers"])
        payload = jsonschema_rs.validator_for({**message["payload"], "components": document["components"]})
        for example in message["examples"]:
            headers.validate(example["headers"])
            payload.validate(example["payload"])


def _is(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


def _links(page: str) -> Iterator[str]:
    for piece in page.split("](")[1:]:
        yield piece.partition(")")[0]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)
