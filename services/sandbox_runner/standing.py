"""What the log says about a sandbox: whose it is, and whether anybody still wants it. Pure."""

from collections.abc import Sequence
from functools import reduce

import msgspec

from contracts import facts as f
from services.sandbox_runner.state import START, Active, evolve


class Unrecorded(msgspec.Struct, frozen=True):
    """No fact says that this sandbox is ready: its runner was killed before, or still prepares it."""


class Unwanted(msgspec.Struct, frozen=True):
    """Another runner's, or of a run that has gone on without it or is over."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The run works in it. ``base`` is the commit that its changes are counted from."""

    base: str


Standing = Unrecorded | Unwanted | Wanted


def standing(history: Sequence[f.AnyFact], sandbox_id: str, runner: str) -> Standing:
    """Where a sandbox of this name, held by ``runner``, stands by its run's facts."""
    run = reduce(evolve, history, START)
    ready = [fact for fact in history if isinstance(fact, f.SandboxReady) and fact.sandbox_id == sandbox_id]
    if not isinstance(run, Active):
        return Unwanted()
    if not ready:
        return Unrecorded()
    if ready[-1].runner == runner and ready[-1].generation == run.generation and run.live:
        return Wanted(base=ready[-1].base)
    return Unwanted()


def is_named(history: Sequence[f.AnyFact], sandbox_id: str, runner: str) -> bool:
    """Whether the log says that ``runner`` holds, or held, this sandbox."""
    return any(
        isinstance(fact, f.SandboxReady) and (fact.sandbox_id, fact.runner) == (sandbox_id, runner)
        for fact in history
    )
