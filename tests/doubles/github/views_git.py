"""Git objects and pull requests as GitHub's JSON.

Shapes: GitHub's OpenAPI description, schemas git-ref, git-commit, git-tree, commit, pull-request, diff-entry.
"""

from collections.abc import Sequence

from tests.doubles.github import views
from tests.doubles.github.repository import Commit, Entry, FileChange
from tests.doubles.github.state import Json, PullRequest, Repository, World, node_id, stamp

_STATUS = {"A": "added", "D": "removed", "M": "modified", "T": "changed"}


def _api(world: World, repo: Repository) -> str:
    return f"{world.api_url}/repos/{repo.full_name}"


def ref(world: World, repo: Repository, name: str, sha: str) -> Json:
    """A ref, by its full name."""
    api = _api(world, repo)
    kind = repo.git.object_type(sha) or "commit"
    return {
        "ref": name,
        "node_id": node_id(name, repo.id),
        "url": f"{api}/git/{name}",
        "object": {"sha": sha, "type": kind, "url": f"{api}/git/{kind}s/{sha}"},
    }


def _person(person: tuple[str, str, str]) -> Json:
    name, email, date = person
    return {"name": name, "email": email, "date": date}


def _verification(repo: Repository, sha: str) -> Json:
    # GitHub signs what an app commits under its own name. The double has no signing key: it keeps the
    # fact and leaves the signature out.
    signed = sha in repo.verified
    reason = "valid" if signed else "unsigned"
    return {"verified": signed, "reason": reason, "signature": None, "payload": None, "verified_at": None}


def git_commit(world: World, repo: Repository, it: Commit) -> Json:
    """A commit of the Git data interface."""
    api, web = _api(world, repo), f"{world.url}/{repo.full_name}"
    return {
        "sha": it.sha,
        "node_id": node_id("Commit", int(it.sha[:8], 16)),
        "url": f"{api}/git/commits/{it.sha}",
        "html_url": f"{web}/commit/{it.sha}",
        "author": _person(it.author),
        "committer": _person(it.committer),
        "message": it.message,
        "tree": {"sha": it.tree, "url": f"{api}/git/trees/{it.tree}"},
        "parents": [
            {"sha": sha, "url": f"{api}/git/commits/{sha}", "html_url": f"{web}/commit/{sha}"}
            for sha in it.parents
        ],
        "verification": _verification(repo, it.sha),
    }


def commit(world: World, repo: Repository, it: Commit) -> Json:
    """A commit of the Commits interface."""
    api, web = _api(world, repo), f"{world.url}/{repo.full_name}"
    data = git_commit(world, repo, it)
    inner = {key: data[key] for key in ("author", "committer", "message", "tree", "verification")}
    return {
        "sha": it.sha,
        "node_id": data["node_id"],
        "url": f"{api}/commits/{it.sha}",
        "html_url": data["html_url"],
        "comments_url": f"{api}/commits/{it.sha}/comments",
        "commit": {**inner, "url": data["url"], "comment_count": 0},
        "author": None,
        "committer": None,
        "parents": [
            {"sha": sha, "url": f"{api}/commits/{sha}", "html_url": f"{web}/commit/{sha}"}
            for sha in it.parents
        ],
    }


def tree(world: World, repo: Repository, sha: str, entries: Sequence[Entry]) -> Json:
    """A tree; sizes only where there are bytes."""
    api = _api(world, repo)
    rows = []
    for entry in entries:
        row: Json = {"path": entry.path, "mode": entry.mode, "type": entry.type, "sha": entry.sha}
        if entry.type != "commit":
            row["url"] = f"{api}/git/{entry.type}s/{entry.sha}"
        if entry.size is not None:
            row["size"] = entry.size
        rows.append(row)
    return {"sha": sha, "url": f"{api}/git/trees/{sha}", "tree": rows, "truncated": False}


def _side(world: World, repo: Repository, branch: str, sha: str) -> Json:
    return {
        "label": f"{repo.owner.login}:{branch}",
        "ref": branch,
        "sha": sha,
        "user": views.user(world, repo.owner),
        "repo": views.repository(world, repo),
    }


def pull_simple(world: World, it: PullRequest) -> Json:
    """A pull request as it stands in a list."""
    repo, shown = it.repo, views.issue(world, it.issue)
    api = f"{_api(world, repo)}/pulls/{it.number}"
    comments, review = f"{_api(world, repo)}/issues/{it.number}/comments", f"{api}/comments"
    statuses = f"{_api(world, repo)}/statuses/{it.head_sha}"
    single = f"{_api(world, repo)}/pulls/comments{{/number}}"
    links = {
        "self": api,
        "html": shown["html_url"],
        "issue": shown["url"],
        "comments": comments,
        "commits": f"{api}/commits",
        "statuses": statuses,
        "review_comments": review,
        "review_comment": single,
    }
    kept = (
        "html_url", "number", "state", "locked", "active_lock_reason", "title", "user", "body", "labels",
        "milestone", "created_at", "updated_at", "closed_at", "assignee", "assignees", "author_association",
    )  # fmt: skip
    return {
        **{key: shown[key] for key in kept},
        "id": it.id,
        "node_id": node_id("PullRequest", it.id),
        "url": api,
        "issue_url": shown["url"],
        "diff_url": f"{shown['html_url']}.diff",
        "patch_url": f"{shown['html_url']}.patch",
        "commits_url": f"{api}/commits",
        "comments_url": comments,
        "review_comments_url": review,
        "review_comment_url": single,
        "statuses_url": statuses,
        "merged_at": stamp(it.merged_at) if it.merged_at else None,
        "merge_commit_sha": it.merge_commit_sha,
        "requested_reviewers": [],
        "requested_teams": [],
        "draft": it.draft,
        "auto_merge": None,
        "head": _side(world, repo, it.head, it.head_sha),
        "base": _side(world, repo, it.base, it.base_sha),
        "_links": {name: {"href": href} for name, href in links.items()},
    }


def pull(world: World, it: PullRequest) -> Json:
    """A pull request, complete."""
    files = it.repo.git.changed_files(it.base_sha, it.head_sha)
    return {
        **pull_simple(world, it),
        "merged": it.merged_at is not None,
        "mergeable": None if it.state == "closed" else True,
        "mergeable_state": "draft" if it.draft else "clean",
        "merged_by": views.user(world, it.repo.owner) if it.merged_at else None,
        "rebaseable": None,
        "comments": len(it.issue.comments),
        "review_comments": 0,
        "maintainer_can_modify": it.maintainer_can_modify,
        "commits": len(it.repo.git.commits_between(it.base_sha, it.head_sha)),
        "additions": sum(one.additions for one in files),
        "deletions": sum(one.deletions for one in files),
        "changed_files": len(files),
    }


def file_of_pull(world: World, it: PullRequest, change: FileChange) -> Json:
    """One changed file of a pull request."""
    git, web = it.repo.git, f"{world.url}/{it.repo.full_name}"
    side = it.base_sha if change.status == "D" else it.head_sha
    entry = git.entry(side, change.path)
    return {
        "sha": entry.sha if entry else None,
        "filename": change.path,
        "status": _STATUS[change.status],
        "additions": change.additions,
        "deletions": change.deletions,
        "changes": change.additions + change.deletions,
        "blob_url": f"{web}/blob/{side}/{change.path}",
        "raw_url": f"{web}/raw/{side}/{change.path}",
        "contents_url": f"{_api(world, it.repo)}/contents/{change.path}?ref={side}",
        "patch": git.patch(it.base_sha, it.head_sha, change.path),
    }
