"""What the runner does about a fact. Pure."""

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef
from services.sandbox_runner.state import Active, Over, Run


class Prepare(msgspec.Struct, frozen=True, kw_only=True):
    """Give the run a sandbox: at ``base`` if that is settled, else at the default branch's head."""

    request: f.RunRequested
    generation: int
    base: f.SandboxReady | None
    checkpoint: ChangeRef | None


class Verify(msgspec.Struct, frozen=True, kw_only=True):
    """Find out about a proposed change in a fresh sandbox."""

    request: f.RunRequested
    attempt: int
    base: f.SandboxReady
    change: ChangeRef


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """Let whoever holds them remove the run's sandboxes of these generations."""

    generations: tuple[int, ...]


Plan = Prepare | Verify | Drop


def decide(run: Run, fact: f.AnyFact) -> list[Plan]:
    """The plans that ``fact`` makes due."""
    match run, fact:
        case Active(waiting=True), f.RunRequested() | f.SandboxLost() | f.QuestionAnswered():
            return [
                Prepare(
                    request=run.request,
                    generation=run.generation + 1,
                    base=run.first,
                    checkpoint=run.checkpoint,
                )
            ]
        case Active(live=False, waiting=False), f.QuestionAsked():
            return [Drop(generations=(run.generation,))]
        case Active(first=f.SandboxReady() as first), f.SolutionProposed(attempt=attempt) if (
            run.verified < attempt
        ):
            return [Verify(request=run.request, attempt=attempt, base=first, change=fact.change)]
        case Over(generation=generation), f.RunCancelled() | f.RunFinished():
            # One more than was recorded: a sandbox may have been prepared while the run ended.
            return [Drop(generations=tuple(range(1, generation + 2)))]
        case _:
            return []


def sandbox_id(run: str, generation: int) -> str:
    """The name of a run's n-th sandbox; a repeated preparation replaces what it left behind."""
    return f"{run.lower()}-{generation}"
