"""A sandbox as the agent reaches it: questions to whoever holds it, asked until there is an answer."""

import asyncio

import msgspec

from contracts.change import ChangeRef
from contracts.subjects import sandbox_subject
from contracts.tools import Checkpoint, Checkpointed, Failed, Running, SandboxAnswer, SandboxQuestion
from services.kit.bus import Bus
from services.kit.errors import Later

SILENCE = 3
"""Unanswered questions in a row after which a sandbox counts as lost."""

_answers: msgspec.json.Decoder[SandboxAnswer] = msgspec.json.Decoder(SandboxAnswer)


class SandboxGone(Exception):  # noqa: N818  an outcome, which becomes a fact
    """Nobody answers for the sandbox."""


class Sandboxes:
    """All sandboxes, by their ids."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ask(self, sandbox_id: str, question: SandboxQuestion) -> SandboxAnswer:
        """Ask until there is an answer; the same id makes asking again harmless.

        Raises:
            SandboxGone: nobody answers for it.
            Later: NATS is away.
        """
        body = msgspec.json.encode(question)
        while True:
            answer = _answers.decode(await self.reach(sandbox_subject(sandbox_id), body))
            match answer:
                case Running():
                    await asyncio.sleep(0)
                case Failed(lost=True):
                    raise SandboxGone(answer.why)
                case _:
                    return answer

    async def reach(self, subject: str, body: bytes) -> bytes:
        """One answer; a lost one is asked for again."""
        silent = 0
        while True:
            try:
                return await self._bus.ask(subject, body, timeout=10)
            except Later as error:
                if error.kind == "log_unavailable":
                    raise
                silent += 1
                if error.kind == "no_responders" or silent >= SILENCE:
                    raise SandboxGone(str(error)) from error

    async def checkpoint(self, sandbox_id: str, call: str) -> ChangeRef:
        """Store the workspace's change; ``Later`` if the sandbox could not, ``SandboxGone`` as above."""
        stored = await self.ask(sandbox_id, Checkpoint(id=call))
        if not isinstance(stored, Checkpointed):
            raise Later(f"the checkpoint failed: {getattr(stored, 'why', stored)}", kind="checkpoint_failed")
        return ChangeRef(digest=stored.digest, tree=stored.tree, files=stored.files, size=stored.size)
