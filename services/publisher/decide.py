"""What the publisher does about a fact. Pure: words and names are settled here, nothing is written yet."""

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef
from services.publisher import words
from services.publisher.state import Active, Run


class PostProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The run's one comment."""

    request: f.RunRequested


class EditProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The same comment with news; ``needed`` edits wait for their turn, others may be left out."""

    request: f.RunRequested
    comment_id: int
    text: str
    needed: bool = False


class PublishCommit(msgspec.Struct, frozen=True, kw_only=True):
    """The verified tree as a commit on the run's branch."""

    request: f.RunRequested
    base: str
    change: ChangeRef
    message: str


class OpenPullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The draft pull request."""

    request: f.RunRequested
    commit: f.CommitPublished
    base_ref: str
    title: str
    body: str


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The comment's last state."""

    request: f.RunRequested
    comment_id: int | None
    outcome: f.Outcome
    text: str
    why: str = ""
    pull_request_url: str = ""


Plan = PostProgress | EditProgress | PublishCommit | OpenPullRequest | Finish


def decide(run: Run, fact: f.AnyFact) -> list[Plan]:
    """The one plan that is due, if any: an end first, then publication, then news."""
    match run:
        case Active(
            pull_request=f.PullRequestOpened() as opened, verification=f.VerificationFinished() as seen
        ):
            # Also when it was cancelled or failed afterwards: the pull request is what there is to tell.
            text = words.pull_request_is_open(opened, seen)
            return [_finish(run, "pull_request", text, url=opened.url)]
        case Active(cancellation=f.RunCancelled() as cancelled):
            return [_finish(run, "cancelled", words.cancelled(cancelled, run.commit), why=cancelled.why)]
        case Active(failure=f.RunFailed() as failed):
            text = words.failed(failed, run.turn, run.cost, run.commit)
            return [_finish(run, "failed", text, why=failed.why)]
        case Active(answer=f.AnswerGiven() as answer):
            return [_finish(run, "answer", words.answered(answer))]
        case Active(verification=f.VerificationFinished() as seen, proposal=f.SolutionProposed() as proposal):
            return _verified(run, fact, seen, proposal)
        case Active():
            return _news(run, fact)
        case _:
            return []


def _verified(
    run: Active, fact: f.AnyFact, seen: f.VerificationFinished, proposal: f.SolutionProposed
) -> list[Plan]:
    if seen.verdict == "unchanged":
        return [_finish(run, "unchanged", words.unchanged(proposal, seen.reason))]
    if seen.verdict in ("refused", "failed") and not proposal.last:
        return _news(run, fact)  # the agent goes on
    if seen.verdict == "refused":
        return [_finish(run, "failed", words.refused(seen, proposal), why=seen.reason)]
    if run.base is None:
        return []
    if run.commit is None:
        message = words.commit_message(run.request, proposal)
        return [PublishCommit(request=run.request, base=run.base.base, change=seen.change, message=message)]
    return [
        OpenPullRequest(
            request=run.request,
            commit=run.commit,
            base_ref=run.base.base_ref,
            title=words.pull_request_title(run.request, proposal),
            body=words.pull_request_body(run.request, proposal, seen, run.base.setup),
        )
    ]


def _news(run: Active, fact: f.AnyFact) -> list[Plan]:
    if run.progress is None:
        return [PostProgress(request=run.request)] if isinstance(fact, f.RunRequested) else []
    match fact:
        case f.QuestionAsked() if run.question == fact:
            return [_edit(run, words.question(fact), needed=True)]
        case f.SolutionProposed() if run.proposal == fact and run.verification is None:
            return [_edit(run, words.verifying(fact))]
        case f.TurnTaken(turn=turn) if run.turn == fact and (
            run.proposal is None or run.proposal.turn < turn
        ):
            return [_edit(run, words.working(fact, run.cost))]
        case _:
            return []


def _edit(run: Active, text: str, *, needed: bool = False) -> EditProgress:
    comment_id = run.progress.comment_id if run.progress else 0
    return EditProgress(request=run.request, comment_id=comment_id, text=text, needed=needed)


def _finish(run: Active, outcome: f.Outcome, text: str, *, why: str = "", url: str = "") -> Finish:
    comment_id = run.progress.comment_id if run.progress else None
    return Finish(
        request=run.request, comment_id=comment_id, outcome=outcome, text=text, why=why, pull_request_url=url
    )
