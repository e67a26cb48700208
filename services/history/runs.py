"""One line per run, evolved fact by fact. Pure."""

from datetime import datetime

import msgspec

from contracts import facts as f
from contracts.envelope import RunKey


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the list of issues shows. ``cost`` in millionths of a dollar."""

    run: str
    repository_id: int
    full_name: str
    number: int
    title: str
    state: str
    requested_at: datetime
    updated_at: datetime
    outcome: str = ""
    turns: int = 0
    cost: int = 0
    pull_request_url: str = ""


_STATES: dict[type[f.Fact], str] = {
    f.SandboxReady: "working",
    f.TurnTaken: "working",  # also after a verification that failed
    f.SandboxLost: "recovering",
    f.QuestionAsked: "waiting for an answer",
    f.QuestionAnswered: "resuming",
    f.SolutionProposed: "verifying",
    f.VerificationFinished: "verified",
    f.CommitPublished: "publishing",
    f.PullRequestOpened: "publishing",
    f.AnswerGiven: "answering",
    f.RunFailed: "failing",
    f.RunCancelled: "cancelling",
    f.RunFinished: "finished",
}


def evolve(row: Row | None, key: RunKey, fact: f.AnyFact, time: datetime) -> Row | None:
    """The line after one more fact; None while the run's beginning was not seen.

    A fact that is said twice counts once, and nothing that comes after the end changes it.
    """
    if row is None:
        return _first(key, fact, time)
    if row.outcome:
        return row
    row = msgspec.structs.replace(row, updated_at=time, state=_STATES.get(type(fact), row.state))
    match fact:
        case f.TurnTaken(turn=turn, cost=cost) if turn > row.turns:
            return msgspec.structs.replace(row, turns=turn, cost=row.cost + cost)
        case f.PullRequestOpened(url=url):
            return msgspec.structs.replace(row, pull_request_url=url)
        case f.RunFinished(outcome=outcome):
            return msgspec.structs.replace(row, outcome=outcome)
        case _:
            return row


def _first(key: RunKey, fact: f.AnyFact, time: datetime) -> Row | None:
    if not isinstance(fact, f.RunRequested):
        return None
    return Row(
        run=key.run,
        repository_id=key.repository_id,
        full_name=fact.repository.full_name,
        number=key.issue,
        title=fact.issue.title,
        state="requested",
        requested_at=time,
        updated_at=time,
    )
