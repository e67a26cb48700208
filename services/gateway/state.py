"""An issue as the gateway sees it, folded from the facts of all its runs. Pure."""

import msgspec

from contracts import facts as f


class Quiet(msgspec.Struct, frozen=True):
    """No run is going on; ``runs`` are the ids of those that were."""

    runs: frozenset[str] = frozenset()


class Busy(msgspec.Struct, frozen=True):
    """A run is going on."""

    run: str
    runs: frozenset[str]
    cancelled: bool = False


class Parked(msgspec.Struct, frozen=True):
    """A run waits for an answer."""

    run: str
    runs: frozenset[str]
    question: f.QuestionAsked


Issue = Quiet | Busy | Parked
START: Issue = Quiet()


def evolve(issue: Issue, run: str, fact: f.AnyFact) -> Issue:
    """The issue after one more fact of one of its runs; facts of runs that ended change nothing."""
    match issue, fact:
        case Quiet(runs=runs), f.RunRequested():
            return Busy(run, runs | {run})
        case Busy(run=active) | Parked(run=active), _ if active != run:
            return issue
        case Busy(runs=runs) | Parked(runs=runs), f.RunFinished():
            return Quiet(runs)
        case Busy(runs=runs) | Parked(runs=runs), f.RunCancelled():
            return Busy(run, runs, cancelled=True)
        case Busy(runs=runs, cancelled=False), f.QuestionAsked():
            return Parked(run, runs, fact)
        case Parked(runs=runs), f.QuestionAnswered() | f.RunFailed():
            return Busy(run, runs)
        case _:
            return issue
