"""Whose a sandbox is and whether it is still wanted, as the run's facts say."""

import msgspec
import pytest

from contracts import facts as f
from contracts.story import REQUESTED
from services.sandbox_runner.standing import Standing, Unrecorded, Unwanted, Wanted, is_named, standing
from tests.unit.agent_history import CANCELLED, FINISHED, ask, asked, bash, lost, ran, ready, turn

READY = ready()
NAME, HERE = READY.sandbox_id, READY.runner
WANTED = Wanted(base=READY.base)
NEXT = msgspec.structs.replace(READY, generation=2, sandbox_id="next", runner="another")


@pytest.mark.parametrize(
    ("given", "then"),
    [
        pytest.param([], Unwanted(), id="of a run that nobody knows"),
        pytest.param([REQUESTED], Unrecorded(), id="killed before it said that it was ready"),
        pytest.param([REQUESTED, READY], WANTED, id="ready"),
        pytest.param([REQUESTED, READY, turn(1, bash("u")), ran(1, "u")], WANTED, id="at work"),
        pytest.param(
            [REQUESTED, msgspec.structs.replace(READY, runner="another")], Unwanted(), id="another runner was faster"
        ),
        pytest.param([REQUESTED, READY, lost()], Unwanted(), id="said to be lost"),
        pytest.param([REQUESTED, READY, lost(), NEXT], Unwanted(), id="replaced"),
        pytest.param([REQUESTED, READY, turn(1, ask("u")), ran(1), asked(1, "u")], Unwanted(), id="parked"),
        pytest.param([REQUESTED, READY, CANCELLED], Unwanted(), id="cancelled"),
        pytest.param([REQUESTED, READY, FINISHED], Unwanted(), id="finished"),
    ],
)  # fmt: skip
def test_a_sandbox_stands(given: list[f.AnyFact], then: Standing) -> None:
    assert standing(given, NAME, HERE) == then


def test_a_runner_answers_only_for_what_the_log_says_is_its_own() -> None:
    assert is_named([REQUESTED, READY, FINISHED], NAME, HERE)
    assert not is_named([REQUESTED, READY], NAME, "another")
    assert not is_named([REQUESTED, READY], "another", HERE)
    assert not is_named([REQUESTED], NAME, HERE)
