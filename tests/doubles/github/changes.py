"""Changes to issues, comments and pull requests, each with the event that apps hear."""

from datetime import datetime
from typing import Any

from tests.doubles.github import views, views_git
from tests.doubles.github.state import (
    App,
    Comment,
    Event,
    Installation,
    Issue,
    Json,
    PullRequest,
    Repository,
    User,
    World,
    now,
    stamp,
)


def _announce(world: World, repo: Repository, name: str, action: str, sender: User, body: Json) -> None:
    common = {"repository": views.repository(world, repo), "sender": views.user(world, sender)}
    world.events.append(Event(name, {"action": action, **body, **common}, repo=repo))


def announce_issue(world: World, issue: Issue, action: str, by: User, **more: Any) -> None:
    """Tell the apps what happened to an issue; pull requests have events of their own."""
    pull = issue.repo.pulls.get(issue.number)
    if pull is not None:
        announce_pull(world, pull, action, by, **more)
        return
    _announce(world, issue.repo, "issues", action, by, {"issue": views.issue(world, issue), **more})


def announce_pull(world: World, pull: PullRequest, action: str, by: User, **more: Any) -> None:
    """Tell the apps what happened to a pull request."""
    body = {"number": pull.number, "pull_request": views_git.pull(world, pull), **more}
    _announce(world, pull.repo, "pull_request", action, by, body)


def announce_comment(world: World, it: Comment, action: str, by: User, **more: Any) -> None:
    """Tell the apps what happened to a comment."""
    body = {"issue": views.issue(world, it.issue), "comment": views.comment(world, it), **more}
    _announce(world, it.issue.repo, "issue_comment", action, by, body)


def open_issue(
    world: World, repo: Repository, title: str, body: str | None, by: User, app: App | None = None
) -> Issue:
    """A new issue, not yet announced."""
    issue = Issue(next(world.ids), repo, next(repo.numbers), title, body, by, app)
    repo.issues[issue.number] = issue
    return issue


def comment(world: World, issue: Issue, body: str, by: User, app: App | None = None) -> Comment:
    """A new comment, announced."""
    it = Comment(next(world.ids), issue, body, by, app)
    issue.comments.append(it)
    issue.updated_at = now()
    announce_comment(world, it, "created", by)
    return it


def edit_comment(world: World, it: Comment, body: str, by: User, app: App | None = None) -> None:
    """Other words for a comment."""
    before, it.body, it.updated_at = it.body, body, now()
    announce_comment(world, it, "edited", by, changes={"body": {"from": before}})


def delete_comment(world: World, it: Comment, by: User, app: App | None = None) -> None:
    """A comment goes away."""
    it.issue.comments.remove(it)
    announce_comment(world, it, "deleted", by)


def edit_issue(
    world: World,
    issue: Issue,
    by: User,
    app: App | None = None,
    *,
    title: str | None = None,
    body: str | None = None,
) -> None:
    """Another title or body."""
    changes: Json = {}
    if title is not None and title != issue.title:
        changes["title"], issue.title = {"from": issue.title}, title
    if body is not None and body != issue.body:
        changes["body"], issue.body = {"from": issue.body or ""}, body
    issue.updated_at = now()
    if changes:
        announce_issue(world, issue, "edited", by, changes=changes)


def set_state(
    world: World, issue: Issue, state: str, reason: str | None, by: User, app: App | None = None
) -> None:
    """Close or reopen; nothing when it is so already."""
    if state == issue.state:
        return
    if state == "closed":
        pull = issue.number in issue.repo.pulls
        issue.close(None if pull else reason or "completed")
    else:
        issue.reopen()
    announce_issue(world, issue, "closed" if state == "closed" else "reopened", by)


def add_label(world: World, issue: Issue, name: str, by: User, app: App | None = None) -> None:
    """Put a label on; nothing when it is on already."""
    label = world.label(issue.repo, name)
    if label in issue.labels:
        return
    issue.labels.append(label)
    issue.updated_at = now()
    announce_issue(world, issue, "labeled", by, label=views.label(world, issue.repo, label))


def remove_label(world: World, issue: Issue, name: str, by: User, app: App | None = None) -> None:
    """Take a label off that is on."""
    label = next(one for one in issue.labels if one.name.lower() == name.lower())
    issue.labels.remove(label)
    issue.updated_at = now()
    announce_issue(world, issue, "unlabeled", by, label=views.label(world, issue.repo, label))


def signature_of(who: User, at: datetime | None = None) -> tuple[str, str, str]:
    """Name, address and moment (by default this one) for a commit by this account."""
    return who.login, f"{who.id}+{who.login}@users.noreply.github.com", stamp(at or now())


def open_pull(
    world: World, repo: Repository, branches: tuple[str, str], title: str, body: str | None, by: User,
    app: App | None = None, *, draft: bool = False, maintainer_can_modify: bool = False,
) -> PullRequest:  # fmt: skip
    """A new pull request from the first branch to the second, announced.

    Raises:
        LookupError: a branch is not there.
    """
    head, base = branches
    head_sha, base_sha = repo.git.ref(f"refs/heads/{head}"), repo.git.ref(f"refs/heads/{base}")
    if head_sha is None or base_sha is None:
        raise LookupError(f"{repo.full_name} has no {head if head_sha is None else base}")
    issue = open_issue(world, repo, title, body, by, app)
    pull = PullRequest(
        next(world.ids), issue, head, base, head_sha, base_sha, draft=draft,
        maintainer_can_modify=maintainer_can_modify,
    )  # fmt: skip
    repo.pulls[issue.number] = pull
    repo.git.set_ref(f"refs/pull/{issue.number}/head", head_sha)
    announce_pull(world, pull, "opened", by)
    return pull


def announce_installation(world: World, it: Installation, action: str) -> None:
    """Tell the app what happened to its installation."""
    kept = ("id", "node_id", "name", "full_name", "private")
    shown = [views.repository(world, repo) for repo in it.repositories]
    payload: Json = {
        "action": action,
        "installation": views.installation(world, it),
        "repositories": [{key: one[key] for key in kept} for one in shown],
        "sender": views.user(world, it.account),
    }
    if action == "created":
        payload["requester"] = None
    world.events.append(Event("installation", payload, installation=it))
