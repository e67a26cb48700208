"""The engine in the sandbox as the agent judges it: plans from histories, requests, answers, sessions."""

from functools import partial, reduce
from typing import Any

import msgspec
import pytest

from contracts import facts as f
from contracts.engine import Asked
from contracts.story import STORY
from services.agent.decide import Budget, GiveAnswer, GiveUp, Propose, Room, RunEngine, as_fact, decide
from services.agent.engine_answer import answer_again, read_answer
from services.agent.engine_request import Question, Rejected, over, read_question
from services.agent.engine_session import invocation, session_lines, transcript
from services.agent.engine_words import RESUME, handed_in
from services.agent.state import START, Working, evolve
from services.kit.errors import Later
from tests.unit.agent_history import (
    BASE_TREE,
    MODEL,
    check,
    lost,
    proposed,
    ran,
    ready,
    says,
    turn,
    use,
    verified,
)  # fmt: skip

REQUESTED = next(said.fact for said in STORY if isinstance(said.fact, f.RunRequested))
BEGUN: tuple[Any, ...] = (REQUESTED, ready())
BUDGET = Budget(turns=10, tokens=1_000_000, cost=1_000_000, seconds=600, dearest_turn=1000)
choose = partial(decide, budget=BUDGET, model=MODEL, engine="claude-code")
LAST = says("Mend it\n\nIt was broken.\n\nVerified:\n- the tests pass")


def step(number: int, *content: dict[str, Any], **other: Any) -> f.TurnTaken:
    return msgspec.structs.replace(
        turn(number, *content, **other), engine="claude-code", asked=f"digest-{number}"
    )


def folded(*facts: Any) -> Any:
    return reduce(evolve, facts, START)


def plan(*facts: Any) -> Any:
    (found,) = choose(folded(*facts), facts[-1])
    return found


def bash(identity: str) -> dict[str, Any]:
    return use(identity, "Bash", command="pytest")


def test_it_runs_until_it_is_done() -> None:
    for history in (
        BEGUN,
        (*BEGUN, step(1, bash("a"))),
        (*BEGUN, step(1, bash("a")), ran(1, "a")),
        (*BEGUN, step(1, says("cut"), stop="max_tokens")),
    ):
        assert isinstance(plan(*history), RunEngine)


def test_its_last_words_are_title_summary_and_claims() -> None:
    proposal = plan(*BEGUN, step(1, bash("a")), ran(1, "a"), step(2, LAST))
    assert isinstance(proposal, Propose)
    assert (proposal.title, proposal.summary, proposal.claims, proposal.last, proposal.ends) == (
        "Mend it", "It was broken.", ("the tests pass",), False, "box-1",
    )  # fmt: skip
    assert isinstance(as_fact(proposal), f.SolutionProposed)


def test_without_a_change_they_are_the_answer() -> None:
    answer = plan(*BEGUN, step(1, bash("a")), ran(1, "a", tree=BASE_TREE), step(2, says("It is so.")))
    assert answer == GiveAnswer(turn=2, text="It is so.")


def test_a_turn_beside_the_conversation_ends_nothing() -> None:
    aside = msgspec.structs.replace(step(2, says("A title")), side=True)
    found = plan(*BEGUN, step(1, bash("a")), aside)
    assert isinstance(found, RunEngine)
    assert found.turn == 3
    assert folded(*BEGUN, step(1, bash("a")), aside, ran(1, "a")).work.settled


def test_a_failed_verification_is_its_next_prompt() -> None:
    history = (*BEGUN, step(1, bash("a")), ran(1, "a"), step(2, LAST), proposed(2))
    failed = verified("failed", checks=(check(1, "1 failed"),))
    again = plan(*history, failed)
    assert isinstance(again, RunEngine)
    messages, prompt = transcript(again.work)
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert "1 failed" in prompt
    assert isinstance(plan(*history, failed, step(3, LAST)), Propose)


def test_a_run_keeps_the_engine_it_began_with() -> None:
    begun = folded(*BEGUN, step(1, bash("a")))
    assert isinstance(decide(begun, BEGUN[-1], budget=BUDGET, model=MODEL)[0], RunEngine)
    own = folded(*BEGUN, turn(1, bash("a")))
    assert not isinstance(choose(own, BEGUN[-1])[0], RunEngine)


def test_ending_again_and_again_ends_the_run() -> None:
    losses = [fact for number in (1, 2, 3) for fact in (lost(number), ready(number + 1))]
    assert isinstance(plan(*BEGUN, *losses[:4]), RunEngine)
    given_up = plan(*BEGUN, *losses)
    assert isinstance(given_up, GiveUp)
    assert given_up.kind == "engine_ended"
    late = plan(*BEGUN, step(1, bash("a")), ran(1, "a"), *losses)
    assert isinstance(late, Propose)
    assert late.last


# --- what it asks ----------------------------------------------------------------------------------------


def request(**other: Any) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": "Mend it."}],
        "tools": [{"name": "Bash", "description": "", "input_schema": {"type": "object"}}],
        "output_config": {"effort": "medium"},
        "stream": True,
    }
    return {name: value for name, value in (body | other).items() if value is not None}


def judged(body: Any, target: str = "/v1/messages?beta=true", method: str = "POST", **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    asked = Asked(request="r-1", method=method, target=target, headers=headers, size=len(raw))
    return read_question(asked, raw, MODEL)


def source(**given: Any) -> dict[str, Any]:
    content = [{"type": "document", "source": given}]
    return {"messages": [{"role": "user", "content": content}]}


def inside(block: dict[str, Any]) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": "a", "content": [block]}
    return {"messages": [{"role": "user", "content": [result]}]}


URL = {"type": "image", "source": {"type": "url", "url": "https://trap.example/?d=secret"}}


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"model": "claude-opus-5-5"}, 400),
        ({"max_tokens": 64_000}, 400),
        ({"max_tokens": True}, 400),
        ({"max_tokens": None}, 400),
        ({"speed": "fast"}, 400),
        ({"service_tier": "auto"}, 400),
        ({"mcp_servers": [{"type": "url", "url": "https://trap.example", "name": "t"}]}, 400),
        ({"container": "c"}, 400),
        ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, 400),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "t"}]}, 400),
        (source(type="url", url="https://trap.example"), 400),
        (source(type="file", file_id="file_1"), 400),
        (source(type="content", content=[URL]), 400),
        (inside(URL), 400),
        ({"messages": "text"}, 400),
        ({"messages": None}, 400),
        ({"tools": ["x"]}, 400),
    ],
)  # fmt: skip
def test_what_would_reach_or_cost_something_else_is_rejected(other: dict[str, Any], status: int) -> None:
    answer = judged(request(**other))
    assert isinstance(answer, Rejected)
    assert answer.status == status


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/v1/messages", "GET"),
        ("/v1/models", "POST"),
        ("/v1/messages/batches", "POST"),
        ("/v1/messages?beta=true&x=1", "POST"),
        ("//trap.example/v1/messages", "DELETE"),
        ("/v1/files", "POST"),
    ],
)
def test_other_paths_are_not_served(target: str, method: str) -> None:
    assert judged(request(), target, method).status == 404


def test_a_request_passes_unread_without_its_credentials() -> None:
    raw = b' {"messages": [{"role": "user", "content": "x", "new": 1}], "model": "%b", "max_tokens": 5}' % (
        MODEL.encode()
    )
    headers = {
        "x-api-key": "no",
        "authorization": "no",
        "host": "trap",
        "cookie": "c",
        "anthropic-beta": "a,b",
    }
    asked = Asked(request="r", method="POST", target="/v1/messages", headers=headers, size=len(raw))
    question = read_question(asked, raw, MODEL)
    assert isinstance(question, Question)
    assert question.body == raw
    assert question.headers == {"anthropic-beta": "a,b"}
    assert question.side


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b"[" * 100_000, b'{"messages": 1}'])
def test_what_is_no_request_is_rejected(body: bytes) -> None:
    assert isinstance(judged(body), Rejected)


def test_the_dearest_answer_is_reserved() -> None:
    question = judged(request())
    assert over(question, Room(tokens=20_000, cost=1_000_000, seconds=9)) == ""
    assert over(question, Room(tokens=16_000, cost=1_000_000, seconds=9)) == "budget_tokens"
    assert over(question, Room(tokens=20_000, cost=160_000, seconds=9)) == "budget_cost"


def test_results_are_found_by_the_call_that_they_answer() -> None:
    messages = [
        {"role": "user", "content": "Mend it."},
        {"role": "assistant", "content": [bash("a")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "ok"}]},
    ]
    question = judged(request(messages=messages))
    assert question.results == {"a": ("ok", False)}
    assert question.knows(step(1, bash("a")))
    assert not question.knows(step(1, bash("b")))


# --- what it is answered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_recorded_answer_reads_as_it_was(stream: bool) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "abc"}
    given = step(3, thought, says("I look."), bash("a"))
    kind, body = answer_again(given, stream=stream)
    answer = read_answer(kind, body, MODEL)
    assert (answer.content, answer.stop_reason) == (given.content, "tool_use")


def test_a_stream_that_was_cut_is_no_answer() -> None:
    kind, body = answer_again(step(1, says("a"), bash("b")), stream=True)
    for end in (body.index(b"event: message_delta"), body.index(b"event: content_block_stop"), 10):
        with pytest.raises(Later):
            read_answer(kind, body[:end], MODEL)
    with pytest.raises(Later):
        read_answer(kind, b'data: {"type": "error", "error": {"type": "overloaded_error"}}\n\n', MODEL)
    with pytest.raises(Later):
        read_answer("text/html", b"<html>", MODEL)


# --- how it is given back --------------------------------------------------------------------------------


def test_the_session_holds_what_is_settled() -> None:
    state = folded(*BEGUN, step(1, bash("a")), ran(1, "a"), step(2, bash("b")))
    assert isinstance(state, Working)
    messages, prompt = transcript(state.work)
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert prompt == RESUME
    lines = list(session_lines(messages, "s", MODEL))
    assert [line["parentUuid"] for line in lines] == [None, lines[0]["uuid"], lines[1]["uuid"]]
    begin = invocation(state.work, "run-engine-1-0", MODEL)
    assert "--resume" in begin.command
    assert "--session-id" in invocation(folded(*BEGUN).work, "run-engine-1-0", MODEL).command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Mend it\n\nWhy.\n\n**Verified:**\n1. a\n2. b\n", ("Mend it", "Why.", ("a", "b"))),
        ("Title: Mend it", ("Mend it", "Mend it", ())),
        ("x" * 200, ("", "x" * 200, ())),
        ("", ("", "", ())),
    ],
)
def test_last_words(text: str, expected: tuple[str, str, tuple[str, ...]]) -> None:
    assert handed_in(text) == expected
