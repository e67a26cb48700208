"""The publisher's plans carried out on GitHub; each returns the facts that came of it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, assert_never

import msgspec
import structlog

from contracts import facts as f
from contracts.change import decode_change
from contracts.envelope import Recorded
from contracts.vault import AskWriteToken, Secret, Token
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.errors import Later, Refused
from services.kit.github import Answer, GitHubClient, GitHubRefused, Limiter
from services.publisher import words
from services.publisher.decide import EditProgress, Finish, OpenPullRequest, Plan, PostProgress, PublishCommit
from services.publisher.repository import Repository

EDIT_SECONDS = 3.0
"""Least time between two pieces of news about one run."""

logger = structlog.get_logger(__name__)


def marker(run: str) -> str:
    """What makes a comment or body findable as this run's; readers do not see it."""
    return f"<!-- millrace:run={run} -->"


class Press:
    """Carries plans out.

    Args:
        bus: to the vault and the object store.
        api_url: GitHub's REST API.
    """

    def __init__(self, bus: Bus, api_url: str) -> None:
        self._bus = bus
        self._api_url = api_url
        self._limiters: dict[int, Limiter] = {}
        self._edited: dict[str, float] = {}

    async def __call__(self, plan: Plan, heard: Recorded) -> Sequence[f.AnyFact]:
        """The facts that came of ``plan``; ``Later`` or ``Refused`` if it could not be carried out."""
        run = heard.key.run
        match plan:
            case PostProgress():
                return await self._post(plan, run)
            case EditProgress():
                await self._edit(plan, run)
                return []
            case PublishCommit():
                return [await self._publish(plan, run)]
            case OpenPullRequest():
                return [await self._open(plan, run)]
            case Finish():
                return [await self._finish(plan, run)]
            case _:
                assert_never(plan)

    async def _post(self, plan: PostProgress, run: str) -> list[f.AnyFact]:
        text = f"{words.acknowledged()}\n\n{marker(run)}"
        try:
            async with self._repository(plan.request, "comment") as repository:
                number = plan.request.issue.number
                identity, url = await repository.comment(number, marker(run), text)
        except Refused as refusal:
            # A run can do its work without a comment; the end will say why nobody was told.
            logger.warning("no comment possible", run=run, kind=refusal.kind)
            return []
        self._edited[run] = time.monotonic()
        return [f.ProgressPosted(comment_id=identity, url=url)]

    async def _edit(self, plan: EditProgress, run: str) -> None:
        now = time.monotonic()
        if not plan.needed:
            # News never stands in the way of a write that somebody waits for.
            fresh = now - self._edited.get(run, now - EDIT_SECONDS) < EDIT_SECONDS
            if fresh or not self._limiter(plan.request).idle:
                return
        self._edited[run] = now
        try:
            async with self._repository(plan.request, "comment") as repository:
                await repository.edit_comment(plan.comment_id, f"{plan.text}\n\n{marker(run)}")
        except (Later, Refused) as error:
            if plan.needed and isinstance(error, Later):
                raise
            logger.info("news left out", run=run, why=str(error))

    async def _publish(self, plan: PublishCommit, run: str) -> f.CommitPublished:
        change = decode_change(await self._bus.objects.get(plan.change.digest))
        trailer = f"Millrace-Run: {run}"
        number = plan.request.issue.number
        async with self._repository(plan.request, "publish") as repository:
            for branch in (f"millrace/issue-{number}", f"millrace/issue-{number}-{run[-8:].lower()}"):
                head = await repository.head(branch)
                if head is None:
                    base_tree, _ = await repository.read_commit(plan.base)
                    tree = await repository.tree(base_tree, change)
                    commit = await repository.commit(tree, plan.base, f"{plan.message}\n\n{trailer}\n")
                    await repository.create_branch(branch, commit)
                    return f.CommitPublished(branch=branch, commit=commit, tree=tree)
                tree, message = await repository.read_commit(head)
                if trailer in message.splitlines() and tree == change.tree:
                    return f.CommitPublished(branch=branch, commit=head, tree=tree)
        raise Refused(
            f"the branches millrace/issue-{number} and {branch} exist with other work; delete one and retry",
            kind="branch_taken",
        )

    async def _open(self, plan: OpenPullRequest, run: str) -> f.PullRequestOpened:
        body = f"{plan.body}\n\n{marker(run)}"
        async with self._repository(plan.request, "publish") as repository:
            opened = await repository.open_pull_request(plan.commit.branch, plan.base_ref, plan.title, body)
        return f.PullRequestOpened(
            number=opened["number"],
            url=opened["html_url"],
            branch=plan.commit.branch,
            commit=plan.commit.commit,
            draft=bool(opened.get("draft")),
        )

    async def _finish(self, plan: Finish, run: str) -> f.RunFinished:
        text = f"{plan.text}\n\n<sub>run {run}</sub>\n{marker(run)}"
        finished = f.RunFinished(outcome=plan.outcome, why=plan.why, pull_request_url=plan.pull_request_url)
        self._edited.pop(run, None)
        try:
            async with self._repository(plan.request, "comment") as repository:
                url = await self._last_words(repository, plan, run, text)
        except Refused as refusal:
            return msgspec.structs.replace(finished, uncommented=str(refusal))
        return msgspec.structs.replace(finished, comment_url=url)

    async def _last_words(self, repository: Repository, plan: Finish, run: str, text: str) -> str:
        comment_id = plan.comment_id
        if comment_id is None:
            comment_id, url = await repository.comment(plan.request.issue.number, marker(run), text)
        try:
            return await repository.edit_comment(comment_id, text)
        except GitHubRefused as refusal:
            if refusal.status != 404:
                raise
            # Somebody deleted the comment: the end is said all the same.
            _, url = await repository.comment(plan.request.issue.number, marker(run), text)
            return url

    @asynccontextmanager
    async def _repository(
        self, request: f.RunRequested, step: Literal["comment", "publish"]
    ) -> AsyncIterator[Repository]:
        """The repository with a token of its own."""
        question = AskWriteToken(
            installation_id=request.installation_id,
            repository_id=request.repository.id,
            app_id=request.app_id,
            step=step,
        )

        async def grant(rejected: str) -> Secret:
            wanted = msgspec.structs.replace(question, rejected=rejected)
            return (await ask_vault(self._bus, "publisher", wanted, Token)).token

        async with StepClient(self._api_url, grant, self._limiter(request)) as client:
            yield Repository(client, request.repository.full_name)

    def _limiter(self, request: f.RunRequested) -> Limiter:
        return self._limiters.setdefault(request.installation_id, Limiter())


class StepClient(GitHubClient):
    """GitHub with one token for the requests of a step; one that GitHub rejects is replaced.

    Args:
        grant: gives a token, other than the one with this fingerprint.
    """

    def __init__(self, api_url: str, grant: Callable[[str], Awaitable[Secret]], limiter: Limiter) -> None:
        super().__init__(api_url, self._held, limiter=limiter)
        self._grant = grant
        self._secret: Secret | None = None

    async def _held(self) -> Secret:
        if self._secret is None:
            self._secret = await self._grant("")
        return self._secret

    async def request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str | int] | None = None
    ) -> Answer:
        """As ``GitHubClient.request``; a 401 has changed nothing, so that any request can be repeated."""
        try:
            return await super().request(method, path, json=json, params=params)
        except GitHubRefused as refusal:
            if refusal.status != 401 or self._secret is None:
                raise
            self._secret = await self._grant(self._secret.fingerprint())
        return await super().request(method, path, json=json, params=params)
