"""What the agent does next, as histories: what was said, then what is due."""

from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from contracts import facts as f
from contracts import story
from contracts.story import ANSWERED, REQUESTED
from services.agent.decide import (
    AskPerson,
    Budget,
    GiveAnswer,
    GiveUp,
    Plan,
    Propose,
    RunTools,
    TakeTurn,
    decide,
)
from services.agent.prompt import MAX_OUTPUT
from services.agent.state import START, Ended, Parked, Proposed, Run, Waiting, Working, evolve
from tests.unit.agent_history import (
    BASE_TREE,
    CANCELLED,
    FINISHED,
    MODEL,
    NEW_TREE,
    ask,
    asked,
    bash,
    checkpoint,
    lost,
    proposed,
    ran,
    ready,
    says,
    submit,
    turn,
    use,
    verified,
)

History = list[f.AnyFact]

PLENTY = Budget(turns=60, tokens=2_000_000, cost=5_000_000, seconds=2700, dearest_turn=160_000)
BEGUN: History = [REQUESTED, ready()]
EDITED: History = [*BEGUN, turn(1, bash("u1")), ran(1, "u1")]
HANDED_IN: History = [*EDITED, turn(2, submit("u2")), ran(2)]
PROPOSED: History = [*HANDED_IN, proposed(2)]
PARKED: History = [*BEGUN, turn(1, ask("u1")), ran(1, tree=BASE_TREE), asked(1, "u1")]


def fold(given: History) -> Run:
    return reduce(evolve, given, START)


def due(given: History, budget: Budget = PLENTY) -> list[Plan]:
    """What is due; a turn without its request, which ``test_agent_prompt`` reads."""
    wanted = decide(fold(given), given[-1], budget=budget, model=MODEL)
    return [TakeTurn(turn=p.turn, request=NO_REQUEST) if isinstance(p, TakeTurn) else p for p in wanted]


NO_REQUEST: Any = None


def take(number: int) -> TakeTurn:
    return TakeTurn(turn=number, request=NO_REQUEST)


def run_tools(number: int, *uses: dict[str, Any], generation: int = 1) -> RunTools:
    return RunTools(turn=number, sandbox_id=f"box-{generation}", generation=generation, uses=uses)


def propose(number: int, attempt: int = 1, **other: Any) -> Propose:
    given: dict[str, Any] = {
        "title": "Mend it",
        "summary": "It was broken.",
        "claims": (),
        "last": False,
        "change": checkpoint(NEW_TREE),
    }
    return Propose(turn=number, attempt=attempt, **(given | other))


@pytest.mark.parametrize(
    ("given", "then"),
    [
        # the way of a run
        pytest.param([REQUESTED], [], id="waits for a sandbox"),
        pytest.param(BEGUN, [take(1)], id="asks the model once there is a sandbox"),
        pytest.param(
            [*BEGUN, turn(1, bash("u1"))], [run_tools(1, bash("u1"))], id="runs the tools of a turn"
        ),
        pytest.param(EDITED, [take(2)], id="asks the model again after its tools"),
        pytest.param(HANDED_IN, [propose(2)], id="proposes what was submitted, as the checkpoint holds it"),
        pytest.param(PROPOSED, [], id="waits while a proposal is verified"),
        pytest.param(
            [*BEGUN, turn(1, says("It is on line 7."))],
            [GiveAnswer(turn=1, text="It is on line 7.")],
            id="ends with an answer when nothing was changed",
        ),
        pytest.param(
            [*BEGUN, turn(1, bash("u1")), ran(1, "u1", tree=BASE_TREE), turn(2, says("All is well."))],
            [GiveAnswer(turn=2, text="All is well.")],
            id="ends with an answer after looking around",
        ),
        pytest.param(
            [*BEGUN, turn(1, says("  "))],
            [GiveAnswer(turn=1, text="(The agent ended without a word.)")],
            id="says so when the model ended without a word",
        ),
        # tools, several at once
        pytest.param(
            [*BEGUN, turn(1, bash("u1"), use("u2", "rm_rf", path="/"), ask("u3"))],
            [run_tools(1, bash("u1"), use("u2", "rm_rf", path="/"), ask("u3"))],
            id="hands all calls of a turn over, known or not, before it looks at them",
        ),
        pytest.param(
            [*BEGUN, turn(1, use("u1", "rm_rf")), ran(1, "u1", tree=BASE_TREE)],
            [take(2)],
            id="goes on after a tool that does not exist: its result says so",
        ),
        pytest.param(
            [*BEGUN, turn(1, bash("u1"), ask("u2"), submit("u3")), ran(1, "u1")],
            [AskPerson(turn=1, tool_use_id="u2", question="Which one?")],
            id="asks before it hands in, in the order of the calls",
        ),
        pytest.param(
            [
                *BEGUN,
                turn(1, bash("u1"), ask("u2"), submit("u3")),
                ran(1, "u1"),
                asked(1, "u2"),
                ANSWERED,
                ready(2),
            ],
            [propose(1)],
            id="hands in after the answer, if both were called at once",
        ),
        pytest.param(
            [*BEGUN, turn(1, submit("u1"), ask("u2")), ran(1), proposed(1), verified("failed")],
            [AskPerson(turn=1, tool_use_id="u2", question="Which one?")],
            id="asks after a proposal that failed, if both were called at once",
        ),
        pytest.param(
            [*BEGUN, turn(1, ask("u1"), ask("u2", "And then?")), ran(1), asked(1, "u1"), ANSWERED, ready(2)],
            [AskPerson(turn=1, tool_use_id="u2", question="And then?")],
            id="asks the second question after the first was answered",
        ),
        pytest.param(
            [*BEGUN, turn(1, submit("u1"), submit("u2")), ran(1), proposed(1), verified("failed")],
            [take(2)],
            id="proposes once when it was handed in twice in a turn",
        ),
        # questions
        pytest.param(
            PARKED[:-1], [AskPerson(turn=1, tool_use_id="u1", question="Which one?")], id="asks a person"
        ),
        pytest.param(
            [*BEGUN, turn(1, use("u1", "ask")), ran(1)],
            [AskPerson(turn=1, tool_use_id="u1", question="(no question)")],
            id="asks even without words",
        ),
        pytest.param(PARKED, [], id="is parked while nobody answers"),
        pytest.param([*PARKED, ready(2)], [], id="is parked even if a sandbox comes"),
        pytest.param([*PARKED, ANSWERED], [], id="waits for a sandbox after the answer"),
        pytest.param([*PARKED, ANSWERED, ready(2)], [take(2)], id="goes on with the answer"),
        pytest.param([*EDITED, ANSWERED], [take(2)], id="passes over an answer to nothing"),
        # lost sandboxes
        pytest.param([*BEGUN, turn(1, bash("u1")), lost()], [], id="waits for another sandbox after a loss"),
        pytest.param(
            [*BEGUN, turn(1, bash("u1")), lost(), ready(2)],
            [run_tools(1, bash("u1"), generation=2)],
            id="runs the tools again in the next sandbox, without another turn",
        ),
        pytest.param([*EDITED, lost(), ready(2)], [take(2)], id="does not run again what is recorded"),
        pytest.param(
            [*EDITED, lost(), ready(2), lost(1)], [take(2)], id="passes over the loss of an earlier sandbox"
        ),
        pytest.param([*EDITED, lost(), ready(1)], [], id="passes over the lost sandbox, announced once more"),
        pytest.param([*PROPOSED, lost()], [], id="waits for another sandbox if it is lost meanwhile"),
        # verification
        pytest.param([*PROPOSED, verified("passed")], [], id="is done when the change passed"),
        pytest.param([*PROPOSED, verified("untested")], [], id="is done when nothing could be tested"),
        pytest.param([*PROPOSED, verified("unchanged")], [], id="is done when nothing differs"),
        pytest.param([*PROPOSED, verified("failed")], [take(3)], id="goes on when attempts are left"),
        pytest.param([*PROPOSED, verified("refused")], [take(3)], id="goes on when the change was refused"),
        pytest.param(
            [*HANDED_IN, proposed(2, last=True), verified("failed")],
            [],
            id="is done when the last attempt failed",
        ),
        pytest.param(
            [*HANDED_IN, proposed(2, last=True), verified("refused")],
            [],
            id="is done when the last attempt was refused",
        ),
        pytest.param(
            [*PROPOSED, verified("failed", attempt=7)],
            [],
            id="passes over the verification of another attempt",
        ),
        pytest.param(
            [*PROPOSED, verified("failed"), turn(3, submit("u3")), ran(3)],
            [propose(3, attempt=2)],
            id="counts its attempts",
        ),
        pytest.param(
            [
                *PROPOSED,
                verified("failed"),
                turn(3, submit("u3")),
                ran(3),
                proposed(3, 2),
                verified("failed", 2),
                turn(4, submit("u4")),
                ran(4),
            ],
            [propose(4, attempt=3, last=True)],
            id="knows its third attempt as the last",
        ),
        # what was submitted
        pytest.param(
            [*EDITED, turn(2, says("Done."), use("u2", "submit", verified="all")), ran(2)],
            [propose(2, title="Work on #42", summary="Done.")],
            id="makes a title and a summary where the model gave none",
        ),
        pytest.param(
            [*EDITED, turn(2, submit("u2", verified=["ran pytest", 7], title=" Mend it\n")), ran(2)],
            [propose(2, claims=("ran pytest", "7"))],
            id="takes claims as words",
        ),
        # the model stopped without a tool
        pytest.param(
            [*EDITED, turn(2, says("Done."))], [take(3)], id="nudges once when the change is not handed in"
        ),
        pytest.param(
            [*EDITED, turn(2, says("Done.")), turn(3, says("Really."))],
            [
                propose(
                    3,
                    title="Work on #42",
                    summary="Really.",
                    last=True,
                    note="The agent stopped without submitting its work.",
                )
            ],
            id="hands the change in itself when nudging did not help",
        ),
        pytest.param(
            [*BEGUN, turn(1, says("First I"), stop="max_tokens")],
            [take(2)],
            id="lets an answer that was cut go on",
        ),
        pytest.param(
            [*BEGUN, turn(1, says("First I"), stop="pause_turn")], [take(2)], id="lets a paused answer go on"
        ),
        pytest.param(
            [*EDITED, turn(2, says("So"), stop="max_tokens"), turn(3, says("Done."))],
            [take(4)],
            id="still nudges after an answer that was cut",
        ),
        pytest.param(
            [*BEGUN, turn(1, bash("u1"), stop="max_tokens")],
            [take(2)],
            id="runs no tools of an answer that was cut",
        ),
        pytest.param(
            [*BEGUN, turn(1, says("Stop."), stop="stop_sequence")],
            [GiveAnswer(turn=1, text="Stop.")],
            id="takes a stop sequence as an end",
        ),
        # the same fact twice, and facts out of place
        pytest.param([REQUESTED, REQUESTED, ready(), ready()], [take(1)], id="begins once"),
        pytest.param([*EDITED, turn(1, bash("u1"))], [take(2)], id="passes over a repeated turn"),
        pytest.param([*EDITED, ran(1, "u1", tree=BASE_TREE)], [take(2)], id="passes over repeated results"),
        pytest.param([*BEGUN, ran(1, "u1")], [take(1)], id="passes over results of no turn"),
        pytest.param([*PARKED, ANSWERED, ready(2), asked(1, "u1")], [take(2)], id="is not parked twice"),
        pytest.param([*PROPOSED, verified("failed"), proposed(2)], [take(3)], id="proposes an attempt once"),
        pytest.param(
            [*PROPOSED, proposed(2), verified("failed"), verified("failed")],
            [take(3)],
            id="hears a verdict once",
        ),
        pytest.param([ready(), turn(1, bash("u1"))], [], id="does nothing that nobody asked for"),
    ],
)
def test_agent(given: History, then: list[Plan]) -> None:
    assert due(given) == then


PHASES = [
    pytest.param([], id="nothing was asked"),
    pytest.param([REQUESTED], id="a sandbox is being prepared"),
    pytest.param(BEGUN, id="the model is being asked"),
    pytest.param([*BEGUN, turn(1, bash("u1"))], id="tools are running"),
    pytest.param(PARKED, id="a person was asked"),
    pytest.param(PROPOSED, id="a change is being verified"),
]
ENDS = [
    pytest.param(CANCELLED, id="cancelled"),
    pytest.param(FINISHED, id="finished"),
    pytest.param(f.AnswerGiven(turn=1, text="So it is."), id="answered"),
    pytest.param(f.RunFailed(stage="sandbox", kind="clone_forbidden", why="No."), id="failed"),
]


@pytest.mark.parametrize("given", PHASES)
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_ended_stays_ended_whatever_comes(given: History, end: f.AnyFact) -> None:
    after: History = [ready(9), ANSWERED, verified("failed"), turn(2, bash("u9")), REQUESTED]
    for late in (end, *after):
        given = [*given, late]
        assert fold(given) == Ended()
        assert due(given) == []


@pytest.mark.parametrize(
    ("given", "phase"),
    [([REQUESTED], Waiting), (BEGUN, Working), (PARKED, Parked), (PROPOSED, Proposed), ([CANCELLED], Ended)],
)
def test_each_phase_is_a_type(given: History, phase: type[Run]) -> None:
    assert type(fold(given)) is phase


def test_a_run_keeps_the_base_and_instructions_it_began_with() -> None:
    moved = ready(2, base_ref="other", about="Something else.", test_command=None, tree=NEW_TREE)
    run = fold([*EDITED, lost(), moved])
    assert isinstance(run, Working)
    assert (run.work.base_tree, run.work.about, run.work.test_command) == (
        BASE_TREE,
        "A Python project.",
        "pytest",
    )
    assert run.sandbox == moved


# --- budgets --------------------------------------------------------------------------------------------

TWO_TURNS = msgspec.structs.replace(PLENTY, turns=2)
LIMITS = [
    pytest.param({"turns": 1}, "budget_turns", "1 turn", id="turns"),
    pytest.param({"tokens": MAX_OUTPUT + 99}, "budget_tokens", "16,099 tokens", id="tokens"),
    pytest.param({"cost": 160_999}, "budget_cost", "$0.16", id="money"),
    pytest.param({"seconds": 1.5}, "budget_time", "0 minutes of work", id="time"),
]


@pytest.mark.parametrize(("limit", "kind", "words"), LIMITS)
def test_a_limit_without_a_change_is_a_truthful_end(limit: dict[str, Any], kind: str, words: str) -> None:
    given = [*BEGUN, turn(1, bash("u1")), ran(1, "u1", tree=BASE_TREE)]
    budget = msgspec.structs.replace(PLENTY, **limit)
    why = f"The work ended at a limit without a change: {words}."
    assert due(given, budget) == [GiveUp(kind=kind, why=why)]


@pytest.mark.parametrize(("limit", "kind", "words"), LIMITS)
def test_a_limit_with_a_change_hands_the_change_in(limit: dict[str, Any], kind: str, words: str) -> None:
    given = [*BEGUN, turn(1, says("I mended it."), bash("u1")), ran(1, "u1")]
    budget = msgspec.structs.replace(PLENTY, **limit)
    assert due(given, budget) == [
        propose(
            1,
            title="Work on #42",
            summary="I mended it.",
            last=True,
            note=f"The work ended at a limit: {words}.",
        )
    ]


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param({"turns": 2}, id="turns"),
        pytest.param({"tokens": MAX_OUTPUT + 100}, id="tokens"),
        pytest.param({"cost": 161_000}, id="money"),
        pytest.param({"seconds": 1.6}, id="time"),
    ],
)
def test_what_fits_exactly_is_still_done(limit: dict[str, Any]) -> None:
    assert due(EDITED, msgspec.structs.replace(PLENTY, **limit)) == [take(2)]


def test_nothing_is_begun_without_a_budget() -> None:
    budget = msgspec.structs.replace(PLENTY, cost=100)
    why = "The work ended at a limit without a change: $0.00."
    assert due(BEGUN, budget) == [GiveUp(kind="budget_cost", why=why)]


def test_tools_that_were_asked_for_still_run_at_the_limit() -> None:
    given = [*EDITED, turn(2, bash("u2"))]
    assert due(given, TWO_TURNS) == [run_tools(2, bash("u2"))]


def test_a_proposal_at_the_limit_is_the_last_so_that_a_failure_is_published_truthfully() -> None:
    assert due(HANDED_IN, TWO_TURNS) == [propose(2, last=True)]


def test_an_answer_at_the_limit_is_still_an_answer() -> None:
    given = [*BEGUN, turn(1, says("It is on line 7."))]
    assert due(given, msgspec.structs.replace(PLENTY, turns=1)) == [
        GiveAnswer(turn=1, text="It is on line 7.")
    ]


def test_waiting_for_a_person_costs_no_time() -> None:
    run = fold([*PARKED, ANSWERED, ready(2)])
    assert isinstance(run, Working)
    assert run.work.seconds == 1


def test_cached_tokens_count_as_tokens() -> None:
    usage = f.Usage(input_tokens=1, output_tokens=2, cache_creation_input_tokens=4, cache_read_input_tokens=8)
    run = fold([*BEGUN, msgspec.structs.replace(turn(1, bash("u1")), usage=usage)])
    assert isinstance(run, Working)
    assert run.work.tokens == 15


# --- any history ----------------------------------------------------------------------------------------

STORY: History = [recorded.fact for recorded in story.recorded()]
ANY: History = [
    *STORY,
    *PARKED,
    *PROPOSED,
    CANCELLED,
    lost(2),
    verified("refused"),
    f.AnswerGiven(turn=1, text="x"),
]


@each(st.lists(st.sampled_from(ANY), max_size=40))
def test_no_history_breaks_the_agent_and_an_ended_run_wants_nothing(given: History) -> None:
    run = fold(given)
    wanted = decide(run, given[-1] if given else REQUESTED, budget=PLENTY, model=MODEL)
    assert len(wanted) == (1 if isinstance(run, Working) else 0)


@each(st.data())
def test_facts_said_twice_change_nothing(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(STORY)))
    twice = [fact for fact in STORY[:length] for _ in range(data.draw(st.integers(1, 3)))]
    assert fold(twice) == fold(STORY[:length])


@each(st.integers(0, len(STORY)))
def test_a_replayed_prefix_wants_the_same_again(length: int) -> None:
    given = STORY[:length] or [REQUESTED]
    assert decide(fold(given), given[-1], budget=PLENTY, model=MODEL) == decide(
        fold(list(given)), given[0], budget=PLENTY, model=MODEL
    )
