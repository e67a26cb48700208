"""Old facts are read in today's words; what nobody explains is an error."""

import json

import msgspec
import pytest

from contracts import facts as f
from contracts.codec import decode_fact
from contracts.registry import CATALOGUE, SUPERSEDED, current_facts
from contracts.schema import every_fact, examples
from contracts.story import KEY, SECOND_TREE, TEST
from contracts.subjects import kind_of, subject_of, tag_of
from contracts.upcast import upcast
from contracts.write import ROOT

OLD = (ROOT / "contracts/examples/verification.finished.v1.json").read_bytes()


def test_every_fact_that_is_not_current_has_an_upcaster_to_a_current_one_of_its_kind() -> None:
    for fact in set(every_fact()) - current_facts():
        assert upcast.dispatch(fact) is not upcast.dispatch(f.Fact), f"{tag_of(fact)} has no upcaster"
        for said in examples(fact):
            new = upcast(said.fact)
            assert type(new) in current_facts()
            assert kind_of(new) == kind_of(fact)


@pytest.mark.parametrize("fact", [entry.fact for entry in CATALOGUE], ids=tag_of)
def test_a_current_fact_comes_back_as_it_is(fact: type[f.Fact]) -> None:
    for said in examples(fact):
        assert upcast(said.fact) is said.fact


def test_one_command_that_passed_or_failed_became_a_verdict_with_checks() -> None:
    new = decode_fact(OLD)
    assert isinstance(new, f.VerificationFinished)
    assert (new.attempt, new.verdict, new.files, new.base_checks, new.reason) == (2, "passed", (), (), "")
    assert new.checks == (
        f.Check(command=TEST, tree=SECOND_TREE, exit_code=0, seconds=0.718, output=new.checks[0].output),
    )
    assert "3 passed" in new.checks[0].output
    failed = decode_fact(json.dumps(json.loads(OLD) | {"passed": False, "exit_code": 1}).encode())
    assert isinstance(failed, f.VerificationFinished)
    assert (failed.verdict, failed.checks[0].exit_code) == ("failed", 1)


def test_an_old_fact_has_the_subject_of_its_kind() -> None:
    assert {subject_of(KEY, old) for old in SUPERSEDED} == {subject_of(KEY, f.VerificationFinished)}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"type": "run.paused.v1"}', id="an unknown kind"),
        pytest.param(b'{"type": "run.finished.v2", "outcome": "failed"}', id="a version from the future"),
        pytest.param(b'{"outcome": "failed"}', id="no type"),
        pytest.param(b'{"type": "run.finished.v1"}', id="a field missing"),
        pytest.param(b'{"type": "run.finished.v1", "outcome": "won"}', id="an unknown outcome"),
        pytest.param(b'{"type": "run.finished.v1", "outcome": "failed", "why": 7}', id="another type"),
        pytest.param(b'{"type": "run.finished.v1", "outcome": "failed"', id="cut off"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_no_fact_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_fact(body)
