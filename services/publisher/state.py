"""The run as the publisher sees it, folded from facts. Pure."""

import msgspec

from contracts import facts as f


class Idle(msgspec.Struct, frozen=True):
    """Nothing was asked yet."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """A run that people wait for."""

    request: f.RunRequested
    progress: f.ProgressPosted | None = None
    base: f.SandboxReady | None = None
    turn: f.TurnTaken | None = None
    cost: int = 0
    question: f.QuestionAsked | None = None
    answer: f.AnswerGiven | None = None
    proposal: f.SolutionProposed | None = None
    verification: f.VerificationFinished | None = None
    commit: f.CommitPublished | None = None
    pull_request: f.PullRequestOpened | None = None
    failure: f.RunFailed | None = None
    cancellation: f.RunCancelled | None = None

    @property
    def attempt(self) -> int:
        """The newest proposal's number; 0 before the first."""
        return self.proposal.attempt if self.proposal else 0


class Finished(msgspec.Struct, frozen=True):
    """The final comment stands."""


Run = Idle | Active | Finished
START: Run = Idle()


def evolve(run: Run, fact: f.AnyFact) -> Run:  # noqa: C901  one line per kind of fact
    """The run after one more fact; what is repeated or about another attempt changes nothing."""
    replace = msgspec.structs.replace
    match run, fact:
        case Idle(), f.RunRequested():
            return Active(request=fact)
        case Active(), f.RunFinished():
            return Finished()
        case Active(), f.ProgressPosted():
            return replace(run, progress=fact)
        case Active(), f.SandboxReady():
            return replace(run, base=run.base or fact)
        case Active(), f.TurnTaken(turn=turn) if run.turn is None or turn > run.turn.turn:
            return replace(run, turn=fact, cost=run.cost + fact.cost)
        case Active(), f.QuestionAsked():
            return replace(run, question=fact)
        case Active(), f.QuestionAnswered():
            return replace(run, question=None)
        case Active(), f.AnswerGiven():
            return replace(run, answer=fact)
        case Active(), f.SolutionProposed(attempt=attempt) if attempt > run.attempt:
            return replace(run, proposal=fact, verification=None)
        case Active(), f.VerificationFinished(attempt=attempt) if attempt == run.attempt:
            return replace(run, verification=fact)
        case Active(), f.CommitPublished():
            return replace(run, commit=fact)
        case Active(), f.PullRequestOpened():
            return replace(run, pull_request=fact)
        case Active(), f.RunFailed():
            return replace(run, failure=run.failure or fact)
        case Active(), f.RunCancelled():
            return replace(run, cancellation=fact)
        case _:
            return run
