"""The sandboxes that this runner holds, and their answers to tool calls."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import structlog

from contracts.change import encode_change, reference
from contracts.envelope import RunKey
from contracts.subjects import sandbox_subject
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
from services.kit.errors import Later, MillraceError
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.room import Room
from services.sandbox_runner.sandbox import SandboxGone

LOST_SECONDS = 120.0
"""How long a sandbox that is gone is said to be gone; then nobody answers for it."""
PATIENCE = 5.0
"""Seconds a question waits for its answer before ``Running`` is said; the asker waits 10."""

logger = structlog.get_logger(__name__)
_questions: msgspec.json.Decoder[SandboxQuestion] = msgspec.json.Decoder(SandboxQuestion)


class Held:
    """One sandbox with its subject. A question's id is its identity: the first answer stands."""

    def __init__(self, bus: Bus, sandbox_id: str, box: PodmanSandbox, base: str, key: RunKey) -> None:
        self._bus = bus
        self.sandbox_id = sandbox_id
        self.box = box
        self.key = key
        self.since = time.monotonic()
        self.confirmed = False
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
    """All sandboxes of this runner.

    Args:
        room: how many there may be, and who is next.
        is_ours: whether the log names this runner as the one that holds a sandbox. Two runners may have
            prepared the same one, because the first was taken for dead: only one of them may answer.
    """

    def __init__(self, bus: Bus, room: Room, is_ours: Callable[[RunKey, str], Awaitable[bool]]) -> None:
        self._bus = bus
        self.room = room
        self._is_ours = is_ours
        self._held: dict[str, tuple[Held, AsyncExitStack]] = {}
        self._lost: dict[str, tuple[float, AsyncExitStack]] = {}
        self._removals: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the sandboxes held."""
        return tuple(sorted(self._held))

    def held(self) -> list[Held]:
        """The sandboxes held."""
        return [held for held, _ in self._held.values()]

    async def put(self, sandbox_id: str, box: PodmanSandbox, base: str, key: RunKey) -> None:
        """Hold a prepared sandbox and answer for it from now on."""
        await self.drop(sandbox_id, leave=False)
        await self._stop_telling(sandbox_id)
        self.room.add(sandbox_id, key.repository_id)
        held, stack = Held(self._bus, sandbox_id, box, base, key), AsyncExitStack()
        await stack.enter_async_context(
            self._bus.answering(sandbox_subject(sandbox_id), lambda body: self._answer(held, body))
        )
        self._held[sandbox_id] = (held, stack)

    async def drop(self, sandbox_id: str, *, leave: bool = True) -> None:
        """Stop answering for it and remove it; nothing happens if it is not held.

        Args:
            leave: give its room to the next in the queue.
        """
        held, stack = self._held.pop(sandbox_id, (None, None))
        if held is None or stack is None:
            return
        await stack.aclose()
        if leave:
            self.room.leave(sandbox_id)
        try:
            await held.box.release()
        except MillraceError as error:  # the reaper comes again
            logger.warning("a sandbox was not removed", sandbox=sandbox_id, error=str(error))

    async def tell_lost(self, sandbox_id: str) -> None:
        """From now on say that this sandbox is gone, so that nobody waits for a runner to come back."""
        if sandbox_id in self._lost or sandbox_id in self._held:
            return
        stack = AsyncExitStack()
        self._lost[sandbox_id] = time.monotonic(), stack
        await stack.enter_async_context(self._bus.answering(sandbox_subject(sandbox_id), _it_is_lost))

    async def forget_lost(self) -> None:
        """Stop answering for what was lost so long ago that whoever asks has been told."""
        for sandbox_id, (since, _) in list(self._lost.items()):
            if time.monotonic() - since > LOST_SECONDS:
                await self._stop_telling(sandbox_id)

    async def _stop_telling(self, sandbox_id: str) -> None:
        _, stack = self._lost.pop(sandbox_id, (0.0, None))
        if stack is not None:
            await stack.aclose()

    async def clear(self) -> None:
        """Remove everything."""
        await asyncio.gather(*(self.drop(name) for name in self.names))

    async def _answer(self, held: Held, body: bytes) -> bytes | None:
        try:
            ours = await self._confirmed(held)
        except Later:  # the log is away; the asker asks again
            return msgspec.json.encode(Running(id=_identity(body)))
        if not ours:
            logger.warning("a sandbox that the log does not name as ours", sandbox=held.sandbox_id)
            self._remove(held, lost=False)
            return None
        answer = await held.answer(body)
        said = msgspec.json.decode(answer)
        if said["type"] == "released" or said.get("lost"):
            self._remove(held, lost=said["type"] != "released")
        return answer

    async def _confirmed(self, held: Held) -> bool:
        """Once somebody asks, the log has said whose sandbox it is; the answer is remembered."""
        if not held.confirmed:
            held.confirmed = await self._is_ours(held.key, held.sandbox_id)
        return held.confirmed

    def _remove(self, held: Held, *, lost: bool) -> None:
        async def remove() -> None:
            if self._held.get(held.sandbox_id, (None, None))[0] is held:  # not one that replaced it
                await self.drop(held.sandbox_id)
                if lost:
                    await self.tell_lost(held.sandbox_id)

        task = asyncio.create_task(remove())
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)


async def _it_is_lost(body: bytes) -> bytes:
    return msgspec.json.encode(Failed(id=_identity(body), why="the sandbox is gone", lost=True))


def _identity(body: bytes) -> str:
    try:
        return _questions.decode(body).id
    except msgspec.DecodeError:
        return ""
