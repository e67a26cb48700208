"""The sandboxes that this runner holds, and their answers to tool calls."""

import asyncio
import time
from contextlib import AsyncExitStack

import msgspec
import structlog

from contracts.change import encode_change, reference
from contracts.subjects import engine_subject, sandbox_subject
from contracts.tools import (
    Checkpoint,
    Checkpointed,
    Failed,
    Release,
    Released,
    Running,
    SandboxAnswer,
    SandboxQuestion,
    ToolCall,
)
from services.kit.bus import Bus
from services.kit.errors import MillraceError
from services.sandbox_runner.door import Door
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.sandbox import SandboxGone

PATIENCE = 5.0
"""Seconds a question waits for its answer before ``Running`` is said; the asker waits 10."""

logger = structlog.get_logger(__name__)
_questions: msgspec.json.Decoder[SandboxQuestion] = msgspec.json.Decoder(SandboxQuestion)


class Held:
    """One sandbox with its subject. A question's id is its identity: the first answer stands."""

    def __init__(self, bus: Bus, sandbox_id: str, box: PodmanSandbox, base: str) -> None:
        self._bus = bus
        self.sandbox_id = sandbox_id
        self.box = box
        self._base = base
        self._asked: dict[str, asyncio.Task[SandboxAnswer]] = {}

    async def answer(self, body: bytes) -> bytes:
        """The answer to one question, or ``Running`` while there is none."""
        try:
            question = _questions.decode(body)
        except msgspec.DecodeError as error:
            return msgspec.json.encode(Failed(id="", why=f"unreadable question: {error}"))
        task = self._asked.get(question.id)
        if task is None:
            task = self._asked[question.id] = asyncio.create_task(self._carry_out(question))
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        return msgspec.json.encode(task.result() if done else Running(id=question.id))

    async def _carry_out(self, question: SandboxQuestion) -> SandboxAnswer:
        try:
            match question:
                case ToolCall():
                    return await self.box.call(question)
                case Checkpoint():
                    change = await self.box.checkpoint(self._base)
                    await self._bus.objects.put(encode_change(change))
                    ref = reference(change)
                    return Checkpointed(
                        id=question.id, digest=ref.digest, tree=ref.tree, files=ref.files, size=ref.size
                    )
                case Release():
                    return Released(id=question.id)
        except SandboxGone as error:
            return Failed(id=question.id, why=str(error), lost=True)
        except MillraceError as error:
            return Failed(id=question.id, why=str(error))


class Shelf:
    """All sandboxes of this runner; at most ``limit`` at once."""

    def __init__(self, bus: Bus, limit: int) -> None:
        self._bus = bus
        self.limit = limit
        self.started = time.monotonic()
        self._held: dict[str, tuple[Held, AsyncExitStack]] = {}
        self._promised: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the sandboxes held."""
        return tuple(sorted(self._held))

    def promise(self, sandbox_id: str) -> bool:
        """Whether there is room for one more; room stays promised until ``put`` or ``forget``."""
        if len(self._held.keys() | self._promised) >= self.limit and sandbox_id not in self._held:
            return False
        self._promised.add(sandbox_id)
        return True

    def forget(self, sandbox_id: str) -> None:
        """Give promised room back."""
        self._promised.discard(sandbox_id)

    async def put(self, sandbox_id: str, box: PodmanSandbox, base: str) -> None:
        """Hold a prepared sandbox and answer for it from now on."""
        await self.drop(sandbox_id)
        held, stack = Held(self._bus, sandbox_id, box, base), AsyncExitStack()
        await stack.enter_async_context(
            self._bus.answering(sandbox_subject(sandbox_id), lambda body: self._answer(held, body))
        )
        door = Door(box.channel_directory)
        stack.push_async_callback(door.close)
        await stack.enter_async_context(self._bus.answering(engine_subject(sandbox_id), door.answer))
        self._held[sandbox_id] = (held, stack)
        self._promised.discard(sandbox_id)

    async def drop(self, sandbox_id: str) -> None:
        """Stop answering for it and remove it; nothing happens if it is not held."""
        held, stack = self._held.pop(sandbox_id, (None, None))
        if held is None or stack is None:
            return
        await stack.aclose()
        try:
            await held.box.release()
        except MillraceError as error:
            logger.warning("a sandbox was not removed", sandbox=sandbox_id, error=str(error))

    async def clear(self) -> None:
        """Remove everything."""
        for name in self.names:
            await self.drop(name)

    async def _answer(self, held: Held, body: bytes) -> bytes:
        answer = await held.answer(body)
        if msgspec.json.decode(answer)["type"] == "released":
            self._removal = asyncio.create_task(self.drop(held.sandbox_id))
        return answer
