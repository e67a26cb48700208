"""What people do at GitHub; each returns when the webhooks it caused were answered or given up."""

from collections.abc import Iterable

from tests.doubles.github import changes, views
from tests.doubles.github.state import Comment, Issue, PullRequest, Repository, User, World, now


def issue_of(it: Issue | PullRequest) -> Issue:
    """The issue itself, or the one behind a pull request."""
    return it.issue if isinstance(it, PullRequest) else it


class People:
    """Verbs of people, on a world whose events ``settle`` delivers."""

    world: World

    async def settle(self) -> None:
        """Deliver the events that wait."""
        raise NotImplementedError

    async def open_issue(
        self, repo: Repository, title: str, body: str | None = None, *, by: User, labels: Iterable[str] = ()
    ) -> Issue:
        """Open an issue; labels set while opening are in ``opened`` and each in a ``labeled`` of its own."""
        issue = changes.open_issue(self.world, repo, title, body, by)
        issue.labels = [self.world.label(repo, name) for name in labels]
        changes.announce_issue(self.world, issue, "opened", by)
        for label in issue.labels:
            changes.announce_issue(
                self.world, issue, "labeled", by, label=views.label(self.world, repo, label)
            )
        await self.settle()
        return issue

    async def comment(self, issue: Issue | PullRequest, body: str, *, by: User) -> Comment:
        """Say something."""
        it = changes.comment(self.world, issue_of(issue), body, by)
        await self.settle()
        return it

    async def edit_comment(self, comment: Comment, body: str, *, by: User) -> None:
        """Say it differently."""
        changes.edit_comment(self.world, comment, body, by)
        await self.settle()

    async def delete_comment(self, comment: Comment, *, by: User) -> None:
        """Unsay it."""
        changes.delete_comment(self.world, comment, by)
        await self.settle()

    async def label(self, issue: Issue | PullRequest, name: str, *, by: User) -> None:
        """Put a label on."""
        changes.add_label(self.world, issue_of(issue), name, by)
        await self.settle()

    async def unlabel(self, issue: Issue | PullRequest, name: str, *, by: User) -> None:
        """Take a label off that is on."""
        changes.remove_label(self.world, issue_of(issue), name, by)
        await self.settle()

    async def close(self, issue: Issue | PullRequest, *, by: User, reason: str = "completed") -> None:
        """Close; ``reason`` is completed or not_planned."""
        changes.set_state(self.world, issue_of(issue), "closed", reason, by)
        await self.settle()

    async def reopen(self, issue: Issue | PullRequest, *, by: User) -> None:
        """Open again."""
        changes.set_state(self.world, issue_of(issue), "open", None, by)
        await self.settle()

    async def edit_issue(
        self, issue: Issue, *, by: User, title: str | None = None, body: str | None = None
    ) -> None:
        """Another title or body."""
        changes.edit_issue(self.world, issue, by, title=title, body=body)
        await self.settle()

    async def delete(self, issue: Issue, *, by: User) -> None:
        """Delete an issue: it is gone (410) from now on."""
        changes.announce_issue(self.world, issue, "deleted", by)
        issue.deleted = True
        await self.settle()

    async def open_pull_request(
        self, repo: Repository, head: str, base: str, title: str, body: str | None = None, *, by: User
    ) -> PullRequest:
        """Open a pull request from one branch to another; both must be there."""
        pull = changes.open_pull(self.world, repo, (head, base), title, body, by)
        await self.settle()
        return pull

    async def merge(self, pull: PullRequest, *, by: User) -> None:
        """Merge with a merge commit whose tree is the head's; the base must not have moved on."""
        git, base = pull.repo.git, f"refs/heads/{pull.base}"
        tip = git.ref(base)
        if tip is None or not git.is_ancestor(tip, pull.head_sha):
            raise ValueError(f"{pull.base} has moved on: pull request {pull.number} does not merge trivially")
        tree = git.resolve(pull.head_sha, "tree") or ""
        message = f"Merge pull request #{pull.number} from {pull.head}"
        person = changes.signature_of(by)
        pull.merge_commit_sha = git.write_commit(tree, [tip, pull.head_sha], message, person, person)
        git.set_ref(base, pull.merge_commit_sha)
        pull.merged_at = now()
        changes.set_state(self.world, pull.issue, "closed", None, by)
        await self.settle()

    def rename(self, repo: Repository, name: str) -> None:
        """Another name, same owner; the old one redirects from now on."""
        old = repo.full_name.lower()
        repo.name = name
        self.world.moved[old] = self.world.repositories.pop(old)
        self.world.repositories[repo.full_name.lower()] = repo
