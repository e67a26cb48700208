"""How the model reads the end of a command."""

import pytest
from inline_snapshot import snapshot

from contracts.tools import ToolCall
from services.sandbox_runner.answers import Answer, command_result, edit_result

CALL = ToolCall(id="c", name="bash", input={"command": "x"}, seconds=1.5)


def test_each_end_of_a_command_has_its_words() -> None:
    ends = [
        Answer(ok=True, content="out\n", exit_code=0),
        Answer(ok=True, content="out", exit_code=2),
        Answer(ok=True, content="out\n", exit_code=137),
        Answer(ok=True, content="", timed_out=True),
        Answer(ok=True, content="half", exit_code=137, cancelled=True),
        Answer(ok=False, why="no room"),
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
