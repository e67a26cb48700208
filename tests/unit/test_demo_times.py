"""Where a run's time went, told from its events."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.cli.demo_times import TOTAL, Span, spans

SENT = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: str, seconds: float, **data: Any) -> dict[str, Any]:
    return {
        "type": f"dev.millrace.{kind}.v1",
        "time": (SENT + timedelta(seconds=seconds)).isoformat(),
        "data": data,
    }


def test_steps_follow_each_other_and_the_first_comment_stands_beside() -> None:
    events = [
        event("run.requested", 1),
        event("progress.posted", 2),
        event("sandbox.ready", 3),
        event("turn.taken", 4, turn=1),
        event("tools.ran", 5, turn=1),
        event("solution.proposed", 6),
        event("verification.finished", 7),
        event("commit.published", 8),
        event("pull_request.opened", 9),
        event("run.finished", 10),
    ]

    assert spans(SENT, SENT + timedelta(seconds=0.5), events) == [
        Span("webhook answered with 202", 0, 0.5),
        Span("recorded as a run", 0.5, 1),
        Span("first comment", 1, 2),
        Span("clone and sandbox", 1, 3),
        Span("turn 1", 3, 4),
        Span("turn 1: tools", 4, 5),
        Span("verified in a fresh sandbox", 6, 7),
        Span("branch and commit", 7, 8),
        Span("pull request", 8, 9),
        Span("final comment", 9, 10),
        Span(TOTAL, 0, 9),
    ]


def test_without_a_pull_request_there_is_no_total() -> None:
    found = spans(SENT, SENT, [event("run.requested", 1), event("run.finished", 2)])
    assert [span.name for span in found][-1] == "final comment"
