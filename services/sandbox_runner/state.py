"""The run as the runner sees it, folded from facts. Pure."""

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef


class Idle(msgspec.Struct, frozen=True):
    """Nothing was asked yet."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """A run that may need a sandbox.

    ``generation`` counts the sandboxes so far; ``live`` says whether the last one is still wanted.
    ``waiting`` says that a new one is due; ``checkpoint`` is what it starts from.
    """

    request: f.RunRequested
    generation: int = 0
    live: bool = False
    waiting: bool = True
    first: f.SandboxReady | None = None
    checkpoint: ChangeRef | None = None
    proposal: f.SolutionProposed | None = None
    verified: int = 0


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """The run needs nothing any more; sandboxes up to ``generation`` may exist."""

    generation: int


Run = Idle | Active | Over
START: Run = Idle()


def evolve(run: Run, fact: f.AnyFact) -> Run:
    """The run after one more fact."""
    replace = msgspec.structs.replace
    match run, fact:
        case Idle(), f.RunRequested():
            return Active(request=fact)
        case Active(), f.SandboxReady(generation=generation) if generation > run.generation:
            first = run.first or fact
            return replace(run, generation=generation, live=True, waiting=False, first=first)
        case Active(), f.SandboxLost(generation=generation) if generation == run.generation:
            return replace(run, live=False, waiting=True)
        case Active(), f.ToolsRan(checkpoint=checkpoint):
            return replace(run, checkpoint=checkpoint)
        case Active(), f.QuestionAsked():
            return replace(run, live=False)
        case Active(live=False, waiting=False), f.QuestionAnswered():
            # Only a parked run: a second answer must not replace the sandbox that the agent works in.
            return replace(run, waiting=True)
        case Active(), f.SolutionProposed():
            return replace(run, proposal=fact)
        case Active(), f.VerificationFinished(attempt=attempt):
            return replace(run, verified=max(run.verified, attempt))
        case Active(generation=generation), f.RunFailed() | f.RunCancelled() | f.RunFinished():
            return Over(generation=generation)
        case _:
            return run
