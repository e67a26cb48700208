"""Who produces and who consumes each kind of fact, as data, in the order of one run.

Consumers, permissions and the documentation are derived from this table; a test keeps it whole.
"""

from typing import NamedTuple, get_args

from contracts import facts as f

GATEWAY, VAULT, RUNNER = "gateway", "vault", "sandbox_runner"
AGENT, PUBLISHER, HISTORY = "agent", "publisher", "history"
SERVICES = (GATEWAY, VAULT, RUNNER, AGENT, PUBLISHER, HISTORY)
"""In the order in which an issue meets them."""


class Entry(NamedTuple):
    """One kind: its current struct, who writes it, who hears it (history archives everything besides)."""

    fact: type[f.Fact]
    producers: frozenset[str]
    consumers: frozenset[str]


def _entry(fact: type[f.Fact], producers: set[str], consumers: set[str]) -> Entry:
    return Entry(fact, frozenset(producers), frozenset(consumers | {HISTORY}))


CATALOGUE: tuple[Entry, ...] = (
    _entry(f.RunRequested, {GATEWAY}, {RUNNER, PUBLISHER}),
    _entry(f.ProgressPosted, {PUBLISHER}, set()),
    _entry(f.SandboxReady, {RUNNER}, {AGENT}),
    _entry(f.TurnTaken, {AGENT}, {PUBLISHER}),
    _entry(f.ToolsRan, {AGENT}, set()),
    _entry(f.SandboxLost, {AGENT}, {RUNNER}),
    _entry(f.QuestionAsked, {AGENT}, {RUNNER, PUBLISHER}),
    _entry(f.QuestionAnswered, {GATEWAY}, {RUNNER}),
    _entry(f.AnswerGiven, {AGENT}, {PUBLISHER}),
    _entry(f.SolutionProposed, {AGENT}, {RUNNER, PUBLISHER}),
    _entry(f.VerificationFinished, {RUNNER}, {AGENT, PUBLISHER}),
    _entry(f.CommitPublished, {PUBLISHER}, set()),
    _entry(f.PullRequestOpened, {PUBLISHER}, set()),
    _entry(f.RunFailed, {RUNNER, AGENT, PUBLISHER}, {PUBLISHER}),
    _entry(f.RunCancelled, {GATEWAY}, {RUNNER, PUBLISHER}),
    _entry(f.RunFinished, {PUBLISHER}, {RUNNER}),
)

SUPERSEDED: tuple[type[f.Fact], ...] = (f.VerificationFinishedV1,)
"""Old versions that are still read."""


def heard_by(service: str) -> tuple[type[f.Fact], ...]:
    """The kinds that a service subscribes to, in the order of a run."""
    return tuple(entry.fact for entry in CATALOGUE if service in entry.consumers)


def produced_by(service: str) -> tuple[type[f.Fact], ...]:
    """The kinds that a service may write."""
    return tuple(entry.fact for entry in CATALOGUE if service in entry.producers)


def current_facts() -> frozenset[type[f.Fact]]:
    """The members of ``AnyFact``; a test compares them with the catalogue."""
    return frozenset(get_args(f.AnyFact))
