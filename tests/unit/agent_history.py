"""Facts for histories of the agent, short enough to read in a table of tests."""

from typing import Any

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef
from contracts.story import MARA

BASE_TREE, NEW_TREE = "a" * 40, "b" * 40
MODEL = "claude-sonnet-5-5"
CANCELLED = f.RunCancelled(by=MARA, why="the issue was closed")
FINISHED = f.RunFinished(outcome="failed")


def ready(generation: int = 1, **other: Any) -> f.SandboxReady:
    """A sandbox, with an unchanged workspace unless ``other`` says so."""
    found = f.SandboxReady(
        sandbox_id=f"box-{generation}",
        runner="harbour",
        generation=generation,
        base="c" * 40,
        base_ref="main",
        tree=BASE_TREE,
        image="image",
        test_command="pytest",
        about="A Python project.",
    )
    return msgspec.structs.replace(found, **other)


def lost(generation: int = 1) -> f.SandboxLost:
    """Nobody answers for it."""
    return f.SandboxLost(sandbox_id=f"box-{generation}", generation=generation, why="gone")


def says(text: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": text}


def use(identity: str, name: str, **given: Any) -> dict[str, Any]:
    """A block that uses a tool."""
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


def bash(identity: str) -> dict[str, Any]:
    """A command."""
    return use(identity, "bash", command="pytest")


def submit(identity: str, **given: Any) -> dict[str, Any]:
    """The change is handed in."""
    return use(identity, "submit", **({"title": "Mend it", "summary": "It was broken."} | given))


def ask(identity: str, question: str = "Which one?") -> dict[str, Any]:
    """A question."""
    return use(identity, "ask", question=question)


def turn(
    number: int,
    *content: dict[str, Any],
    stop: str = "",
    cost: int = 1000,
    tokens: int = 100,
    seconds: float = 1,
) -> f.TurnTaken:
    """An answer; it stopped to use tools if it uses any, and was done otherwise."""
    uses = any(block["type"] == "tool_use" for block in content)
    return f.TurnTaken(
        turn=number,
        content=content,
        stop_reason=stop or ("tool_use" if uses else "end_turn"),
        usage=f.Usage(input_tokens=tokens),
        model=MODEL,
        cost=cost,
        seconds=seconds,
    )


def checkpoint(tree: str) -> ChangeRef:
    """A stored workspace."""
    return ChangeRef(digest=f"sha256-{tree[:8]}", tree=tree, files=1, size=10)


def ran(number: int, *results: str, tree: str = NEW_TREE, seconds: float = 0.5) -> f.ToolsRan:
    """The tools of a turn, the commands among them by id; the workspace is changed unless told otherwise."""
    outcomes = tuple(
        f.ToolOutcome(
            tool_use_id=each, name="bash", content=f"output of {each}", exit_code=0, seconds=seconds
        )
        for each in results
    )
    return f.ToolsRan(turn=number, results=outcomes, checkpoint=checkpoint(tree))


def asked(number: int, identity: str, question: str = "Which one?") -> f.QuestionAsked:
    """The run is parked."""
    return f.QuestionAsked(turn=number, tool_use_id=identity, question=question)


def proposed(number: int, attempt: int = 1, *, last: bool = False) -> f.SolutionProposed:
    """A change is being verified."""
    return f.SolutionProposed(
        turn=number,
        attempt=attempt,
        last=last,
        title="Mend it",
        summary="It was broken.",
        change=checkpoint(NEW_TREE),
    )


def verified(verdict: f.Verdict, attempt: int = 1, **other: Any) -> f.VerificationFinished:
    """What came out of it."""
    return f.VerificationFinished(attempt=attempt, verdict=verdict, change=checkpoint(NEW_TREE), **other)


def check(exit_code: int | None, output: str = "") -> f.Check:
    """A command that was run."""
    return f.Check(command="pytest", tree=NEW_TREE, exit_code=exit_code, seconds=1.0, output=output)
