"""Every fact of a run, top to bottom in the order in which one run produces them.

A fact is something that happened; it is never changed and never taken back. Its tag is its kind and
version: a new field has a default, a new meaning gets a new tag and an upcaster (``contracts.upcast``).
Who produces and who consumes a kind stands in ``contracts.registry``. Money is in millionths of a US
dollar, time in seconds, sizes in bytes. Text was written by strangers unless it says otherwise.
"""

from typing import Any, Literal

import msgspec

from contracts.change import ChangeRef


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all facts; each has a tag such as ``run.requested.v1``."""


# --- values that several facts carry -----------------------------------------------------------------


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A GitHub account: the numeric id is who it is, the login only what it is called today."""

    id: int
    login: str


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A GitHub repository as the trigger named it; ``id`` survives renames."""

    id: int
    full_name: str
    default_branch: str = "main"
    private: bool = False


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """The issue as it was signed at the trigger; later edits do not change it."""

    number: int
    title: str
    body: str = ""
    author: Person
    url: str = ""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What started the run, and the permission GitHub reported for that person at that moment."""

    kind: Literal["opened", "comment", "label", "operator"]
    actor: Person
    permission: str
    text: str = ""
    comment_id: int | None = None
    delivery: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A file of instructions from the base branch, cut to the size that the run may use."""

    path: str
    text: str
    truncated: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one model turn, named as in the Messages API."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool call of a batch gave back to the model."""

    tool_use_id: str
    name: str
    content: str
    is_error: bool = False
    exit_code: int | None = None
    seconds: float = 0.0
    omitted: int = 0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One command run on exactly ``tree`` in a fresh sandbox. ``exit_code`` is None if it timed out."""

    command: str
    tree: str
    exit_code: int | None
    seconds: float
    output: str
    omitted: int = 0


class ChangedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A path of the change, readable (bytes that are not UTF-8 are escaped)."""

    path: str
    status: Literal["added", "modified", "deleted"]


# --- the facts ----------------------------------------------------------------------------------------


class RunRequested(Fact, frozen=True, kw_only=True, tag="run.requested.v1"):
    """Somebody who may do so asked for work on an issue."""

    app_id: int
    installation_id: int
    repository: Repository
    issue: Issue
    trigger: Trigger


class ProgressPosted(Fact, frozen=True, kw_only=True, tag="progress.posted.v1"):
    """The run's one comment exists; from now on it is edited in place."""

    comment_id: int
    url: str


class SandboxReady(Fact, frozen=True, kw_only=True, tag="sandbox.ready.v1"):
    """A sandbox holds the repository at ``base``, with the run's last checkpoint on top.

    ``generation`` counts the sandboxes of the run from 1. ``tree`` is the workspace's tree id, equal to
    the base's when nothing was restored.
    """

    sandbox_id: str
    runner: str
    generation: int
    base: str
    base_ref: str
    tree: str
    image: str
    test_command: str | None = None
    about: str = ""
    instructions: tuple[Document, ...] = ()


Engine = Literal["millrace", "claude-code"]


class TurnTaken(Fact, frozen=True, kw_only=True, tag="turn.taken.v1"):
    """The model answered. ``content`` is the answer's blocks as they go back into the next request.

    ``engine`` is the loop that asked; a run keeps the one it began with. ``asked`` is a digest of the
    request if another engine than our own wrote it: an answer that never reached it is found again by it.
    ``side`` marks what an engine asked beside the conversation: paid for, but no step of the work.
    """

    turn: int
    content: tuple[dict[str, Any], ...]
    stop_reason: str
    usage: Usage
    model: str
    cost: int
    seconds: float
    prompt: str = ""
    request_id: str = ""
    engine: Engine = "millrace"
    asked: str = ""
    side: bool = False


class ToolsRan(Fact, frozen=True, kw_only=True, tag="tools.ran.v1"):
    """The tools of one turn ran; ``checkpoint`` is the workspace afterwards."""

    turn: int
    results: tuple[ToolOutcome, ...]
    checkpoint: ChangeRef


class SandboxLost(Fact, frozen=True, kw_only=True, tag="sandbox.lost.v1"):
    """Nobody answers for the sandbox any more; the next one starts from the last checkpoint."""

    sandbox_id: str
    generation: int
    why: str


class QuestionAsked(Fact, frozen=True, kw_only=True, tag="question.asked.v1"):
    """The agent cannot go on without a person; the run is parked and costs nothing."""

    turn: int
    tool_use_id: str
    question: str


class QuestionAnswered(Fact, frozen=True, kw_only=True, tag="question.answered.v1"):
    """Somebody who may write to the repository answered the parked run."""

    answer: str
    by: Person
    comment_id: int | None = None


class AnswerGiven(Fact, frozen=True, kw_only=True, tag="answer.given.v1"):
    """The agent ended without changes: what it said is the answer."""

    turn: int
    text: str


class SolutionProposed(Fact, frozen=True, kw_only=True, tag="solution.proposed.v1"):
    """The agent submitted a change. ``last`` means that no further attempt will follow.

    ``claims`` is what the agent says it verified: shown as its words, never as evidence. ``note`` is ours:
    why the work ended here, if not because the agent was done.
    """

    turn: int
    attempt: int
    last: bool
    title: str
    summary: str
    change: ChangeRef
    claims: tuple[str, ...] = ()
    note: str = ""


class VerificationFinishedV1(Fact, frozen=True, kw_only=True, tag="verification.finished.v1"):
    """The first form: one command, passed or not. Read through ``contracts.upcast``, never written."""

    attempt: int
    passed: bool
    command: str
    exit_code: int
    tree: str
    change: ChangeRef
    output: str = ""
    seconds: float = 0.0


Verdict = Literal["passed", "failed", "untested", "unchanged", "refused"]


class VerificationFinished(Fact, frozen=True, kw_only=True, tag="verification.finished.v2"):
    """What Millrace itself found out about the proposed change, on exactly the tree to be published.

    ``checks`` are on the final tree. When they failed, ``base_checks`` are the same commands on the base,
    so that a failure that was there before is told apart. ``reason`` explains ``refused``.
    """

    attempt: int
    verdict: Verdict
    change: ChangeRef
    files: tuple[ChangedFile, ...] = ()
    checks: tuple[Check, ...] = ()
    base_checks: tuple[Check, ...] = ()
    reason: str = ""


class CommitPublished(Fact, frozen=True, kw_only=True, tag="commit.published.v1"):
    """The verified tree is a commit on the run's branch at GitHub."""

    branch: str
    commit: str
    tree: str


class PullRequestOpened(Fact, frozen=True, kw_only=True, tag="pull_request.opened.v1"):
    """The pull request exists."""

    number: int
    url: str
    branch: str
    commit: str
    draft: bool


class RunFailed(Fact, frozen=True, kw_only=True, tag="run.failed.v1"):
    """A service gave up. ``kind`` is a stable name, ``why`` a sentence for people without secrets."""

    stage: Literal["sandbox", "agent", "verification", "publication"]
    kind: str
    why: str


class RunCancelled(Fact, frozen=True, kw_only=True, tag="run.cancelled.v1"):
    """A person stopped the run, or closed its issue."""

    by: Person
    why: str


Outcome = Literal["pull_request", "answer", "unchanged", "failed", "cancelled"]


class RunFinished(Fact, frozen=True, kw_only=True, tag="run.finished.v1"):
    """The end, already told on the issue. ``uncommented`` says why telling was impossible."""

    outcome: Outcome
    why: str = ""
    comment_url: str = ""
    pull_request_url: str = ""
    uncommented: str = ""


AnyFact = (
    RunRequested
    | ProgressPosted
    | SandboxReady
    | TurnTaken
    | ToolsRan
    | SandboxLost
    | QuestionAsked
    | QuestionAnswered
    | AnswerGiven
    | SolutionProposed
    | VerificationFinished
    | CommitPublished
    | PullRequestOpened
    | RunFailed
    | RunCancelled
    | RunFinished
)
"""The facts that services write and fold: the current version of each kind."""
