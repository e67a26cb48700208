"""The agent's plans carried out on Claude and on sandboxes; each returns the facts that came of it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, assert_never

from contracts import facts as f
from contracts.envelope import Recorded
from contracts.tools import ToolCall, ToolResult
from services.agent.decide import (
    AskPerson,
    GiveAnswer,
    GiveUp,
    Plan,
    Propose,
    RunEngine,
    RunTools,
    TakeTurn,
    as_fact,
)
from services.agent.engine import Engines
from services.agent.fit import fitted
from services.agent.model import Model
from services.agent.prices import cost
from services.agent.prompt import prompt_digest
from services.agent.sandbox import Sandboxes, SandboxGone
from services.agent.tools import EVERYWHERE, IN_SANDBOX

COMMAND_SECONDS = 300.0
"""How long one tool call may take."""


class Hands:
    """Carries plans out.

    Args:
        sandboxes: the runners'.
        model: Claude, for our own loop.
        engines: the other loops, in sandboxes.
    """

    def __init__(self, sandboxes: Sandboxes, model: Model, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._model = model
        self._engines = engines

    async def __call__(self, plan: Plan, heard: Recorded) -> Sequence[f.AnyFact]:
        """The facts that came of ``plan``; ``Later`` or ``Refused`` if it could not be carried out."""
        match plan:
            case TakeTurn():
                return [await self._take_turn(plan)]
            case RunTools():
                return [await self._run_tools(plan, heard)]
            case AskPerson(turn=turn, tool_use_id=identity, question=question):
                return [f.QuestionAsked(turn=turn, tool_use_id=identity, question=question)]
            case RunEngine():
                outcome = await self._engines.run(plan, heard)
                return await self(outcome, heard) if isinstance(outcome, Propose | GiveUp) else [outcome]
            case GiveAnswer() | Propose() | GiveUp():
                if isinstance(plan, Propose) and plan.ends:
                    with suppress(SandboxGone):
                        await self._engines.end(plan.ends, f"{heard.key.run}-{plan.turn}-end")
                return [as_fact(plan)]
            case _:
                assert_never(plan)

    async def _take_turn(self, plan: TakeTurn) -> f.TurnTaken:
        begun = time.monotonic()
        answer = await self._model.take_turn(plan.request)
        return f.TurnTaken(
            turn=plan.turn,
            content=answer.content,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            model=answer.model,
            cost=cost(plan.request.model, answer.usage),
            seconds=round(time.monotonic() - begun, 3),
            prompt=prompt_digest(),
            request_id=answer.request_id,
        )

    async def _run_tools(self, plan: RunTools, heard: Recorded) -> f.ToolsRan | f.SandboxLost:
        """One batch in order, then the checkpoint; a sandbox that does not answer is a fact, no error."""
        prefix = f"{heard.key.run}-{plan.turn}"
        outcomes = []
        try:
            for use in plan.uses:
                if use["name"] in IN_SANDBOX:
                    outcomes.append(await self._call(plan.sandbox_id, prefix, use))
                elif use["name"] not in EVERYWHERE:
                    outcomes.append(_no_such_tool(use))
            checkpoint = await self._sandboxes.checkpoint(plan.sandbox_id, f"{prefix}-checkpoint")
        except SandboxGone as gone:
            return f.SandboxLost(sandbox_id=plan.sandbox_id, generation=plan.generation, why=str(gone))
        return f.ToolsRan(turn=plan.turn, results=fitted(outcomes), checkpoint=checkpoint)

    async def _call(self, sandbox_id: str, prefix: str, use: dict[str, Any]) -> f.ToolOutcome:
        call = ToolCall(
            id=f"{prefix}-{use['id']}", name=use["name"], input=use["input"], seconds=COMMAND_SECONDS
        )
        answer = await self._sandboxes.ask(sandbox_id, call)
        match answer:
            case ToolResult():
                return f.ToolOutcome(
                    tool_use_id=use["id"],
                    name=use["name"],
                    content=answer.content,
                    is_error=answer.is_error,
                    exit_code=answer.exit_code,
                    seconds=round(answer.seconds, 3),
                    omitted=answer.omitted,
                )
            case _:
                why = getattr(answer, "why", "the sandbox gave no result")
                return f.ToolOutcome(tool_use_id=use["id"], name=use["name"], content=why, is_error=True)


def _no_such_tool(use: dict[str, Any]) -> f.ToolOutcome:
    names = ", ".join(sorted(EVERYWHERE))
    return f.ToolOutcome(
        tool_use_id=use["id"],
        name=str(use["name"]),
        content=f"There is no such tool. There are: {names}.",
        is_error=True,
    )
