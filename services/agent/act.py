"""The agent's plans carried out on Claude and on sandboxes; each returns the facts that came of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, assert_never

import msgspec
import structlog

from contracts import facts as f
from contracts.change import ChangeRef
from contracts.envelope import Recorded
from contracts.subjects import sandbox_subject
from contracts.tools import (
    Checkpoint,
    Checkpointed,
    Failed,
    Running,
    SandboxAnswer,
    SandboxQuestion,
    ToolCall,
    ToolResult,
)
from services.agent.decide import AskPerson, GiveAnswer, GiveUp, Plan, Propose, RunTools, TakeTurn
from services.agent.model import Model
from services.agent.prices import cost
from services.agent.prompt import prompt_digest
from services.agent.tools import EVERYWHERE, IN_SANDBOX
from services.kit.bus import Bus
from services.kit.errors import Later

COMMAND_SECONDS = 300.0
"""How long one tool call may take."""
SILENCE = 3
"""Unanswered questions in a row after which a sandbox counts as lost."""
ABSENCE = 30.0
"""Seconds for which nobody may hold a sandbox: a runner that is started again finds its sandboxes alive."""
_PAUSE = 0.25
BATCH_BYTES = 160_000
"""Room for the results of one batch in its fact; each result gets an equal share of what is over."""

logger = structlog.get_logger(__name__)
_answers: msgspec.json.Decoder[SandboxAnswer] = msgspec.json.Decoder(SandboxAnswer)


class SandboxGone(Exception):  # noqa: N818  an outcome, caught below
    """Nobody answers for the sandbox."""


class Hands:
    """Carries plans out.

    Args:
        bus: to the runners.
        model: to Claude.
        absence: seconds for which nobody may hold a sandbox.
    """

    def __init__(self, bus: Bus, model: Model, absence: float = ABSENCE) -> None:
        self._bus = bus
        self._model = model
        self._absence = absence

    async def __call__(self, plan: Plan, heard: Recorded) -> Sequence[f.AnyFact]:
        """The facts that came of ``plan``; ``Later`` or ``Refused`` if it could not be carried out."""
        match plan:
            case TakeTurn():
                return [await self._take_turn(plan)]
            case RunTools():
                return [await self._run_tools(plan, heard)]
            case AskPerson(turn=turn, tool_use_id=identity, question=question):
                return [f.QuestionAsked(turn=turn, tool_use_id=identity, question=question)]
            case GiveAnswer(turn=turn, text=text):
                return [f.AnswerGiven(turn=turn, text=text)]
            case Propose():
                return [f.SolutionProposed(**msgspec.structs.asdict(plan))]
            case GiveUp(kind=kind, why=why):
                return [f.RunFailed(stage="agent", kind=kind, why=why)]
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
            stored = await self._question(plan.sandbox_id, Checkpoint(id=f"{prefix}-checkpoint"))
        except SandboxGone as gone:
            return f.SandboxLost(sandbox_id=plan.sandbox_id, generation=plan.generation, why=str(gone))
        if not isinstance(stored, Checkpointed):
            raise Later(f"the checkpoint failed: {getattr(stored, 'why', stored)}", kind="checkpoint_failed")
        reference = ChangeRef(digest=stored.digest, tree=stored.tree, files=stored.files, size=stored.size)
        return f.ToolsRan(turn=plan.turn, results=_fitted(outcomes), checkpoint=reference)

    async def _call(self, sandbox_id: str, prefix: str, use: dict[str, Any]) -> f.ToolOutcome:
        call = ToolCall(
            id=f"{prefix}-{use['id']}", name=use["name"], input=use["input"], seconds=COMMAND_SECONDS
        )
        answer = await self._question(sandbox_id, call)
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

    async def _question(self, sandbox_id: str, question: SandboxQuestion) -> SandboxAnswer:
        """Ask until there is an answer; the same id makes asking again harmless."""
        body = msgspec.json.encode(question)
        silent, nobody_since = 0, 0.0
        while True:
            try:
                answer = _answers.decode(await self._bus.ask(sandbox_subject(sandbox_id), body, timeout=10))
            except Later as error:
                if error.kind == "log_unavailable":
                    raise
                if error.kind == "no_responders":
                    nobody_since = nobody_since or time.monotonic()
                    if time.monotonic() - nobody_since < self._absence:
                        await asyncio.sleep(_PAUSE)
                        continue
                silent += 1
                if error.kind == "no_responders" or silent >= SILENCE:
                    raise SandboxGone(str(error)) from error
                continue
            silent, nobody_since = 0, 0.0
            match answer:
                case Running():
                    await asyncio.sleep(0)
                case Failed(lost=True):
                    raise SandboxGone(answer.why)
                case _:
                    return answer


def _no_such_tool(use: dict[str, Any]) -> f.ToolOutcome:
    names = ", ".join(sorted(EVERYWHERE))
    return f.ToolOutcome(
        tool_use_id=use["id"],
        name=str(use["name"]),
        content=f"There is no such tool. There are: {names}.",
        is_error=True,
    )


def _fitted(outcomes: list[f.ToolOutcome]) -> tuple[f.ToolOutcome, ...]:
    """The results within the room of one fact: long ones keep their head and tail."""
    share = BATCH_BYTES // max(len(outcomes), 1)
    return tuple(_cut(outcome, share) for outcome in outcomes)


def _cut(outcome: f.ToolOutcome, share: int) -> f.ToolOutcome:
    # JSON can need six bytes for one control character; measuring what will be stored is exact.
    if len(msgspec.json.encode(outcome.content)) <= share:
        return outcome
    half = share // 12
    left_out = len(outcome.content) - 2 * half
    content = f"{outcome.content[:half]}\n[{left_out} characters left out]\n{outcome.content[-half:]}"
    return msgspec.structs.replace(outcome, content=content, omitted=outcome.omitted + left_out)
