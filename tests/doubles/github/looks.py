"""What a test looks at."""

from tests.doubles.github.people import issue_of
from tests.doubles.github.repository import GitFailedError
from tests.doubles.github.state import Comment, Issue, PullRequest, Repository


class Looks:
    """Questions about repositories and issues."""

    def pull_requests(self, repo: Repository) -> list[PullRequest]:
        """In the order they were opened."""
        return list(repo.pulls.values())

    def comments(self, issue: Issue | PullRequest) -> list[Comment]:
        """In the order they were made."""
        return list(issue_of(issue).comments)

    def branches(self, repo: Repository) -> dict[str, str]:
        """Names to commits."""
        return {name.removeprefix("refs/heads/"): sha for name, sha in repo.git.refs("refs/heads/").items()}

    def file_at(self, repo: Repository, ref: str, path: str) -> bytes | None:
        """A file's bytes at a branch, tag or commit; ``None`` when it is not there."""
        commit = repo.git.resolve(ref)
        entry = repo.git.entry(commit, path) if commit else None
        return repo.git.read_blob(entry.sha) if entry and entry.type == "blob" else None

    def tree_id(self, repo: Repository, ref: str) -> str:
        """The tree of a branch, tag or commit.

        Raises:
            GitFailedError: there is no such thing.
        """
        tree = repo.git.resolve(ref, "tree")
        if tree is None:
            raise GitFailedError(f"{repo.full_name} has no {ref}")
        return tree
