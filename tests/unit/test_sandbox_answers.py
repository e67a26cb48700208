"""How the model reads the end of a command."""

import msgspec
import pytest
from inline_snapshot import snapshot

from contracts.tools import ToolCall
from services.sandbox_runner.answers import TEXT, Answer, command_result, edit_result

CALL = ToolCall(id="c", name="bash", input={"command": "x"}, seconds=1.5)


def test_each_end_of_a_command_has_its_words() -> None:
    ends = [
        Answer(ok=True, content="out\n", exit_code=0),
        Answer(ok=True, content="out", exit_code=2),
        Answer(ok=True, content="out\n", exit_code=137),
        Answer(ok=True, content="", timed_out=True),
        Answer(ok=True, content="half", exit_code=137, cancelled=True),
        Answer(ok=False, why="no room"),
        Answer(ok=True, content="Killed", exit_code=137, limits=["memory", "disk"]),
        Answer(ok=True, content="out\n", exit_code=0, limits=["processes"], state_kept=False),
    ]
    results = [command_result(CALL, end) for end in ends]
    assert [(result.content, result.is_error) for result in results] == snapshot(
        [
            ("out\n", False),
            ("out\n[exit code 2]", False),
            ("out\n[exit code 137]", False),
            ("[stopped after 1.5 s; the command and everything it started was killed]", True),
            ("half\n[cancelled; the command and everything it started was killed]", True),
            ("no room", True),
            (
                """\
Killed
[the sandbox's memory was used up and processes were killed]
[a file system of the sandbox is full]
[exit code 137]""",
                False,
            ),
            (
                """\
out
[variables and functions of more than 1 MiB: they are not kept for the next command]
[the sandbox's limit of processes was reached]""",
                False,
            ),
        ]
    )


@pytest.mark.parametrize(
    ("answer", "content", "is_error"),
    [
        (Answer(ok=True, content="done"), "done", False),
        (Answer(ok=True, content="not found", is_error=True), "not found", True),
        (Answer(ok=False, why="gone \ud800"), "gone ?", True),
    ],
)
def test_an_edit_is_told_as_it_is(answer: Answer, content: str, is_error: bool) -> None:
    result = edit_result(CALL, answer)
    assert (result.content, result.is_error) == (content, is_error)


@pytest.mark.parametrize(
    "fields",
    [
        {"exit_code": -1},
        {"exit_code": 256},
        {"exit_code": 0.5},
        {"seconds": -1},
        {"seconds": 1e300},
        {"omitted": -1},
        {"omitted": 2**64},
        {"limits": ["patience"]},
        {"limits": ["disk"] * 4},
        {"content": 5},
        {"ok": "yes"},
        {"ok": None},
    ],
)
def test_what_no_tool_server_says_is_no_answer(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"ok": True} | fields, Answer)


def test_no_answer_is_longer_than_a_tool_may_say() -> None:
    endless = Answer(ok=True, content="x" * 1_000_000, why="y" * 1_000_000)
    assert len(edit_result(CALL, endless).content) == len(command_result(CALL, endless).content) == TEXT
