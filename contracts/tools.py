"""Questions the agent asks a sandbox, by request and reply; nothing of this enters the log as such.

Subject: ``sandbox.v1.<sandbox_id>.call`` (see ``contracts.subjects``). The call id makes a question
repeatable: asking twice returns the first answer. A call that is still going on after the reply wait
is answered ``Running``; the asker asks again under the same id.
"""

from typing import Any

import msgspec


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """Run one tool in the sandbox.

    ``name`` is ``bash`` or ``str_replace_based_edit_tool`` and ``input`` the model's input for it, as in
    Anthropic's definitions ``bash_20250124`` and ``text_editor_20250728``. ``seconds`` bounds the call.
    """

    id: str
    name: str
    input: dict[str, Any]
    seconds: float = 120.0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """Store the workspace's change against its base; answered with ``Checkpointed``."""

    id: str


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """The run needs this sandbox no more; answered with ``Released`` by whoever holds it."""

    id: str


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """What a tool said. ``exit_code`` is set for commands that ended; ``omitted`` counts bytes cut away."""

    id: str
    content: str
    is_error: bool = False
    exit_code: int | None = None
    seconds: float = 0.0
    omitted: int = 0


class Checkpointed(msgspec.Struct, frozen=True, kw_only=True, tag="checkpointed"):
    """The stored change (``contracts.change.ChangeRef`` fields)."""

    id: str
    digest: str
    tree: str
    files: int = 0
    size: int = 0


class Running(msgspec.Struct, frozen=True, kw_only=True, tag="running"):
    """Not finished yet: ask again under the same id."""

    id: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The sandbox could not do it at all (not: the command failed). ``lost`` means: it is gone."""

    id: str
    why: str
    lost: bool = False


class Released(msgspec.Struct, frozen=True, kw_only=True, tag="released"):
    """It is gone."""

    id: str


class RunnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner answers on ``contracts.subjects.RUNNERS_SUBJECT``. Seconds since it started.

    ``queue`` are the sandboxes that wait for room, the next one first; ``warm`` is how many containers wait
    for a run; ``podman`` is ``ok`` or says what is wrong.
    """

    runner: str
    sandboxes: tuple[str, ...]
    limit: int
    image: str
    uptime: float
    queue: tuple[str, ...] = ()
    warm: int = 0
    podman: str = "ok"


SandboxQuestion = ToolCall | Checkpoint | Release
SandboxAnswer = ToolResult | Checkpointed | Released | Running | Failed
