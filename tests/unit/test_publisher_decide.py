"""What the publisher does about a fact, as histories: what was said, what is heard, then what is due."""

from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from contracts import facts as f
from contracts import story
from contracts.story import ANSWERED, POSTED, PUBLISHED, PULL_REQUEST, REQUESTED
from services.publisher import words
from services.publisher.decide import (
    EditProgress,
    Finish,
    OpenPullRequest,
    Plan,
    PostProgress,
    PublishCommit,
    decide,
)
from services.publisher.state import START, Active, Finished, Run, evolve
from tests.unit.agent_history import (
    BASE_TREE,
    CANCELLED,
    ask,
    asked,
    bash,
    check,
    lost,
    proposed,
    ran,
    ready,
    submit,
    turn,
    verified,
)

History = list[f.AnyFact]

TURN = turn(1, bash("u1"))
POSTED_RUN: History = [REQUESTED, POSTED]
BEGUN: History = [*POSTED_RUN, ready(), TURN]
PARKED: History = [*POSTED_RUN, ready(), turn(1, ask("u1")), ran(1, tree=BASE_TREE), asked(1, "u1")]
PROPOSED: History = [*BEGUN, ran(1, "u1"), turn(2, submit("u2")), ran(2), proposed(2)]
PASSED = verified("passed", checks=(check(0),))
FAILED = verified("failed", checks=(check(1),), base_checks=(check(0),))
REFUSED = verified("refused", reason="it touches protected files: ci.yml")
LAST = proposed(2, last=True)
AT_LAST: History = [*BEGUN, LAST]
ANSWER = f.AnswerGiven(turn=1, text="It is on line 7.")
FAILURE = f.RunFailed(stage="agent", kind="budget_cost", why="$0.02")
FINISHED = f.RunFinished(outcome="failed")


def fold(given: History) -> Run:
    return reduce(evolve, given, START)


def edit(text: str, *, needed: bool = False) -> EditProgress:
    return EditProgress(request=REQUESTED, comment_id=POSTED.comment_id, text=text, needed=needed)


def commit(proposal: f.SolutionProposed) -> PublishCommit:
    return PublishCommit(
        request=REQUESTED,
        base=ready().base,
        change=proposal.change,
        message=words.commit_message(REQUESTED, proposal),
    )


def pull_request(proposal: f.SolutionProposed, seen: f.VerificationFinished) -> OpenPullRequest:
    return OpenPullRequest(
        request=REQUESTED,
        commit=PUBLISHED,
        base_ref="main",
        title="Mend it",
        body=words.pull_request_body(REQUESTED, proposal, seen),
    )


def finish(outcome: f.Outcome, text: str, **other: Any) -> Finish:
    comment_id = other.pop("comment_id", POSTED.comment_id)
    return Finish(request=REQUESTED, comment_id=comment_id, outcome=outcome, text=text, **other)


OPENED = finish(
    "pull_request", words.pull_request_is_open(PULL_REQUEST, PASSED), pull_request_url=PULL_REQUEST.url
)


def stopped(left: f.CommitPublished | None = None, **other: Any) -> Finish:
    return finish("cancelled", words.cancelled(CANCELLED, left), why=CANCELLED.why, **other)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        # the comment
        pytest.param([REQUESTED], REQUESTED, [PostProgress(request=REQUESTED)], id="says that it begins"),
        pytest.param(POSTED_RUN, REQUESTED, [], id="says so once"),
        pytest.param([REQUESTED, ready(), TURN], TURN, [], id="has no news without a comment"),
        pytest.param(BEGUN, TURN, [edit(words.working(TURN, 1000))], id="tells what a turn does"),
        pytest.param(
            [*BEGUN, ran(1), turn(2, bash("u2"), cost=500)],
            turn(2, bash("u2"), cost=500),
            [edit(words.working(turn(2, bash("u2")), 1500))],
            id="adds the cost up",
        ),
        pytest.param(
            [*BEGUN, ran(1), turn(2, bash("u2"))], TURN, [], id="tells nothing about a turn that is past"
        ),
        pytest.param(
            PARKED, PARKED[-1], [edit(words.question(asked(1, "u1")), needed=True)], id="asks the question"
        ),
        pytest.param([*PARKED, ANSWERED], PARKED[-1], [], id="does not ask what was answered"),
        pytest.param(PROPOSED, PROPOSED[-1], [edit(words.verifying(proposed(2)))], id="tells of a change"),
        pytest.param([*PROPOSED, FAILED], PROPOSED[-1], [], id="tells nothing about a change that is past"),
        # verification
        pytest.param([*PROPOSED, PASSED], PASSED, [commit(proposed(2))], id="publishes what passed"),
        pytest.param(
            [*PROPOSED, verified("untested")],
            verified("untested"),
            [commit(proposed(2))],
            id="publishes what nothing could test",
        ),
        pytest.param([*PROPOSED, FAILED], FAILED, [], id="waits when attempts are left"),
        pytest.param([*PROPOSED, REFUSED], REFUSED, [], id="waits when the change can be mended"),
        pytest.param(
            [*PROPOSED, FAILED, turn(3, bash("u3"))],
            turn(3, bash("u3")),
            [edit(words.working(turn(3, bash("u3")), 3000))],
            id="tells how the work goes on after a failure",
        ),
        pytest.param(
            [*AT_LAST, FAILED], FAILED, [commit(LAST)], id="publishes the last attempt, failed as it is"
        ),
        pytest.param(
            [*AT_LAST, REFUSED],
            REFUSED,
            [finish("failed", words.refused(REFUSED, LAST), why=REFUSED.reason)],
            id="ends when the last attempt was refused",
        ),
        pytest.param(
            [*PROPOSED, verified("unchanged")],
            verified("unchanged"),
            [finish("unchanged", words.unchanged(proposed(2)))],
            id="ends when nothing differs",
        ),
        pytest.param(
            [*PROPOSED, FAILED, turn(3, submit("u3")), proposed(3, 2), PASSED],
            PASSED,
            [],
            id="does not take the verdict on an attempt for one on the next",
        ),
        pytest.param(
            [*PROPOSED, FAILED, turn(3, submit("u3")), proposed(3, 2), verified("passed", 2)],
            verified("passed", 2),
            [commit(proposed(3, 2))],
            id="publishes the second attempt",
        ),
        pytest.param(
            [*PROPOSED, verified("passed", 7)], verified("passed", 7), [], id="passes over a stray verdict"
        ),
        pytest.param([*BEGUN, PASSED], PASSED, [], id="publishes nothing that nobody proposed"),
        # publication
        pytest.param(
            [*PROPOSED, PASSED, PUBLISHED],
            PASSED,
            [pull_request(proposed(2), PASSED)],
            id="opens the pull request once the commit is there",
        ),
        pytest.param(
            [*AT_LAST, FAILED, PUBLISHED],
            FAILED,
            [pull_request(LAST, FAILED)],
            id="opens it with the failing evidence too",
        ),
        pytest.param(
            [*PROPOSED, PASSED, PUBLISHED, PULL_REQUEST], PASSED, [OPENED], id="ends with the pull request"
        ),
        pytest.param(
            [*PROPOSED, PASSED, PROPOSED[-1]],
            PASSED,
            [commit(proposed(2))],
            id="publishes a repeated proposal once",
        ),
        # other ends
        pytest.param(
            [*BEGUN, ANSWER], ANSWER, [finish("answer", words.answered(ANSWER))], id="gives the answer"
        ),
        pytest.param(
            [*BEGUN, FAILURE],
            FAILURE,
            [finish("failed", words.failed(FAILURE, TURN, 1000), why="$0.02")],
            id="tells of a failure",
        ),
        pytest.param(
            [REQUESTED, FAILURE],
            FAILURE,
            [finish("failed", words.failed(FAILURE, None, 0), why="$0.02", comment_id=None)],
            id="tells of a failure in a first comment",
        ),
        pytest.param(
            [*BEGUN, FAILURE, f.RunFailed(stage="sandbox", kind="x", why="later")],
            FAILURE,
            [finish("failed", words.failed(FAILURE, TURN, 1000), why="$0.02")],
            id="keeps to the first failure",
        ),
        pytest.param(
            [*PROPOSED, PASSED, PUBLISHED, FAILURE],
            FAILURE,
            [finish("failed", words.failed(FAILURE, turn(2), 2000, PUBLISHED), why="$0.02")],
            id="names the branch when it could not open the pull request",
        ),
        # after the end
        pytest.param([*BEGUN, ANSWER, FINISHED], ANSWER, [], id="says its last words once"),
        pytest.param(
            [*BEGUN, FINISHED, PULL_REQUEST], PULL_REQUEST, [], id="is finished when it is finished"
        ),
        pytest.param([*BEGUN, FINISHED, REQUESTED], REQUESTED, [], id="does not begin again"),
        pytest.param([], REQUESTED, [], id="does nothing for a run that the log does not hold"),
        # what others do
        pytest.param([*BEGUN, lost()], lost(), [], id="has no words for a lost sandbox"),
    ],
)
def test_publisher(given: History, when: f.AnyFact, then: list[Plan]) -> None:
    assert decide(fold(given), when) == then


@pytest.mark.parametrize(
    ("given", "then"),
    [
        pytest.param([REQUESTED], stopped(comment_id=None), id="before the first comment"),
        pytest.param(POSTED_RUN, stopped(), id="while a sandbox is prepared"),
        pytest.param(BEGUN, stopped(), id="while the agent works"),
        pytest.param(PARKED, stopped(), id="while a person was asked"),
        pytest.param(PROPOSED, stopped(), id="while a change is verified"),
        pytest.param([*PROPOSED, PASSED], stopped(), id="before the commit"),
        pytest.param(
            [*PROPOSED, PASSED, PUBLISHED], stopped(PUBLISHED), id="after the commit, which is named"
        ),
        pytest.param([*BEGUN, FAILURE], stopped(), id="after a failure that was not told yet"),
        pytest.param(
            [*PROPOSED, PASSED, PUBLISHED, PULL_REQUEST], OPENED, id="too late: the pull request is there"
        ),
    ],
)
def test_a_cancelled_run_ends_with_what_is_true(given: History, then: Finish) -> None:
    assert decide(fold([*given, CANCELLED]), CANCELLED) == [then]
    assert decide(fold([*given, CANCELLED, PASSED]), PASSED) == [then]
    finished = f.RunFinished(outcome=then.outcome)
    assert decide(fold([*given, CANCELLED, finished]), CANCELLED) == []


def test_only_a_question_must_reach_people_before_the_end() -> None:
    plans = [
        plan
        for length in range(1, len(STORY) + 1)
        for plan in decide(fold(STORY[:length]), STORY[length - 1])
        if isinstance(plan, EditProgress)
    ]
    assert [plan.text.startswith("**Millrace has a question") for plan in plans if plan.needed] == [True]
    assert len(plans) == 9  # six turns, two proposals, one question


def test_the_story_is_published_step_by_step() -> None:
    done = [
        type(plan).__name__
        for length in range(1, len(STORY) + 1)
        for plan in decide(fold(STORY[:length]), STORY[length - 1])
        if not isinstance(plan, EditProgress)
    ]
    assert done == ["PostProgress", "PublishCommit", "OpenPullRequest", "Finish"]


def test_a_repeated_turn_costs_nothing_more() -> None:
    run = fold([*BEGUN, TURN, msgspec.structs.replace(TURN, cost=9)])
    assert isinstance(run, Active)
    assert run.cost == 1000


STORY = [recorded.fact for recorded in story.recorded()]
ANY: History = [
    *STORY,
    *PARKED,
    *PROPOSED,
    CANCELLED,
    FAILURE,
    ANSWER,
    FAILED,
    REFUSED,
    LAST,
    lost(),
]


@each(st.lists(st.sampled_from(ANY), max_size=40), st.sampled_from(ANY))
def test_no_history_breaks_the_publisher_and_a_finished_run_wants_nothing(
    given: History, when: f.AnyFact
) -> None:
    run = fold(given)
    plans = decide(run, when)
    assert len(plans) <= 1
    if isinstance(run, Finished):
        assert plans == []


@each(st.data())
def test_facts_said_twice_change_nothing(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(STORY)))
    twice = [fact for fact in STORY[:length] for _ in range(data.draw(st.integers(1, 3)))]
    assert fold(twice) == fold(STORY[:length])


@each(st.lists(st.sampled_from(ANY), max_size=30))
def test_at_most_one_commit_and_one_pull_request_are_wanted(given: History) -> None:
    """Carrying each plan out at once, as the driver does, nothing is made twice."""
    run: Run = START
    made: list[str] = []
    for fact in given:
        run = evolve(run, fact)
        while plans := decide(run, fact):
            made.append(type(plans[0]).__name__)
            done = carried_out(plans[0])
            if done is None:
                break
            run = evolve(run, done)
    for kind in ("PostProgress", "PublishCommit", "OpenPullRequest", "Finish"):
        assert made.count(kind) <= 1


def carried_out(plan: Plan) -> f.AnyFact | None:
    match plan:
        case PostProgress():
            return POSTED
        case PublishCommit():
            return PUBLISHED
        case OpenPullRequest():
            return PULL_REQUEST
        case Finish(outcome=outcome):
            return f.RunFinished(outcome=outcome)
        case _:
            return None
