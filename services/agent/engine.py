"""An engine in a sandbox, led from outside: what it asks the model is judged, paid and recorded here.

Each answer is a fact before the engine sees it, and so are the results of its tools before the next is
asked for: what happened can be told from the log alone, and a replacement agent goes on from there.
"""

import asyncio
import contextlib
import re
import time
from typing import Any

import msgspec
import structlog

from contracts import facts as f
from contracts.engine import (
    PART_BYTES,
    Asked,
    EngineAnswer,
    EngineQuestion,
    Gone,
    Next,
    Part,
    Quiet,
    Read,
    Reply,
    Taken,
    Unanswerable,
)
from contracts.envelope import Recorded
from contracts.subjects import engine_subject
from contracts.tools import Release, SandboxAnswer, ToolCall, ToolResult
from services.agent.decide import GiveUp, Propose, RunEngine
from services.agent.endpoint import Endpoint, Returned
from services.agent.engine_answer import answer_again, read_answer
from services.agent.engine_request import Question, Rejected, over, read_question
from services.agent.engine_session import engine_name, invocation
from services.agent.engine_words import engine_digest
from services.agent.fit import fitted
from services.agent.sandbox import Sandboxes, SandboxGone
from services.agent.state import tool_uses
from services.kit.errors import Later, Refused
from services.kit.logs import redact

_FILE_SECONDS = 60.0
_LIFE_SECONDS = 4 * 3600.0
_MISSING = 127
_EXIT_CODE = re.compile(r"^Exit code (\d+)")

logger = structlog.get_logger(__name__)
_answers: msgspec.json.Decoder[EngineAnswer] = msgspec.json.Decoder(EngineAnswer)


class _Held(msgspec.Struct):
    """What this process knows of one sandbox's engine besides the facts; nothing that could not be lost."""

    name: str = ""
    command: str = ""
    asked: Asked | None = None
    body: bytes = b""
    digest: str = ""
    returned: Returned | None = None
    """The answer to the request of ``digest``, as it came: recorded, but perhaps not delivered."""
    delivered: float = 0.0
    """When the last answer went out (monotonic)."""


class Engines:
    """All engines that this agent leads.

    Args:
        sandboxes: the runners'.
        endpoint: the model.
    """

    def __init__(self, sandboxes: Sandboxes, endpoint: Endpoint) -> None:
        self._sandboxes = sandboxes
        self._endpoint = endpoint
        self._held: dict[str, _Held] = {}

    async def run(
        self, plan: RunEngine, heard: Recorded
    ) -> f.TurnTaken | f.ToolsRan | f.SandboxLost | Propose | GiveUp:
        """The next fact of the engine, or what a limit that was met leaves to do.

        Raises:
            Later: the model may answer on another try; the engine's request waits.
            Refused: the model will not, or the sandbox has no such engine.
        """
        held = self._held.setdefault(plan.sandbox_id, _Held())
        prefix = f"{heard.key.run}-{plan.generation}"
        limit = asyncio.timeout(plan.room.seconds)
        try:
            async with limit:
                return await self._until_a_fact(plan, held, heard.key.run)
        except TimeoutError:
            if not limit.expired():
                raise
            return plan.over["budget_time"]
        except Refused:
            self._held.pop(plan.sandbox_id, None)
            raise
        except SandboxGone as gone:
            self._held.pop(plan.sandbox_id, None)
            with contextlib.suppress(SandboxGone):  # where it is there still, it must not hold a place
                await self._sandboxes.ask(plan.sandbox_id, Release(id=f"{prefix}-release"))
            return f.SandboxLost(sandbox_id=plan.sandbox_id, generation=plan.generation, why=str(gone))

    async def end(self, sandbox_id: str, call: str) -> None:
        """End the engine in a sandbox and everything it started; the sandbox stays."""
        self._held.pop(sandbox_id, None)
        restart = ToolCall(id=call, name="bash", input={"restart": True}, seconds=_FILE_SECONDS)
        await self._sandboxes.ask(sandbox_id, restart)

    async def _until_a_fact(
        self, plan: RunEngine, held: _Held, run: str
    ) -> f.TurnTaken | f.ToolsRan | Propose | GiveUp:
        call = await self._begun(plan, held, run)
        life = asyncio.create_task(self._sandboxes.ask(plan.sandbox_id, call))
        try:
            while True:
                asking = asyncio.create_task(self._next(plan.sandbox_id, held))
                try:
                    await asyncio.wait({life, asking}, return_when=asyncio.FIRST_COMPLETED)
                    if life.done():
                        raise _ended(life.result())
                    asked = asking.result()
                finally:
                    asking.cancel()
                if asked is None:
                    continue
                outcome = await self._heard(plan, held, asked, run)
                if outcome is not None:
                    return outcome
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    async def _begun(self, plan: RunEngine, held: _Held, run: str) -> ToolCall:
        """The call that runs the engine, made now if it was not: asked again it is the same."""
        name = engine_name(run, plan.generation, plan.work.attempts)
        if held.name != name:
            begin = invocation(plan.work, name, plan.model)
            for number, command in enumerate(begin.files):
                call = ToolCall(
                    id=f"{name}-file-{number}", name="bash", input={"command": command}, seconds=_FILE_SECONDS
                )
                answer = await self._sandboxes.ask(plan.sandbox_id, call)
                if not isinstance(answer, ToolResult) or answer.exit_code:
                    raise SandboxGone(f"the engine could not be given its files: {_last_words(answer)}")
            held.name, held.command, held.delivered = name, begin.command, time.monotonic()
        return ToolCall(id=name, name="bash", input={"command": held.command}, seconds=_LIFE_SECONDS)

    # --- requests ------------------------------------------------------------------------------------------

    async def _heard(
        self, plan: RunEngine, held: _Held, asked: Asked, run: str
    ) -> f.TurnTaken | f.ToolsRan | Propose | GiveUp | None:
        """What comes of one request: a fact, a limit, or None if it was answered without."""
        question = read_question(asked, held.body, plan.model)
        if isinstance(question, Rejected):
            logger.warning("an engine's request was rejected", sandbox=plan.sandbox_id, why=question.why)
            await self._reject(plan.sandbox_id, asked, question)
            return None
        recorded = next((turn for turn in plan.work.turns if turn.asked == question.digest), None)
        if recorded is not None:
            await self._deliver(plan.sandbox_id, held, asked, question, recorded)
            return None
        last = plan.work.steps[-1] if plan.work.steps else None
        if last is not None and tool_uses(last) and not plan.work.settled and not question.side:
            if not question.knows(last):  # it was started anew: this turn is bought already
                await self._deliver(plan.sandbox_id, held, asked, question, last)
                return None
            return await self._tools_ran(plan, held, question, last, run)
        kind = over(question, plan.room)
        if kind:
            return plan.over[kind]
        if question.counts:
            returned = await self._endpoint.ask(question)
            await self._send(plan.sandbox_id, asked, returned.headers, returned.body)
            return None
        return await self._take_turn(plan, held, question)

    async def _take_turn(self, plan: RunEngine, held: _Held, question: Question) -> f.TurnTaken:
        begun = time.monotonic()
        returned = await self._endpoint.ask(question)
        answer = read_answer(returned.kind, returned.body, question.model)
        held.digest, held.returned = question.digest, returned
        if answer.stop_reason != "tool_use" and not question.side:  # most likely its last
            held.asked, held.body = None, b""
        return f.TurnTaken(
            turn=plan.turn,
            content=answer.content,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            model=answer.model,
            cost=answer.cost,
            seconds=round(time.monotonic() - begun, 3),
            prompt=engine_digest(),
            request_id=returned.headers.get("request-id", ""),
            engine="claude-code",
            asked=question.digest,
            side=question.side,
        )

    async def _tools_ran(
        self, plan: RunEngine, held: _Held, question: Question, last: f.TurnTaken, run: str
    ) -> f.ToolsRan:
        """The results as the engine gives them to the model, and the workspace while it waits for that."""
        uses = tool_uses(last)
        # One conversation, one time: how it was divided among calls that ran together is not known.
        seconds = round((time.monotonic() - held.delivered) / len(uses), 3) if held.delivered else 0.0
        checkpoint = await self._sandboxes.checkpoint(
            plan.sandbox_id, f"{run}-{plan.generation}-{last.turn}-checkpoint"
        )
        outcomes = [_outcome(use, question.results.get(use["id"]), seconds) for use in uses]
        return f.ToolsRan(turn=last.turn, results=fitted(outcomes), checkpoint=checkpoint)

    async def _deliver(
        self, sandbox_id: str, held: _Held, asked: Asked, question: Question, turn: f.TurnTaken
    ) -> None:
        if held.returned is not None and held.digest == question.digest:
            headers, body = held.returned.headers, held.returned.body
        else:
            kind, body = answer_again(turn, stream=question.stream)
            headers = {"content-type": kind}
        await self._send(sandbox_id, asked, headers, body)
        held.returned, held.delivered = None, time.monotonic()

    async def _reject(self, sandbox_id: str, asked: Asked, rejected: Rejected) -> None:
        kind = "not_found_error" if rejected.status == 404 else "invalid_request_error"
        body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": rejected.why}})
        await self._send(sandbox_id, asked, {"content-type": "application/json"}, body, rejected.status)

    # --- the runner ----------------------------------------------------------------------------------------

    async def _next(self, sandbox_id: str, held: _Held) -> Asked | None:
        """The request that waits, its body in ``held``; None if there is none, or it went away."""
        known = held.asked.request if held.asked is not None else ""
        asked = await self._ask(sandbox_id, Next(known=known))
        if not isinstance(asked, Asked):
            return None
        if asked.request != known:
            body = bytearray(asked.data)
            while len(body) < asked.size:
                part = await self._ask(sandbox_id, Read(request=asked.request, at=len(body)))
                if not isinstance(part, Part) or not part.data:
                    return None
                body += part.data
            held.asked, held.body = asked, bytes(body)
        return asked

    async def _send(
        self, sandbox_id: str, asked: Asked, headers: dict[str, str], body: bytes, status: int = 200
    ) -> None:
        for at in range(0, len(body) or 1, PART_BYTES):
            data = body[at : at + PART_BYTES]
            part = Reply(
                request=asked.request,
                status=status,
                headers=headers,
                at=at,
                data=data,
                last=at + len(data) >= len(body),
            )
            if isinstance(await self._ask(sandbox_id, part), Gone):
                return  # it hung up; if it asks again, the record answers

    async def _ask(self, sandbox_id: str, question: EngineQuestion) -> Asked | Part | Quiet | Taken | Gone:
        body = msgspec.json.encode(question)
        answer = _answers.decode(await self._sandboxes.reach(engine_subject(sandbox_id), body))
        if isinstance(answer, Unanswerable):
            raise Later(f"the runner does not listen to the engine: {answer.why}", kind="engine_unreachable")
        return answer


def _outcome(use: dict[str, Any], result: tuple[str, bool] | None, seconds: float) -> f.ToolOutcome:
    text, is_error = result or ("This call was not carried out.", True)
    exit_code = None
    if use["name"] == "Bash" and result is not None:
        found = _EXIT_CODE.match(text)
        exit_code = int(found[1]) if found and is_error else None if is_error else 0
    return f.ToolOutcome(
        tool_use_id=use["id"],
        name=str(use["name"]),
        content=text,
        is_error=is_error,
        exit_code=exit_code,
        seconds=seconds,
    )


def _ended(answer: SandboxAnswer) -> SandboxGone | Refused:
    """An engine that ended before it was done: another sandbox goes on from the last checkpoint."""
    words = _last_words(answer)
    code = answer.exit_code if isinstance(answer, ToolResult) else None
    if code == _MISSING:
        return Refused(
            f"the sandbox's image has no Claude Code ({words}): unset MILLRACE_SANDBOX_IMAGE, or name an"
            " image that has `claude`",
            kind="engine_missing",
        )
    return SandboxGone(f"the engine ended too early (exit code {code}): {words}")


def _last_words(answer: SandboxAnswer) -> str:
    """Why, in its own words; they were written inside a sandbox."""
    said = answer.content if isinstance(answer, ToolResult) else str(getattr(answer, "why", ""))
    with contextlib.suppress(msgspec.DecodeError):
        said = msgspec.json.decode(said.strip().splitlines()[-1], type=_Result).result if said.strip() else ""
    return redact(" ".join(said.split()))[-300:] or "it said nothing"


class _Result(msgspec.Struct):
    """The last line of ``--output-format json``."""

    result: str
