"""What follows from what people do: given an issue's facts, when something is heard, then one plan."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from contracts import facts as f
from services.gateway.decide import (
    AskGitHub,
    Plan,
    Request,
    Rules,
    Standing,
    Tell,
    at_once,
    command_of,
    decide,
    only_an_answer,
    run_id,
)
from services.gateway.heard import (
    AnyHeard,
    Commented,
    Ended,
    Heard,
    Ignored,
    Labelled,
    Opened,
    decode_heard,
    encode_heard,
)
from services.gateway.state import START, Busy, Issue, Parked, Quiet, evolve

RULES = Rules(mention="@millrace", label="millrace")
AT = datetime(2026, 11, 1, 10, tzinfo=UTC)
REPOSITORY = f.Repository(id=7, full_name="acme/calc")
WREN, OTHER = f.Person(id=1, login="wren"), f.Person(id=2, login="otto")
ISSUE = f.Issue(number=42, title="It adds wrongly", author=WREN)
COMMON: dict[str, Any] = {
    "delivery": "d1",
    "app_id": 9,
    "installation_id": 90,
    "repository": REPOSITORY,
    "issue": ISSUE,
    "actor": WREN,
    "at": AT,
}
OPENED = Opened(**COMMON)
LABELLED = Labelled(**COMMON, label="millrace")
COMMAND = Commented(**COMMON, comment_id=5, text="/millrace")
TALK = Commented(**COMMON, comment_id=6, text="It also happens on Tuesdays.")
STOP = Commented(**COMMON, comment_id=8, text="/millrace stop")
CLOSED = Ended(**COMMON, how="closed")

WRITER = Standing(permission="write", state="open")
READER = Standing(permission="read", state="open")

R1, R2 = run_id(OPENED), run_id(COMMAND)
Facts = list[tuple[str, f.AnyFact]]
TRIGGER = f.Trigger(kind="opened", actor=WREN, permission="write")
REQUESTED = f.RunRequested(app_id=9, installation_id=90, repository=REPOSITORY, issue=ISSUE, trigger=TRIGGER)
ASKED = f.QuestionAsked(turn=1, tool_use_id="t", question="Which one?")
ANSWERED = f.QuestionAnswered(answer="The first.", by=WREN)
FINISHED = f.RunFinished(outcome="answer")
FAILED = f.RunFailed(stage="agent", kind="budget", why="used up")
CANCELLED = f.RunCancelled(by=WREN, why="enough")

NOTHING: Facts = []
RUNNING: Facts = [(R1, REQUESTED)]
PARKED: Facts = [*RUNNING, (R1, ASKED)]
ENDING: Facts = [*RUNNING, (R1, CANCELLED)]
OVER: Facts = [*RUNNING, (R1, FINISHED)]


def fold(facts: Facts) -> Issue:
    return reduce(lambda issue, each: evolve(issue, *each), facts, START)


def request(heard: Heard, kind: Any, *, text: str = "", comment_id: int | None = None) -> Request:
    trigger = f.Trigger(
        kind=kind, actor=heard.actor, permission="write", text=text, comment_id=comment_id,
        delivery=heard.delivery,
    )  # fmt: skip
    return Request(run=run_id(heard), trigger=trigger)  # type: ignore[arg-type]


def cancel(why: str, run: str = R1) -> Tell:
    return Tell(run=run, fact=f.RunCancelled(by=WREN, why=why))


def answer(heard: Commented) -> Tell:
    return Tell(
        run=R1, fact=f.QuestionAnswered(answer=heard.text, by=heard.actor, comment_id=heard.comment_id)
    )


def ignored(reason: str) -> Ignored:
    return Ignored(reason=reason)


@pytest.mark.parametrize(
    ("given", "when", "standing", "then"),
    [
        # somebody opens an issue
        pytest.param(NOTHING, OPENED, None, AskGitHub(), id="asks GitHub before it starts"),
        pytest.param(NOTHING, OPENED, WRITER, request(OPENED, "opened"), id="starts for a writer"),
        pytest.param(NOTHING, OPENED, READER, ignored("not_authorised"), id="does nothing for a reader"),
        pytest.param(
            NOTHING,
            OPENED,
            Standing(permission="write", state="closed"),
            ignored("issue_closed"),
            id="does nothing for an issue that was closed meanwhile",
        ),
        pytest.param(
            NOTHING,
            OPENED,
            Standing(permission="admin", state="gone"),
            ignored("issue_gone"),
            id="does nothing for an issue that is gone",
        ),
        pytest.param(
            RUNNING, OPENED, None, ignored("already_requested"), id="starts once however often it is told"
        ),
        pytest.param(
            OVER, OPENED, None, ignored("already_requested"), id="does not start again what has ended"
        ),
        # somebody labels one
        pytest.param(NOTHING, LABELLED, None, AskGitHub(), id="asks GitHub before the label starts it"),
        pytest.param(NOTHING, LABELLED, WRITER, request(LABELLED, "label"), id="starts for the label"),
        pytest.param(
            NOTHING,
            msgspec.structs.replace(LABELLED, label="Millrace"),
            WRITER,
            request(LABELLED, "label"),
            id="reads the label in any case",
        ),
        pytest.param(
            NOTHING,
            msgspec.structs.replace(LABELLED, label="bug"),
            None,
            ignored("other_label"),
            id="asks nobody about another label",
        ),
        pytest.param(
            RUNNING, LABELLED, None, ignored("run_active"), id="starts no second run beside the first"
        ),
        pytest.param(
            RUNNING,
            msgspec.structs.replace(LABELLED, while_opening=True),
            None,
            ignored("already_requested"),
            id="takes a label that was set while opening for the opening",
        ),
        pytest.param(
            OVER, LABELLED, WRITER, request(LABELLED, "label"), id="starts again for a label after the end"
        ),
        # somebody comments
        pytest.param(NOTHING, TALK, None, ignored("no_command"), id="leaves talk alone"),
        pytest.param(RUNNING, TALK, None, ignored("no_command"), id="leaves talk alone during a run"),
        pytest.param(OVER, TALK, None, ignored("no_command"), id="leaves talk alone after a run"),
        pytest.param(NOTHING, COMMAND, None, AskGitHub(), id="asks GitHub before a command starts it"),
        pytest.param(
            NOTHING,
            COMMAND,
            WRITER,
            request(COMMAND, "comment", text="/millrace", comment_id=5),
            id="starts for a command and keeps its words",
        ),
        pytest.param(NOTHING, COMMAND, READER, ignored("not_authorised"), id="obeys no command of a reader"),
        pytest.param(RUNNING, COMMAND, None, ignored("run_active"), id="starts nothing during a run"),
        pytest.param(
            ENDING, COMMAND, None, ignored("run_active"), id="waits until a cancelled run has ended"
        ),
        pytest.param(
            [*OVER, (R2, REQUESTED)],
            COMMAND,
            None,
            ignored("already_requested"),
            id="starts once for a comment however often it is told",
        ),
        # a parked run
        pytest.param(PARKED, TALK, None, AskGitHub(), id="asks GitHub who answers"),
        pytest.param(PARKED, TALK, WRITER, answer(TALK), id="hands a writer's answer on"),
        pytest.param(PARKED, TALK, READER, ignored("not_authorised"), id="takes no answer from a reader"),
        pytest.param(PARKED, COMMAND, WRITER, answer(COMMAND), id="takes a command for an answer"),
        pytest.param([*PARKED, (R1, ANSWERED)], TALK, WRITER, ignored("no_command"), id="takes one answer"),
        pytest.param(PARKED, LABELLED, None, ignored("run_active"), id="starts nothing beside a parked run"),
        # the end
        pytest.param(NOTHING, STOP, None, ignored("no_run_active"), id="has nothing to stop"),
        pytest.param(OVER, STOP, None, ignored("no_run_active"), id="stops nothing that has ended"),
        pytest.param(RUNNING, STOP, None, AskGitHub(), id="asks GitHub who stops it"),
        pytest.param(RUNNING, STOP, READER, ignored("not_authorised"), id="lets no reader stop it"),
        pytest.param(RUNNING, STOP, WRITER, cancel("asked to stop"), id="stops"),
        pytest.param(PARKED, STOP, WRITER, cancel("asked to stop"), id="stops a parked run"),
        pytest.param(ENDING, STOP, WRITER, ignored("no_run_active"), id="stops once"),
        pytest.param(NOTHING, CLOSED, None, ignored("no_run_active"), id="ends nothing where nothing runs"),
        pytest.param(RUNNING, CLOSED, None, cancel("the issue was closed"), id="ends with the issue"),
        pytest.param(PARKED, CLOSED, None, cancel("the issue was closed"), id="ends parked with the issue"),
        pytest.param(ENDING, CLOSED, None, ignored("no_run_active"), id="ends once"),
        pytest.param(
            [*RUNNING, (R1, FAILED)],
            Ended(**COMMON, how="deleted"),
            None,
            cancel("the issue was deleted"),
            id="ends while its failure is being told",
        ),
        pytest.param(
            RUNNING,
            Ended(**COMMON, how="transferred"),
            None,
            cancel("the issue was transferred"),
            id="ends when the issue moves away",
        ),
    ],
)
def test_one_thing_follows(given: Facts, when: AnyHeard, standing: Standing | None, then: Plan) -> None:
    assert decide(fold(given), when, standing, RULES) == then


@pytest.mark.parametrize("permission", ["write", "maintain", "admin"])
def test_whoever_may_write_may_start(permission: str) -> None:
    plan = decide(START, OPENED, Standing(permission=permission, state="open"), RULES)
    assert isinstance(plan, Request)
    assert plan.trigger.permission == permission


@pytest.mark.parametrize("permission", ["triage", "read", "none", "", "WRITE", "owner"])
def test_nobody_else_may(permission: str) -> None:
    assert decide(START, OPENED, Standing(permission=permission, state="open"), RULES) == ignored(
        "not_authorised"
    )


@pytest.mark.parametrize("state", ["open", "unknown"])
def test_an_issue_whose_state_github_does_not_tell_is_worked_on(state: Any) -> None:
    assert isinstance(decide(START, OPENED, Standing(permission="write", state=state), RULES), Request)


def test_what_needs_no_history_is_known_at_once() -> None:
    assert at_once(msgspec.structs.replace(LABELLED, label="bug"), RULES) == ignored("other_label")
    assert at_once(LABELLED, RULES) is None
    assert at_once(OPENED, RULES) is None
    assert only_an_answer(TALK, RULES)
    assert not only_an_answer(COMMAND, RULES)
    assert not only_an_answer(STOP, RULES)
    assert not only_an_answer(CLOSED, RULES)


# --- the same trigger, however it is delivered --------------------------------------------------------


@pytest.mark.parametrize("heard", [OPENED, LABELLED, COMMAND])
def test_the_same_trigger_names_the_same_run(heard: AnyHeard) -> None:
    again = msgspec.structs.replace(
        heard,
        delivery="d2",  # delivered again, and by the repository's own hook
        app_id=None,
        installation_id=None,
        actor=OTHER,
        repository=f.Repository(id=7, full_name="acme/renamed"),
        issue=f.Issue(number=42, title="Another title", author=OTHER),
    )
    assert run_id(again) == run_id(heard)


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(OPENED, repository=f.Repository(id=8, full_name="acme/calc")),
        msgspec.structs.replace(OPENED, issue=f.Issue(number=43, title="It adds wrongly", author=WREN)),
        LABELLED,
        COMMAND,
    ],
)
def test_another_trigger_names_another_run(other: AnyHeard) -> None:
    assert run_id(other) != run_id(OPENED)


def test_two_comments_ask_for_two_runs() -> None:
    assert run_id(COMMAND) != run_id(msgspec.structs.replace(COMMAND, comment_id=7))


def test_a_label_taken_off_and_put_on_within_a_second_asks_once_and_later_asks_again() -> None:
    assert run_id(msgspec.structs.replace(LABELLED, delivery="d9")) == run_id(LABELLED)
    later = msgspec.structs.replace(LABELLED, at=AT + timedelta(seconds=1))
    assert run_id(later) != run_id(LABELLED)


def test_a_label_set_while_opening_asks_for_the_same_run_as_the_opening_whichever_comes_first() -> None:
    assert run_id(msgspec.structs.replace(LABELLED, while_opening=True)) == run_id(OPENED)


@pytest.mark.parametrize("heard", [OPENED, LABELLED, COMMAND, CLOSED])
def test_what_was_heard_is_read_back_as_it_was_written(heard: AnyHeard) -> None:
    assert decode_heard(encode_heard(heard)) == heard


# --- the words of a comment ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "/millrace",
        "/MillRace",
        "   /millrace",
        "/millrace please",
        "/millrace.",
        "/millrace stopwatch",
        "Hello\n/millrace",
        "Hello\r\n/millrace\r\nbye",
        "```\ncode\n```\n/millrace",
        "```x``` and\n/millrace",
        "~~~\n```\n~~~\n/millrace",
        "> quoted\n\n/millrace",
        "@millrace",
        "@Millrace",
        "please, @millrace, look",
        "(@millrace)",
        "@millrace.",
        "Could @millrace do it?",
        "`x` @millrace `y`",
        "<!-- a note --> @millrace",
        "nobody@example.org and @millrace",
    ],
)
def test_this_asks_for_work(text: str) -> None:
    assert command_of(text, "@millrace") == "work"


@pytest.mark.parametrize(
    "text",
    [
        "/millrace stop", "/millrace STOP", "/millrace: stop", "/millrace cancel", "@millrace stop",
        "@millrace, stop please", "  /millrace\tstop\r\n",
    ],
)  # fmt: skip
def test_this_asks_to_stop(text: str) -> None:
    assert command_of(text, "@millrace") == "stop"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "millrace",
        "see /millrace",
        "/millraces",
        "/millrace-bot",
        "/millrace/config",
        "path/millrace",
        "    /millrace",
        "@millrace-bot",
        "@millraces",
        "@millrace/core",
        "npm install @millrace/cli",
        "me@millrace.dev",
        "x.@millrace",
        "@@millrace",
        "`@millrace`",
        "`/millrace`",
        "``@millrace``",
        "```\n/millrace\n```",
        "```sh\n/millrace\n```\nbye",
        "~~~\n@millrace\n~~~",
        "````\n```\n/millrace\n```\n````",
        "```\nnever closed\n\n/millrace",
        "> /millrace",
        "> @millrace\nI agree",
        "   > @millrace",
        "> ```\n> /millrace\n> ```",
        "<!-- @millrace -->",
        "<!--\n/millrace\n-->",
        "<!-- never closed\n/millrace",
    ],
)
def test_this_asks_for_nothing(text: str) -> None:
    assert command_of(text, "@millrace") is None


def test_another_mention_can_be_set() -> None:
    assert command_of("@helper do it", "@helper") == "work"
    assert command_of("@millrace do it", "@helper") is None
    assert command_of("/millrace", "@helper") == "work"


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["```\n", "`", "<!--", "> ", "~~~~", "@millrace\n", "/millrace ", " ", "~"])
def test_a_long_comment_takes_no_long_time(piece: str) -> None:
    # 64 KiB is as long as GitHub lets a comment be; a search that goes back would take minutes.
    command_of(piece * (65536 // len(piece)), "@millrace")


# --- the fold -----------------------------------------------------------------------------------------

ANY_FACT = st.sampled_from(
    [
        REQUESTED, ASKED, ANSWERED, FINISHED, FAILED, CANCELLED, f.ProgressPosted(comment_id=1, url="u"),
        f.AnswerGiven(turn=1, text="so"), f.SandboxLost(sandbox_id="s", generation=1, why="gone"),
        f.CommitPublished(branch="b", commit="c", tree="t"),
    ]
)  # fmt: skip
HISTORIES = st.lists(st.tuples(st.sampled_from([R1, R2, run_id(LABELLED)]), ANY_FACT), max_size=30)


@hypothesis_given(HISTORIES)
def test_any_history_folds_to_an_issue_with_at_most_one_run_that_was_asked_for(history: Facts) -> None:
    issue = START
    for run, fact in history:
        before, issue = issue, evolve(issue, run, fact)
        match issue:
            case Quiet(runs=runs):
                assert runs == before.runs
            case Busy(run=active, runs=runs) | Parked(run=active, runs=runs):
                assert active in runs
                assert runs >= before.runs
                # The run that is going on changes only where none was.
                assert isinstance(before, Quiet) or active == before.run


@hypothesis_given(HISTORIES, st.sampled_from([OPENED, LABELLED, COMMAND, TALK, STOP, CLOSED]))
def test_a_run_is_asked_for_only_where_none_is_going_on(history: Facts, heard: AnyHeard) -> None:
    issue = fold(history)
    for standing in (None, READER, WRITER):
        plan = decide(issue, heard, standing, RULES)
        assert isinstance(plan, get_args(Plan))
        if isinstance(plan, Request):
            assert isinstance(issue, Quiet)
            assert plan.run not in issue.runs
            assert standing is WRITER
        if isinstance(plan, Tell):
            assert isinstance(issue, Busy | Parked)
            assert plan.run == issue.run
