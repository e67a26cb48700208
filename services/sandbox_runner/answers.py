"""The tool server's answers, and what becomes of them for the model (pure).

They were written inside a sandbox: every number has its bounds, and no text is longer than a tool may say.
"""

from typing import Annotated, Literal

import msgspec

from contracts.tools import ToolCall, ToolResult

TEXT = 64_000
"""Characters of an answer that are passed on; what an honest tool server says is shorter."""

_REACHED = {
    "memory": "the sandbox's memory was used up and processes were killed",
    "processes": "the sandbox's limit of processes was reached",
    "disk": "a file system of the sandbox is full",
}
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool server says about one tool call."""

    ok: bool
    why: str = ""
    content: str = ""
    is_error: bool = False
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    timed_out: bool = False
    cancelled: bool = False
    state_kept: bool = True
    limits: Annotated[list[Literal["memory", "processes", "disk"]], msgspec.Meta(max_length=3)] = []
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    omitted: _Count = 0


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What the tool server says about the repository it laid out or changed."""

    ok: bool
    why: str = ""
    tree: str = ""


def edit_result(call: ToolCall, answer: Answer) -> ToolResult:
    """What the editor said; what it could not do is an error for the model to read."""
    failed = not answer.ok or answer.is_error
    return ToolResult(id=call.id, content=_text(answer.content or answer.why), is_error=failed)


def command_result(call: ToolCall, answer: Answer) -> ToolResult:
    """What a command wrote and how it ended; an exit code other than 0 is no error of the tool."""
    if not answer.ok:
        return ToolResult(id=call.id, content=_text(answer.why), is_error=True)
    return ToolResult(
        id=call.id,
        content=_text(_told(answer, call.seconds)),
        is_error=answer.timed_out or answer.cancelled,
        exit_code=answer.exit_code,
        seconds=answer.seconds,
        omitted=answer.omitted,
    )


def _told(answer: Answer, seconds: float) -> str:
    """A command's output and what there is to know about its end, as the model reads it."""
    notes = []
    if not answer.state_kept:
        notes.append("variables and functions of more than 1 MiB: they are not kept for the next command")
    notes += [_REACHED[limit] for limit in answer.limits]
    if answer.timed_out:
        notes.append(f"stopped after {seconds:g} s; the command and everything it started was killed")
    elif answer.cancelled:
        notes.append("cancelled; the command and everything it started was killed")
    elif answer.exit_code:
        notes.append(f"exit code {answer.exit_code}")
    if not notes:
        return answer.content
    gap = "\n" if answer.content and not answer.content.endswith("\n") else ""
    return answer.content + gap + "\n".join(f"[{note}]" for note in notes)


def _text(content: str) -> str:
    """Without lone surrogates, which JSON can bring in but no encoder lets out again."""
    return content[:TEXT].encode("utf-8", "replace").decode()
