"""Repositories, branches, contents, collaborators."""

import base64

from tests.doubles.github import views, views_git
from tests.doubles.github.http import Answer, Call, Problem, Route
from tests.doubles.github.repository import Entry
from tests.doubles.github.state import Json

_COARSE = {"maintain": "write", "triage": "read"}


def get_repository(call: Call) -> Answer:
    """A repository."""
    return Answer(200, views.repository(call.world, call.repo))


def permission(call: Call) -> Answer:
    """What a person may do: ``permission`` in four coarse words, ``role_name`` as granted."""
    who = call.world.users.get(call.params["username"].lower())
    if who is None:
        raise Problem(404, "Not Found")
    role = call.world.access(call.repo, who)
    coarse = _COARSE.get(role, role)
    order = ("none", "read", "triage", "write", "maintain", "admin").index(role)
    may = {
        "pull": order >= 1,
        "triage": order >= 2,
        "push": order >= 3,
        "maintain": order >= 4,
        "admin": order >= 5,
    }
    shown = {**views.user(call.world, who), "role_name": role, "permissions": may}
    return Answer(200, {"permission": coarse, "role_name": role, "user": shown})


def get_branch(call: Call) -> Answer:
    """A branch with its head."""
    repo, name = call.repo, call.params["branch"]
    sha = repo.git.ref(f"refs/heads/{name}")
    if sha is None:
        raise Problem(404, "Branch not found")
    api = f"{call.world.api_url}/repos/{repo.full_name}/branches/{name}"
    return Answer(
        200,
        {
            "name": name,
            "commit": views_git.commit(call.world, repo, repo.git.commit(sha)),
            "_links": {"self": api, "html": f"{call.world.url}/{repo.full_name}/tree/{name}"},
            "protected": False,
            "protection": {"enabled": False},
            "protection_url": f"{api}/protection",
        },
    )


def get_commit(call: Call) -> Answer:
    """A commit by sha, branch or tag."""
    sha = call.repo.git.resolve(call.params["ref"])
    if sha is None:
        raise Problem(422, f"No commit found for SHA: {call.params['ref']}")
    return Answer(200, views_git.commit(call.world, call.repo, call.repo.git.commit(sha)))


def _content(call: Call, commit: str, path: str, entry: Entry) -> Json:
    api = f"{call.world.api_url}/repos/{call.repo.full_name}"
    web = f"{call.world.url}/{call.repo.full_name}"
    kind = {"tree": "dir", "commit": "submodule"}.get(entry.type, "file")
    links = {
        "self": f"{api}/contents/{path}?ref={commit}",
        "git": f"{api}/git/{entry.type}s/{entry.sha}",
        "html": f"{web}/blob/{commit}/{path}",
    }
    return {
        "type": kind,
        "size": entry.size or 0,
        "name": path.rpartition("/")[2],
        "path": path,
        "sha": entry.sha,
        "url": links["self"],
        "git_url": links["git"],
        "html_url": links["html"],
        "download_url": f"{web}/raw/{commit}/{path}" if kind == "file" else None,
        "_links": links,
    }


def get_contents(call: Call) -> Answer:
    """A file with its bytes, or what a directory holds; raw bytes for the raw media type."""
    repo, path = call.repo, call.params["path"].strip("/")
    commit = repo.git.resolve(call.query.get("ref", repo.default_branch))
    if commit is None:
        raise Problem(404, f"No commit found for the ref {call.query.get('ref', repo.default_branch)}")
    entry = repo.git.entry(commit, path) if path else Entry("040000", "tree", f"{commit}^{{tree}}", None, "")
    if entry is None:
        raise Problem(404, "Not Found")
    if entry.type == "tree":
        prefix = f"{path}/" if path else ""
        inside = repo.git.entries(entry.sha)
        return Answer(200, [_content(call, commit, prefix + one.path, one) for one in inside])
    content = repo.git.read_blob(entry.sha)
    if "raw" in call.headers.get("accept", ""):
        return Answer(200, content, {"content-type": "application/vnd.github.raw+json"})
    text = base64.encodebytes(content).decode()
    return Answer(200, {**_content(call, commit, path, entry), "encoding": "base64", "content": text})


ROUTES = [
    Route("GET /repos/{owner}/{repo}", get_repository),
    Route("GET /repos/{owner}/{repo}/collaborators/{username}/permission", permission),
    Route("GET /repos/{owner}/{repo}/branches/{branch}", get_branch, ("contents:read",)),
    Route("GET /repos/{owner}/{repo}/commits/{ref}", get_commit, ("contents:read",)),
    Route("GET /repos/{owner}/{repo}/contents/{path}", get_contents, ("contents:read",)),
]
