"""How long each step of a run took, from its events (pure)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

TOTAL = "webhook to pull request"


class Span(NamedTuple):
    """A step; seconds count from when the webhook left."""

    name: str
    start: float
    end: float


def spans(sent: datetime, accepted: datetime, events: Sequence[dict[str, Any]]) -> list[Span]:
    """The steps in the order of their ends, and the way from webhook to pull request as the last.

    Args:
        sent: when the webhook left.
        accepted: when it was answered with 202.
        events: one run's, as the history gives them.
    """
    found = [Span("webhook answered with 202", 0.0, (accepted - sent).total_seconds())]
    last = requested = found[0].end
    total: Span | None = None
    for event in events:
        at = (datetime.fromisoformat(event["time"]) - sent).total_seconds()
        data = event["data"]
        match event["type"].removeprefix("dev.millrace.").rpartition(".v")[0]:
            case "run.requested":
                found.append(Span("recorded as a run", last, at))
                requested = at
            case "progress.posted":
                found.append(Span("first comment", requested, at))
                continue  # beside the path: nothing waits for it
            case "sandbox.ready":
                found.append(Span("clone and sandbox", last, at))
            case "turn.taken":
                found.append(Span(f"turn {data['turn']}", last, at))
            case "tools.ran":
                found.append(Span(f"turn {data['turn']}: tools", last, at))
            case "verification.finished":
                found.append(Span("verified in a fresh sandbox", last, at))
            case "commit.published":
                found.append(Span("branch and commit", last, at))
            case "pull_request.opened":
                found.append(Span("pull request", last, at))
                total = Span(TOTAL, 0.0, at)
            case "run.finished":
                found.append(Span("final comment", last, at))
        last = at
    return [*found, total] if total else found
