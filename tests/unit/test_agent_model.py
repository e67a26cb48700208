"""The model client against the double: every failure of wire and content has a name."""

from collections.abc import AsyncIterator

import pytest

from services.agent.model import AnthropicModel, _retry_after
from services.agent.request import ModelRequest
from services.agent.tools import TOOLS
from services.kit.errors import Later, Refused
from tests.doubles.model import ClaudeDouble, Say, Use

REQUEST = ModelRequest(
    model="claude-sonnet-5-5",
    system=({"type": "text", "text": "Be brief. " * 500, "cache_control": {"type": "ephemeral"}},),
    messages=({"role": "user", "content": [{"type": "text", "text": "hello"}]},),
    tools=TOOLS,
    max_tokens=1000,
)


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeDouble]:
    async with ClaudeDouble() as double:
        double.play([(Say("I look around."), Use("bash", {"command": "ls"}))])
        yield double


@pytest.fixture
async def model(claude: ClaudeDouble) -> AsyncIterator[AnthropicModel]:
    model = client(claude)
    yield model
    await model.close()


def client(claude: ClaudeDouble, **patience: float) -> AnthropicModel:
    async def key() -> str:
        return claude.key

    return AnthropicModel(key, claude.url, **patience)


async def test_a_turn_comes_back_as_blocks_that_can_be_sent_again(
    claude: ClaudeDouble, model: AnthropicModel
) -> None:
    turn = await model.take_turn(REQUEST)
    assert turn.stop_reason == "tool_use"
    assert [block["type"] for block in turn.content] == ["text", "tool_use"]
    answered = {"type": "tool_result", "tool_use_id": turn.content[1]["id"], "content": "README"}
    more = ModelRequest(
        model=REQUEST.model,
        system=REQUEST.system,
        messages=(
            *REQUEST.messages,
            {"role": "assistant", "content": list(turn.content)},
            {"role": "user", "content": [answered]},
        ),
        tools=TOOLS,
        max_tokens=1000,
    )
    second = await model.take_turn(more)
    assert second.stop_reason == "end_turn"
    assert second.usage.cache_read_input_tokens > 0
    assert claude.violations == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("rate_limited", "model_rate_limited"),
        ("overloaded", "model_overloaded"),
        ("server_error", "model_overloaded"),
        ("error_event", "model_overloaded"),
        ("stream_cut", "model_stream_cut"),
        ("drop", "model_unreachable"),
        ("html", "model_malformed"),
        ("truncated_json", "model_malformed"),
        ("content_null", "model_malformed"),
        ("unknown_stop", "model_malformed"),
        ("empty", "model_malformed"),
    ],
)
async def test_what_may_work_again_is_later(
    claude: ClaudeDouble, model: AnthropicModel, fault: str, kind: str
) -> None:
    claude.misbehave(fault)
    with pytest.raises(Later) as caught:
        await model.take_turn(REQUEST)
    assert caught.value.kind == kind
    assert claude.key not in str(caught.value)
    assert (await model.take_turn(REQUEST)).stop_reason == "tool_use"


@pytest.mark.parametrize("patience", [{"stall": 0.5}, {"total": 0.5}], ids=["silence", "length"])
async def test_an_answer_that_does_not_come_is_later(
    claude: ClaudeDouble, model: AnthropicModel, patience: dict[str, float]
) -> None:
    impatient = client(claude, **patience)
    claude.misbehave("stall")
    with pytest.raises(Later) as caught:
        await impatient.take_turn(REQUEST)
    await impatient.close()
    assert caught.value.kind == "model_unreachable"
    # A busy machine can make any answer late: only the patient one must get its own.
    assert (await model.take_turn(REQUEST)).stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("revoked_key", "model_key_rejected"),
        ("forbidden", "model_key_rejected"),
        ("no_credit", "model_no_credit"),
        ("unknown_model", "model_unknown"),
        ("context_too_long", "model_context_too_long"),
        ("too_large", "model_context_too_long"),
        ("bad_request", "model_bad_request"),
        ("refusal", "model_refused"),
    ],
)
async def test_what_will_not_work_is_refused(
    claude: ClaudeDouble, model: AnthropicModel, fault: str, kind: str
) -> None:
    claude.misbehave(fault)
    with pytest.raises(Refused) as caught:
        await model.take_turn(REQUEST)
    assert caught.value.kind == kind


async def test_a_tool_call_cut_at_the_length_limit_keeps_the_words_before_it(
    claude: ClaudeDouble, model: AnthropicModel
) -> None:
    claude.misbehave("max_tokens")
    turn = await model.take_turn(REQUEST)
    assert turn.stop_reason == "max_tokens"
    assert [block["type"] for block in turn.content] == ["text"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5.0), ("86400", 3600.0), ("-1", 30.0), (None, 30.0), ("soon", 30.0), ("nan", 30.0), ("0", 1.0)],
)
def test_retry_after_is_bounded_and_never_trusted(value: str | None, seconds: float) -> None:
    assert _retry_after(value) == seconds


async def test_a_request_that_the_sdk_would_not_send_is_a_violation(
    claude: ClaudeDouble, model: AnthropicModel
) -> None:
    wrong = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_x", "content": "?"}]}
    with pytest.raises(Refused):
        await model.take_turn(
            ModelRequest(model="m", system=(), messages=(*REQUEST.messages, wrong), tools=(), max_tokens=10)
        )
    assert claude.violations
