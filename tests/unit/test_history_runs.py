"""The line that the list of issues shows for a run, fact by fact."""

from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from contracts import facts as f
from contracts import story
from contracts.story import ANSWERED, KEY, OPENED, REQUESTED
from services.history.runs import Row, evolve
from tests.unit.agent_history import (
    CANCELLED,
    ask,
    asked,
    bash,
    lost,
    proposed,
    ran,
    ready,
    turn,
    verified,
)

History = list[f.AnyFact]
BEGUN: History = [REQUESTED, ready()]
PROPOSED: History = [*BEGUN, turn(1, bash("u1")), ran(1, "u1"), proposed(1)]
FAILED = f.RunFailed(stage="agent", kind="budget_cost", why="$0.02")


def at(second: int) -> datetime:
    return OPENED + timedelta(seconds=second)


def fold(given: History) -> Row | None:
    """Each fact a second after the one before."""
    row: Row | None = None
    for second, fact in enumerate(given):
        row = evolve(row, KEY, fact, at(second))
    return row


@pytest.mark.parametrize(
    ("given", "state"),
    [
        pytest.param([REQUESTED], "requested", id="requested"),
        pytest.param([REQUESTED, story.POSTED], "requested", id="a comment changes nothing"),
        pytest.param(BEGUN, "working", id="a sandbox is there"),
        pytest.param([*BEGUN, turn(1), ran(1)], "working", id="the agent works"),
        pytest.param([*BEGUN, turn(1), lost()], "recovering", id="the sandbox was lost"),
        pytest.param([*BEGUN, turn(1), lost(), ready(2)], "working", id="the next sandbox is there"),
        pytest.param([*BEGUN, turn(1, ask("u1")), asked(1, "u1")], "waiting for an answer", id="parked"),
        pytest.param([*BEGUN, asked(1, "u1"), ANSWERED], "resuming", id="answered"),
        pytest.param(PROPOSED, "verifying", id="a change is there"),
        pytest.param([*PROPOSED, verified("passed")], "verified", id="the change passed"),
        pytest.param(
            [*PROPOSED, verified("failed"), turn(2)],
            "working",
            id="the agent goes on after a failed verification",
        ),
        pytest.param(
            [*PROPOSED, verified("passed"), story.PUBLISHED], "publishing", id="the commit is there"
        ),
        pytest.param([*BEGUN, f.AnswerGiven(turn=1, text="So.")], "answering", id="an answer is there"),
        pytest.param([*BEGUN, FAILED], "failing", id="a service gave up"),
        pytest.param([*BEGUN, CANCELLED], "cancelling", id="somebody stopped it"),
        pytest.param([*BEGUN, FAILED, f.RunFinished(outcome="failed")], "finished", id="the end"),
    ],
)
def test_the_state_of_a_run(given: History, state: str) -> None:
    row = fold(given)
    assert row is not None
    assert row.state == state
    assert row.updated_at == at(len(given) - 1)


def test_the_line_of_the_whole_story() -> None:
    row = fold([recorded.fact for recorded in story.recorded()])
    assert row == Row(
        run=KEY.run,
        repository_id=1296269,
        full_name="lighthouse/tidetable",
        number=42,
        title="Durations just under a minute are printed as `60 s`",
        state="finished",
        requested_at=at(0),
        updated_at=at(len(story.STORY) - 1),
        outcome="pull_request",
        turns=6,
        cost=9326 + 3603 + 6707 + 3933 + 5324 + 3448,
        pull_request_url="https://github.com/lighthouse/tidetable/pull/43",
    )


def test_a_run_whose_beginning_was_not_seen_has_no_line() -> None:
    assert fold([ready(), turn(1), f.RunFinished(outcome="failed")]) is None


def test_the_request_said_again_does_not_begin_the_line_anew() -> None:
    row = fold([*BEGUN, turn(1), REQUESTED])
    assert row is not None
    assert (row.turns, row.state, row.requested_at) == (1, "working", at(0))


def test_a_turn_said_again_costs_nothing_more() -> None:
    row = fold([*BEGUN, turn(1, cost=7), turn(1, cost=7), turn(2, cost=5), turn(1, cost=7)])
    assert row is not None
    assert (row.turns, row.cost) == (2, 12)


def test_what_comes_after_the_end_changes_nothing() -> None:
    given: History = [*BEGUN, f.RunFinished(outcome="pull_request")]
    assert fold([*given, CANCELLED, turn(1), f.RunFinished(outcome="cancelled"), REQUESTED]) == fold(given)


STORY = [recorded.fact for recorded in story.recorded()]
ANY: History = [*STORY, *PROPOSED, CANCELLED, FAILED, lost(), verified("refused")]


@each(st.lists(st.sampled_from(ANY), max_size=40))
def test_no_history_breaks_the_list(given: History) -> None:
    row = fold(given)
    assert (row is None) == (REQUESTED not in given)
    if row is not None:
        assert msgspec.json.decode(msgspec.json.encode(row), type=Row) == row


@each(st.data())
def test_facts_said_twice_count_once(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(STORY)))
    row, twice = None, None
    for recorded in list(story.recorded())[:length]:
        time = recorded.envelope.time
        row = evolve(row, KEY, recorded.fact, time)
        for _ in range(data.draw(st.integers(1, 3))):
            twice = evolve(twice, KEY, recorded.fact, time)
    assert twice == row
