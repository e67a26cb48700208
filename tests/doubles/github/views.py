"""State as GitHub's JSON: accounts, apps, repositories, issues, comments (pure).

Shapes: GitHub's OpenAPI description, schemas simple-user, integration, installation, full-repository,
issue, issue-comment, label.
"""

from typing import Any

from tests.doubles.github.state import (
    App,
    Comment,
    Installation,
    Issue,
    Json,
    Label,
    Repository,
    User,
    World,
    node_id,
    stamp,
)

_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}
_COUNTS = (
    "forks_count", "stargazers_count", "watchers_count", "size", "subscribers_count", "network_count",
    "forks", "watchers",
)  # fmt: skip
_REACTIONS = ("+1", "-1", "laugh", "confused", "heart", "hooray", "eyes", "rocket")


def user(world: World, who: User) -> Json:
    """An account."""
    api = f"{world.api_url}/users/{who.login}"
    return {
        "login": who.login,
        "id": who.id,
        "node_id": node_id("User", who.id),
        "avatar_url": f"{world.url}/avatars/{who.id}",
        "gravatar_id": "",
        "url": api,
        "html_url": f"{world.url}/{who.login}",
        **{name: api + rest for name, rest in _USER_LINKS.items()},
        "type": who.type,
        "site_admin": False,
    }


def public_user(world: World, who: User) -> Json:
    """An account's own page."""
    unknown = ("name", "company", "blog", "location", "email", "hireable", "bio")
    return {
        **user(world, who),
        **dict.fromkeys(unknown),
        **dict.fromkeys(("public_repos", "public_gists", "followers", "following"), 0),
        "created_at": "2020-01-01T00:00:00Z",
        "updated_at": "2020-01-01T00:00:00Z",
    }


def app(world: World, it: App, permissions: dict[str, str]) -> Json:
    """An app (schema integration)."""
    return {
        "id": it.id,
        "slug": it.slug,
        "node_id": node_id("App", it.id),
        "owner": user(world, it.owner),
        "name": it.slug.capitalize(),
        "description": None,
        "external_url": world.url,
        "html_url": f"{world.url}/apps/{it.slug}",
        "created_at": stamp(it.created_at),
        "updated_at": stamp(it.created_at),
        "permissions": permissions,
        "events": list(it.events),
    }


def installation(world: World, it: Installation) -> Json:
    """An installation."""
    return {
        "id": it.id,
        "account": user(world, it.account),
        "repository_selection": "selected",
        "access_tokens_url": f"{world.api_url}/app/installations/{it.id}/access_tokens",
        "repositories_url": f"{world.api_url}/installation/repositories",
        "html_url": f"{world.url}/settings/installations/{it.id}",
        "app_id": it.app.id,
        "app_slug": it.app.slug,
        "target_id": it.account.id,
        "target_type": it.account.type,
        "permissions": it.permissions,
        "events": list(it.app.events),
        "created_at": stamp(it.created_at),
        "updated_at": stamp(it.created_at),
        "single_file_name": None,
        "suspended_by": user(world, it.account) if it.suspended else None,
        "suspended_at": stamp(it.created_at) if it.suspended else None,
    }


def repository(world: World, repo: Repository) -> Json:
    """A repository, complete."""
    api = f"{world.api_url}/repos/{repo.full_name}"
    web = f"{world.url}/{repo.full_name}"
    open_issues = sum(issue.state == "open" and not issue.deleted for issue in repo.issues.values())
    return {
        "id": repo.id,
        "node_id": node_id("Repository", repo.id),
        "name": repo.name,
        "full_name": repo.full_name,
        "owner": user(world, repo.owner),
        "private": repo.private,
        "visibility": "private" if repo.private else "public",
        "html_url": web,
        "description": None,
        "fork": False,
        "url": api,
        **{name: api + rest for name, rest in _REPOSITORY_LINKS.items()},
        "git_url": f"{web}.git",
        "ssh_url": f"git@127.0.0.1:{repo.full_name}.git",
        "clone_url": f"{web}.git",
        "svn_url": web,
        **dict.fromkeys(("mirror_url", "homepage", "language", "license")),
        **dict.fromkeys(_COUNTS, 0),
        "default_branch": repo.default_branch,
        "open_issues_count": open_issues,
        "open_issues": open_issues,
        "topics": [],
        "has_issues": True,
        **dict.fromkeys(("has_projects", "has_wiki", "has_pages", "has_discussions", "has_downloads"), False),
        "archived": repo.archived,
        "disabled": False,
        "pushed_at": stamp(repo.pushed_at),
        "created_at": stamp(repo.created_at),
        "updated_at": stamp(repo.pushed_at),
    }


def label(world: World, repo: Repository, it: Label) -> Json:
    """A label."""
    return {
        "id": it.id,
        "node_id": node_id("Label", it.id),
        "url": f"{world.api_url}/repos/{repo.full_name}/labels/{it.name}",
        "name": it.name,
        "description": "",
        "color": it.color,
        "default": False,
    }


def association(world: World, repo: Repository, who: User) -> str:
    """How an author stands to a repository."""
    if who is repo.owner:
        return "OWNER"
    return "COLLABORATOR" if world.access(repo, who) in {"admin", "maintain", "write", "triage"} else "NONE"


def reactions(url: str, given: list[tuple[int, User, str]]) -> Json:
    """How many of each."""
    counts = {content: sum(content == one for _, _, one in given) for content in _REACTIONS}
    return {"url": f"{url}/reactions", "total_count": len(given), **counts}


def issue(world: World, it: Issue) -> Json:
    """An issue, or the issue side of a pull request."""
    repo = f"{world.api_url}/repos/{it.repo.full_name}"
    api = f"{repo}/issues/{it.number}"
    pull = it.repo.pulls.get(it.number)
    shown: dict[str, Any] = {
        "id": it.id,
        "node_id": node_id("Issue", it.id),
        "url": api,
        "repository_url": repo,
        "labels_url": f"{api}/labels{{/name}}",
        "comments_url": f"{api}/comments",
        "events_url": f"{api}/events",
        "html_url": f"{world.url}/{it.repo.full_name}/{'pull' if pull else 'issues'}/{it.number}",
        "number": it.number,
        "state": it.state,
        "state_reason": it.state_reason,
        "title": it.title,
        "body": it.body,
        "user": user(world, it.user),
        "labels": [label(world, it.repo, one) for one in it.labels],
        "assignee": None,
        "assignees": [],
        "milestone": None,
        "locked": it.locked,
        "active_lock_reason": None,
        "comments": len(it.comments),
        "closed_at": stamp(it.closed_at) if it.closed_at else None,
        "created_at": stamp(it.created_at),
        "updated_at": stamp(it.updated_at),
        "author_association": association(world, it.repo, it.user),
        "reactions": reactions(api, it.reactions),
        "performed_via_github_app": app(world, it.app, {}) if it.app else None,
    }
    if pull:
        links = {"url": f"{repo}/pulls/{it.number}", "html_url": shown["html_url"]}
        diffs = {"diff_url": f"{shown['html_url']}.diff", "patch_url": f"{shown['html_url']}.patch"}
        merged = stamp(pull.merged_at) if pull.merged_at else None
        shown |= {"draft": pull.draft, "pull_request": {**links, **diffs, "merged_at": merged}}
    return shown


def comment(world: World, it: Comment) -> Json:
    """A comment."""
    repo = f"{world.api_url}/repos/{it.issue.repo.full_name}"
    api = f"{repo}/issues/comments/{it.id}"
    return {
        "id": it.id,
        "node_id": node_id("IssueComment", it.id),
        "url": api,
        "html_url": f"{issue(world, it.issue)['html_url']}#issuecomment-{it.id}",
        "issue_url": f"{repo}/issues/{it.issue.number}",
        "body": it.body,
        "user": user(world, it.user),
        "created_at": stamp(it.created_at),
        "updated_at": stamp(it.updated_at),
        "author_association": association(world, it.issue.repo, it.user),
        "reactions": reactions(api, it.reactions),
        "performed_via_github_app": app(world, it.app, {}) if it.app else None,
    }
