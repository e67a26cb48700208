"""What follows from something heard, carried out on the log."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

import msgspec

from contracts import facts as f
from contracts.envelope import Recorded, RunKey, derive_id, derive_run_id
from services.gateway.decide import AskGitHub, Request, Rules, Standing, Tell, decide
from services.gateway.heard import AnyHeard, Ignored
from services.gateway.standing import GitHub
from services.gateway.state import START, Issue, Quiet, evolve
from services.kit.errors import Conflict
from services.kit.log import Log, last_sequence


class Done(msgspec.Struct, frozen=True):
    """The run that was started or told."""

    run: str


class RunActive(msgspec.Struct, frozen=True):
    """An operator asked for a run while another is going on."""

    run: str


class Desk:
    """Brings what was heard into the log: at most one active run per issue.

    Args:
        log: written as the gateway.
        github: asked for permissions and installations.
        rules: the operator's.
    """

    def __init__(self, log: Log, github: GitHub, rules: Rules) -> None:
        self._log = log
        self._github = github
        self._rules = rules

    async def handle(self, heard: AnyHeard) -> Done | Ignored:
        """Do what follows from ``heard``; ``Later`` or ``Refused`` if it cannot be done."""
        standing: Standing | None = None
        app_id, installation_id, repository = heard.app_id, heard.installation_id, heard.repository
        while True:
            history = await self._log.read_issue(repository.id, heard.issue.number)
            plan = decide(_fold(history), heard, standing, self._rules)
            match plan:
                case Ignored():
                    return plan
                case AskGitHub():
                    if app_id is None or installation_id is None:
                        found = await self._github.installation(repository.full_name)
                        app_id, installation_id = found.app_id, found.installation_id
                    standing = await self._github.standing(heard, installation_id, app_id)
                    continue
                case Request(run=run, trigger=trigger) if app_id is not None and installation_id is not None:
                    fact: f.AnyFact = f.RunRequested(
                        app_id=app_id,
                        installation_id=installation_id,
                        repository=repository,
                        issue=heard.issue,
                        trigger=trigger,
                    )
                case Tell(run=run, fact=fact):
                    pass
                case _:
                    raise AssertionError(plan)  # a request is decided on only after GitHub was asked
            key = RunKey(repository.id, heard.issue.number, run)
            try:
                await self._append(key, fact, history, cause=heard.delivery)
            except Conflict:
                continue  # the issue moved on meanwhile: decide again
            return Done(run)

    async def start(
        self, full_name: str, number: int, title: str, body: str, key: str | None, url: str
    ) -> tuple[RunKey, Done | RunActive]:
        """Start a run that an operator asked for.

        Args:
            full_name: ``owner/name``.
            number, title, body: the issue's.
            key: the same key names the same run, however often it is sent.
            url: of the issue.
        """
        found = await self._github.installation(full_name)
        repository = found.repository
        operator = f.Person(id=0, login="operator")
        now = datetime.now(UTC)
        if key is None:
            run = derive_run_id(now, "operator", secrets.token_hex(16))
        else:
            # No time in it: the id must be the same tomorrow.
            run = derive_run_id(datetime.fromtimestamp(0, UTC), "operator", repository.id, number, key)
        where = RunKey(repository.id, number, run)
        fact = f.RunRequested(
            app_id=found.app_id,
            installation_id=found.installation_id,
            repository=f.Repository(
                id=repository.id,
                full_name=repository.full_name,
                default_branch=repository.default_branch,
                private=repository.private,
            ),
            issue=f.Issue(number=number, title=title, body=body, author=operator, url=url),
            trigger=f.Trigger(
                kind="operator", actor=operator, permission="admin", delivery=derive_id("operator", run)
            ),
        )
        while True:
            history = await self._log.read_issue(repository.id, number)
            issue = _fold(history)
            if run in issue.runs:
                return where, Done(run)
            if not isinstance(issue, Quiet):
                return where, RunActive(issue.run)
            try:
                await self._append(where, fact, history, cause=derive_id("operator", run))
            except Conflict:
                continue
            return where, Done(run)

    async def _append(self, key: RunKey, fact: f.AnyFact, history: Sequence[Recorded], *, cause: str) -> None:
        first = isinstance(fact, f.RunRequested)
        of_run = [recorded for recorded in history if recorded.key.run == key.run]
        expected = last_sequence(history if first else of_run)
        await self._log.append(key, fact, expected=expected, cause=cause, whole_issue=first)


def _fold(history: Sequence[Recorded]) -> Issue:
    return reduce(lambda issue, recorded: evolve(issue, recorded.key.run, recorded.fact), history, START)
