"""What the runner does about a fact, as histories: what was said, what is heard, then what is due."""

from functools import reduce
from typing import Any

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from contracts import facts as f
from contracts import story
from contracts.story import ANSWERED, REQUESTED
from services.sandbox_runner.decide import Drop, Plan, Prepare, Verify, decide, sandbox_id
from services.sandbox_runner.state import START, Over, Run, evolve
from tests.unit.agent_history import (
    BASE_TREE,
    CANCELLED,
    FINISHED,
    NEW_TREE,
    ask,
    asked,
    bash,
    checkpoint,
    lost,
    proposed,
    ran,
    ready,
    turn,
    verified,
)

History = list[f.AnyFact]

POSTED = story.POSTED
FAILED = f.RunFailed(stage="agent", kind="model_refused", why="No.")
BEGUN: History = [REQUESTED, ready()]
EDITED: History = [*BEGUN, turn(1, bash("u1")), ran(1, "u1")]
PARKED: History = [*BEGUN, turn(1, ask("u1")), ran(1, tree=BASE_TREE), asked(1, "u1")]
PROPOSED: History = [*EDITED, proposed(2)]
SECOND: History = [*PROPOSED, verified("failed"), turn(3), ran(3), proposed(3, 2)]


def fold(given: History) -> Run:
    return reduce(evolve, given, START)


def prepare(generation: int, base: f.SandboxReady | None = None, tree: str = "") -> Prepare:
    found = checkpoint(tree) if tree else None
    return Prepare(request=REQUESTED, generation=generation, base=base, checkpoint=found)


def verify(attempt: int) -> Verify:
    return Verify(request=REQUESTED, attempt=attempt, base=ready(), change=checkpoint(NEW_TREE))


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        # sandboxes
        pytest.param([REQUESTED], REQUESTED, [prepare(1)], id="prepares a sandbox for a run"),
        pytest.param(
            [REQUESTED, REQUESTED], REQUESTED, [prepare(1)], id="prepares the same when asked again"
        ),
        pytest.param(BEGUN, REQUESTED, [], id="prepares one sandbox, however often it is asked"),
        pytest.param([], REQUESTED, [], id="does nothing for a run that the log does not hold"),
        pytest.param(
            [*BEGUN, turn(1, bash("u1")), lost()],
            lost(),
            [prepare(2, ready())],
            id="prepares another at the same base after a loss",
        ),
        pytest.param(
            [*EDITED, lost()], lost(), [prepare(2, ready(), NEW_TREE)], id="puts the last checkpoint on top"
        ),
        pytest.param([*EDITED, lost(), ready(2)], lost(), [], id="replaces a lost sandbox once"),
        pytest.param(
            [*EDITED, lost(), ready(2), lost(1)], lost(1), [], id="passes over the loss of an earlier sandbox"
        ),
        pytest.param(
            [*EDITED, lost(), ready(2), lost(2)],
            lost(2),
            [prepare(3, ready(), NEW_TREE)],
            id="replaces the second sandbox too",
        ),
        pytest.param(
            [*EDITED, lost(), ready(1)],
            lost(),
            [prepare(2, ready(), NEW_TREE)],
            id="is not content with the lost sandbox, announced once more",
        ),
        # questions
        pytest.param(PARKED, PARKED[-1], [Drop(generations=(1,))], id="removes the sandbox of a parked run"),
        pytest.param(
            [*PARKED, ANSWERED],
            ANSWERED,
            [prepare(2, ready(), BASE_TREE)],
            id="prepares another when the question is answered",
        ),
        pytest.param(
            [*PARKED, ANSWERED], PARKED[-1], [], id="keeps what it prepares if the question comes late"
        ),
        pytest.param([*PARKED, ANSWERED, ready(2)], ANSWERED, [], id="prepares once for an answer"),
        pytest.param(
            [*PARKED, ANSWERED, ready(2), ANSWERED],
            ANSWERED,
            [],
            id="leaves the agent its sandbox when a second person answers",
        ),
        pytest.param([*BEGUN, ANSWERED], ANSWERED, [], id="passes over an answer to nothing"),
        pytest.param(
            [*PARKED, ANSWERED, ready(2), ANSWERED, lost(2)],
            lost(2),
            [prepare(3, ready(), BASE_TREE)],
            id="still replaces a lost sandbox after a second answer",
        ),
        # verification
        pytest.param(PROPOSED, PROPOSED[-1], [verify(1)], id="verifies what is proposed"),
        pytest.param([*PROPOSED, verified("passed")], PROPOSED[-1], [], id="verifies an attempt once"),
        pytest.param(SECOND, SECOND[-1], [verify(2)], id="verifies the second attempt"),
        pytest.param(SECOND, PROPOSED[-1], [], id="passes over the first attempt while the second is due"),
        pytest.param(
            [*SECOND, verified("passed", 2), verified("failed", 1)],
            SECOND[-1],
            [],
            id="remembers the second verdict when the first comes again",
        ),
        pytest.param(
            [REQUESTED, proposed(2)], proposed(2), [], id="verifies nothing before there was a sandbox"
        ),
        # the end
        pytest.param(
            [*EDITED, CANCELLED], CANCELLED, [Drop(generations=(1, 2))], id="removes all when cancelled"
        ),
        pytest.param(
            [*EDITED, FINISHED], FINISHED, [Drop(generations=(1, 2))], id="removes all when finished"
        ),
        pytest.param([*EDITED, FAILED], FAILED, [], id="waits for the last words after a failure"),
        pytest.param(
            [*EDITED, FAILED, FINISHED],
            FINISHED,
            [Drop(generations=(1, 2))],
            id="removes all after a failure",
        ),
        pytest.param([*PROPOSED, CANCELLED], PROPOSED[-1], [], id="verifies nothing for a cancelled run"),
        pytest.param([REQUESTED, CANCELLED], REQUESTED, [], id="prepares nothing for a cancelled run"),
        pytest.param(
            [*BEGUN, turn(1, bash("u1")), lost(), CANCELLED],
            lost(),
            [],
            id="replaces nothing for a cancelled run",
        ),
        pytest.param(
            [*PARKED, CANCELLED, ANSWERED], ANSWERED, [], id="an answer does not wake a cancelled run"
        ),
        # what others do
        pytest.param([*BEGUN, POSTED], POSTED, [], id="leaves comments to the publisher"),
        pytest.param([*EDITED], EDITED[-1], [], id="only remembers checkpoints"),
    ],
)
def test_runner(given: History, when: f.AnyFact, then: list[Plan]) -> None:
    assert decide(fold(given), when) == then


@pytest.mark.parametrize(
    ("given", "generations"),
    [
        pytest.param([REQUESTED], (1,), id="while the first sandbox is prepared"),
        pytest.param(BEGUN, (1, 2), id="while the agent works"),
        pytest.param([*BEGUN, turn(1, bash("u1")), lost()], (1, 2), id="while another is prepared"),
        pytest.param(PARKED, (1, 2), id="while a person was asked"),
        pytest.param([*PARKED, ANSWERED, ready(2)], (1, 2, 3), id="after the second sandbox"),
        pytest.param(PROPOSED, (1, 2), id="while a change is verified"),
    ],
)
def test_cancelling_removes_every_sandbox_that_there_may_be(
    given: History, generations: tuple[int, ...]
) -> None:
    """One more than was recorded: it may have been prepared meanwhile."""
    assert decide(fold([*given, CANCELLED]), CANCELLED) == [Drop(generations=generations)]
    assert decide(fold([*given, CANCELLED, FINISHED]), FINISHED) == [Drop(generations=generations)]


def test_a_sandbox_is_named_after_its_run_in_a_way_that_hosts_accept() -> None:
    assert sandbox_id(story.KEY.run, 2) == "01kjpx71rrdjnemt5m4xk4ytxj-2"


STORY = [recorded.fact for recorded in story.recorded()]
ANY: History = [*STORY, *PARKED, *SECOND, CANCELLED, FAILED, lost(2), verified("refused", 3)]


@each(st.lists(st.sampled_from(ANY), max_size=40), st.sampled_from(ANY))
def test_no_history_breaks_the_runner(given: History, when: f.AnyFact) -> None:
    run = fold(given)
    assert len(decide(run, when)) <= 1
    if isinstance(run, Over):
        assert all(isinstance(plan, Drop) for plan in decide(run, when))


@each(st.data())
def test_facts_said_twice_change_nothing(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(STORY)))
    twice = [fact for fact in STORY[:length] for _ in range(data.draw(st.integers(1, 3)))]
    assert fold(twice) == fold(STORY[:length])


@each(st.lists(st.sampled_from(ANY), max_size=40))
def test_generations_only_count_upwards(given: History) -> None:
    run: Any = START
    before = 0
    for fact in given:
        run = evolve(run, fact)
        now = getattr(run, "generation", 0)
        assert now >= before
        before = now
