"""The Claude double is itself held to the SDK: what it answers, what it refuses, what it counts."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anthropic
import httpx2
import pytest

from services.agent.tools import TOOLS
from tests.doubles.model import ClaudeDouble, Say, Use
from tests.doubles.model.cache import LOOK_BACK, MINIMUM, PromptCache
from tests.doubles.model.check import request_problems
from tests.doubles.model.faults import STATUS
from tests.doubles.model.sessions import fix_bug, obey

MARK = {"cache_control": {"type": "ephemeral"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "ls"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "README"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def asked(*contents: Any, **more: Any) -> dict[str, Any]:
    """A request whose messages take turns, the user first."""
    messages = [
        {"role": "assistant" if index % 2 else "user", "content": content}
        for index, content in enumerate(contents)
    ]
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": messages, **more}


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeDouble]:
    async with ClaudeDouble() as double:
        double.play([(Say("I look."), Use("bash", {"command": "ls"})), (Say("Done."),)])
        yield double


async def post(claude: ClaudeDouble, body: Any, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    sent = {"anthropic-version": "2023-06-01", "x-api-key": claude.key} if headers is None else headers
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        return await http.post(f"{claude.url}/v1/messages", content=content, headers=sent)


async def test_the_sdk_understands_whole_answers_and_streams_alike(claude: ClaudeDouble) -> None:
    request = asked("hello", tools=list(TOOLS))
    async with anthropic.AsyncAnthropic(api_key=claude.key, base_url=claude.url, max_retries=0) as client:
        whole = await client.messages.create(**request)
        async with client.messages.stream(**request) as streaming:
            streamed = await streaming.get_final_message()

    for message in (whole, streamed):
        said, used = (block.to_dict() for block in message.content)
        assert (said["type"], said["text"]) == ("text", "I look.")
        assert (used["type"], used["name"], used["input"]) == ("tool_use", "bash", {"command": "ls"})
    assert (streamed.stop_reason, whole.stop_reason) == ("tool_use", "tool_use")
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 1
    assert whole.id != streamed.id
    assert (len(claude.requests), claude.paid_turns, claude.violations) == (2, 2, [])


async def test_the_conversation_says_how_far_the_script_is(claude: ClaudeDouble) -> None:
    second = await post(claude, asked("hello", [USE], [RESULT]))
    past_the_end = await post(claude, asked("hello", [USE], [RESULT], "Done.", "More?"))
    first = await post(claude, asked("hello"))

    assert second.json()["content"] == [text("Done.")]
    assert past_the_end.json()["stop_reason"] == "end_turn"
    assert first.json()["content"][0] == text("I look.")


async def test_scripts_are_chosen_by_the_conversation(claude: ClaudeDouble) -> None:
    claude.play(obey(["env"]), when=lambda body: "obey" in str(body["messages"]))

    told = await post(claude, asked("obey me"))
    other = await post(claude, asked("hello"))

    assert told.json()["content"][1]["input"] == {"command": "env"}
    assert other.json()["content"][1]["input"] == {"command": "ls"}


def test_a_session_uses_only_tools_that_the_agent_has() -> None:
    script = fix_bug(path="a.py", old="1", new="2", test_command="pytest", title="t", summary="s")
    blocks = [block for step in script if not callable(step) for block in step]
    names = {block.name for block in blocks if isinstance(block, Use)}
    assert names <= {tool["name"] for tool in TOOLS}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"messages": []}, "model", id="a required field is missing"),
        pytest.param(asked("x") | {"max_tokens": "many"}, "max_tokens", id="a wrong type"),
        pytest.param(asked("x") | {"max_token": 5}, "max_token", id="a field that does not exist"),
        pytest.param(asked([text("x", colour="red")]), "colour", id="a field that no block has"),
        pytest.param(asked([{"type": "tekst", "text": "x"}]), "tekst", id="an unknown block"),
        pytest.param(
            asked("x", tools=[{"type": "bash_20250124", "name": "sh"}]), "tools", id="a tool misnamed"
        ),
        pytest.param(asked("x", stream="yes"), "stream", id="stream is not a boolean"),
        pytest.param(asked("x", "y"), "does not wait", id="the last message is the assistant's"),
        pytest.param(asked("x", [USE], "no result"), "do not answer", id="a call without a result"),
        pytest.param(asked("x", "y", [RESULT]), "do not answer", id="a result without a call"),
        pytest.param(asked("x", [USE], [RESULT, RESULT]), "do not answer", id="a result given twice"),
        pytest.param(asked("x", [USE], [text("so:"), RESULT]), "before other", id="words before a result"),
        pytest.param(asked([text(" ")]), "empty", id="empty words"),
        pytest.param(asked([]), "empty content", id="no content"),
        pytest.param(asked([text("x", **MARK)] * 5), "cache_control", id="five breakpoints"),
        pytest.param([], "object", id="not an object"),
    ],
)
async def test_a_wrong_request_is_a_violation(claude: ClaudeDouble, wrong: Any, said: str) -> None:
    answer = await post(claude, wrong)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert said in " ".join(claude.violations)
    assert claude.requests == []


def test_two_messages_of_the_same_role_are_a_violation() -> None:
    body = asked("x")
    body["messages"] *= 2
    assert request_problems(body) == ["messages.1: two user messages in a row"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "violates"),
    [
        pytest.param(b"{", None, 400, True, id="broken JSON"),
        pytest.param(asked("x"), {"authorization": "Bearer wrong"}, 401, False, id="another key"),
        pytest.param(asked("x"), {}, 401, False, id="no key"),
    ],
)
async def test_what_is_no_request_is_refused(
    claude: ClaudeDouble, body: Any, headers: dict[str, str] | None, status: int, *, violates: bool
) -> None:
    assert (await post(claude, body, headers)).status_code == status
    assert bool(claude.violations) is violates
    assert claude.requests == []


async def test_a_missing_version_is_a_violation(claude: ClaudeDouble) -> None:
    assert (await post(claude, asked("x"), {"x-api-key": claude.key})).status_code == 400
    assert claude.violations == ["anthropic-version is missing"]


LONG = "word " * MINIMUM  # 1,280 tokens at four characters each
SYSTEM = [text(LONG, **MARK)]


def counted(cache: PromptCache, body: dict[str, Any]) -> tuple[int, int, int]:
    """Plain, written and read tokens."""
    usage = cache.usage(body)
    return usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]


def test_a_marked_prefix_is_written_once_and_then_read() -> None:
    cache = PromptCache()
    plain, written, read = counted(cache, asked("one", system=SYSTEM))
    assert (written > MINIMUM, read) == (True, 0)
    assert counted(cache, asked("one", system=SYSTEM)) == (plain, 0, written)
    assert counted(cache, asked("one", system=[text("x" + LONG, **MARK)]))[2] == 0


def test_a_conversation_pays_only_for_what_is_new() -> None:
    cache = PromptCache()
    first = counted(cache, asked([text("one", **MARK)], system=SYSTEM))
    second = counted(cache, asked([text("one")], "two", [text("three", **MARK)], system=SYSTEM))
    assert first[0] == second[0] == 0
    assert second[2] == first[1]
    assert 0 < second[1] < 50


def test_nothing_is_read_or_written_without_a_breakpoint() -> None:
    cache = PromptCache()
    cache.usage(asked("one", system=SYSTEM))
    assert counted(cache, asked("one", system=[text(LONG)]))[1:] == (0, 0)


def test_another_model_shares_no_cache() -> None:
    cache = PromptCache()
    cache.usage(asked("one", system=SYSTEM))
    assert counted(cache, asked("one", system=SYSTEM) | {"model": "claude-haiku-5-5"})[2] == 0


def test_a_short_prefix_is_not_kept() -> None:
    cache = PromptCache()
    body = asked([text("x" * (MINIMUM * 2), **MARK)])
    assert counted(cache, body)[1:] == (0, 0)
    assert counted(cache, body)[1:] == (0, 0)


@pytest.mark.parametrize(("between", "found"), [(LOOK_BACK - 1, True), (LOOK_BACK, False)])
def test_a_breakpoint_looks_back_no_further_than_it_may(between: int, *, found: bool) -> None:
    cache = PromptCache()
    cache.usage(asked([text(LONG, **MARK)]))
    blocks = [text(str(number)) for number in range(between)]
    blocks[-1] |= MARK
    assert bool(counted(cache, asked([text(LONG), *blocks]))[2]) is found


@pytest.mark.parametrize("kind", sorted(STATUS))
async def test_a_refusal_has_the_status_and_the_shape_of_the_api(claude: ClaudeDouble, kind: str) -> None:
    claude.misbehave(kind, retry_after="7")

    wrong, right = await post(claude, asked("x")), await post(claude, asked("x"))

    status, name, _ = STATUS[kind]
    assert (wrong.status_code, wrong.json()["error"]["type"], wrong.headers["retry-after"]) == (
        status,
        name,
        "7",
    )
    assert (right.status_code, claude.paid_turns) == (200, 1)


@pytest.mark.parametrize(
    ("kind", "holds", "lacks"),
    [
        ("html", "<html>", "data:"),
        ("truncated_json", '"message_sta', "message_stop"),
        ("stream_cut", "content_block_start", "message_delta"),
        ("content_null", '"content": null', "content_block"),
        ("unknown_stop", '"gave_up"', '"tool_use", "stop_sequence"'),
        ("empty", '"tool_use", "stop_sequence"', "content_block"),
        ("refusal", '"refusal"', "content_block"),
        ("max_tokens", '"max_tokens"', "input_json_delta"),
        ("error_event", "overloaded_error", "message_stop"),
    ],
)
async def test_a_broken_answer_is_broken_in_its_own_way(
    claude: ClaudeDouble, kind: str, holds: str, lacks: str
) -> None:
    claude.misbehave(kind)

    answer = await post(claude, asked("x", stream=True))

    assert answer.status_code == 200
    assert holds in answer.text
    assert lacks not in answer.text
    assert claude.paid_turns == 0


async def test_a_dropped_and_a_stalled_answer_never_end(claude: ClaudeDouble) -> None:
    claude.misbehave("drop")
    with pytest.raises(httpx2.RemoteProtocolError):
        await post(claude, asked("x"))
    claude.misbehave("stall")
    headers = {"anthropic-version": "2023-06-01", "x-api-key": claude.key}
    async with httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(5, read=0.2)) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(f"{claude.url}/v1/messages", json=asked("x"), headers=headers)
    assert claude.paid_turns == 0


async def test_a_fault_waits_for_its_turn_and_strikes_as_often_as_asked(claude: ClaudeDouble) -> None:
    claude.misbehave("overloaded", times=2, after_turns=1)
    statuses = [(await post(claude, asked("x"))).status_code for _ in range(4)]
    assert statuses == [200, 529, 529, 200]


def test_an_unknown_fault_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="sulk"):
        ClaudeDouble().misbehave("sulk")
