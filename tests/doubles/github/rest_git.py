"""The Git data interface: blobs, trees, commits, refs, on real objects."""

import base64
import binascii

from tests.doubles.github import changes, views_git
from tests.doubles.github.http import Answer, Call, Problem, Route
from tests.doubles.github.repository import Change, GitFailedError
from tests.doubles.github.state import Json, now

_WORKFLOWS = ".github/workflows/"


def _filled(call: Call) -> None:
    if call.repo.empty:
        raise Problem(409, "Git Repository is empty.")


def create_blob(call: Call) -> Answer:
    """Store bytes."""
    _filled(call)
    content: str = call.body["content"]
    try:
        base64_given = call.given.get("encoding", "utf-8") == "base64"
        data = base64.b64decode(content, validate=False) if base64_given else content.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Problem(422, "content is not valid Base64") from error
    sha = call.repo.git.write_blob(data)
    return Answer(
        201, {"sha": sha, "url": f"{call.world.api_url}/repos/{call.repo.full_name}/git/blobs/{sha}"}
    )


def get_blob(call: Call) -> Answer:
    """Bytes in Base64."""
    sha = call.params["file_sha"]
    if call.repo.git.object_type(sha) != "blob":
        raise Problem(404, "Not Found")
    data = call.repo.git.read_blob(sha)
    return Answer(
        200,
        {
            "sha": sha,
            "node_id": f"B_{sha}",
            "size": len(data),
            "url": f"{call.world.api_url}/repos/{call.repo.full_name}/git/blobs/{sha}",
            "content": base64.encodebytes(data).decode(),
            "encoding": "base64",
        },
    )


def _change(call: Call, item: Json) -> Change:
    path, mode = item.get("path", ""), item.get("mode", "100644")
    if not path or path.startswith("/") or any(part in {"", ".", "..", ".git"} for part in path.split("/")):
        raise Problem(422, "tree.path contains a malformed path component")
    if "content" in item and item.get("sha") is not None:
        raise Problem(422, "Must supply either tree.sha or tree.content")
    if path.startswith(_WORKFLOWS) and not (call.who.token and call.who.token.allows("workflows", "write")):
        raise Problem(403, "Resource not accessible by integration")
    if "content" in item:
        return Change(path, mode, call.repo.git.write_blob(item["content"].encode()))
    sha = item.get("sha")
    if sha is not None and mode != "160000" and call.repo.git.object_type(sha) is None:
        raise Problem(422, f"tree.sha {sha} is not a valid {item.get('type', 'blob')}")
    return Change(path, mode, sha)


def create_tree(call: Call) -> Answer:
    """A tree from a base and changes; ``sha: null`` deletes."""
    _filled(call)
    items: list[Json] = call.body["tree"]
    if not items:
        raise Problem(422, "Invalid tree info")
    base = call.given.get("base_tree")
    base_tree = call.repo.git.resolve(base, "tree") if base else None
    if base and base_tree is None:
        raise Problem(404, "Not Found")
    try:
        sha = call.repo.git.write_tree(base_tree, [_change(call, item) for item in items])
    except GitFailedError as error:
        raise Problem(422, "GitRPC::BadObjectState") from error
    return Answer(201, views_git.tree(call.world, call.repo, sha, call.repo.git.entries(sha)))


def get_tree(call: Call) -> Answer:
    """What a tree holds; any value of ``recursive`` descends, as at GitHub."""
    _filled(call)
    sha = call.repo.git.resolve(call.params["tree_sha"], "tree")
    if sha is None:
        raise Problem(404, "Not Found")
    entries = call.repo.git.entries(sha, recursive="recursive" in call.query)
    return Answer(200, views_git.tree(call.world, call.repo, sha, entries))


def _person(given: Json | None, fallback: tuple[str, str, str]) -> tuple[str, str, str]:
    if given is None:
        return fallback
    return given["name"], given["email"], given.get("date", fallback[2])


def create_commit(call: Call) -> Answer:
    """A commit; verified when the app commits under its own name."""
    _filled(call)
    git, body, bot = call.repo.git, call.body, call.author
    if git.object_type(body["tree"]) != "tree":
        raise Problem(422, "Tree SHA does not exist")
    parents = body.get("parents", [])
    for parent in parents:
        if git.object_type(parent) != "commit":
            raise Problem(422, "Parent SHA does not exist or is not a commit object")
    own = changes.signature_of(bot)
    author = _person(body.get("author"), own)
    committer = _person(body.get("committer"), author if body.get("author") else own)
    sha = git.write_commit(body["tree"], parents, body["message"], author, committer)
    if not body.get("author") and not body.get("committer"):
        call.repo.verified.add(sha)
    return Answer(201, views_git.git_commit(call.world, call.repo, git.commit(sha)))


def get_commit(call: Call) -> Answer:
    """A commit by its id."""
    sha = call.params["commit_sha"]
    if call.repo.git.object_type(sha) != "commit":
        raise Problem(404, "Not Found")
    return Answer(200, views_git.git_commit(call.world, call.repo, call.repo.git.commit(sha)))


def get_ref(call: Call) -> Answer:
    """A ref by ``heads/…`` or ``tags/…``."""
    _filled(call)
    name = f"refs/{call.params['ref']}"
    sha = call.repo.git.ref(name)
    if sha is None:
        raise Problem(404, "Not Found")
    return Answer(200, views_git.ref(call.world, call.repo, name, sha))


def matching_refs(call: Call) -> Answer:
    """Refs whose name begins so; an empty list when there are none."""
    _filled(call)
    found = call.repo.git.refs(f"refs/{call.params['ref']}")
    return Answer(200, [views_git.ref(call.world, call.repo, name, sha) for name, sha in found.items()])


def create_ref(call: Call) -> Answer:
    """A new ref."""
    _filled(call)
    name, sha = call.body["ref"], call.body["sha"]
    if not name.startswith("refs/") or name.count("/") < 2:
        raise Problem(422, "Reference name must start with 'refs' and have at least two slashes.")
    if call.repo.git.ref(name) is not None:
        raise Problem(422, "Reference already exists")
    if call.repo.git.object_type(sha) is None:
        raise Problem(422, "Object does not exist")
    _set(call, name, sha)
    return Answer(201, views_git.ref(call.world, call.repo, name, sha))


def update_ref(call: Call) -> Answer:
    """Move a ref; not backwards unless forced."""
    name, sha, git = f"refs/{call.params['ref']}", call.body["sha"], call.repo.git
    old = git.ref(name)
    if old is None:
        raise Problem(422, "Reference does not exist")
    if git.object_type(sha) is None:
        raise Problem(422, "Object does not exist")
    if not call.given.get("force", False) and not git.is_ancestor(old, sha):
        raise Problem(422, "Update is not a fast forward")
    _set(call, name, sha)
    return Answer(200, views_git.ref(call.world, call.repo, name, sha))


def _set(call: Call, name: str, sha: str) -> None:
    try:
        call.repo.git.set_ref(name, sha)
    except GitFailedError as error:
        raise Problem(422, "Reference name is not valid or clashes with another") from error
    call.repo.pushed_at = now()
    branch = name.removeprefix("refs/heads/")
    for pull in call.repo.pulls.values():
        if pull.state == "open" and pull.head == branch:
            moved = {"before": pull.head_sha, "after": sha}
            pull.head_sha = sha
            call.repo.git.set_ref(f"refs/pull/{pull.number}/head", sha)
            changes.announce_pull(call.world, pull, "synchronize", call.author, **moved)


def delete_ref(call: Call) -> Answer:
    """Remove a ref; an open pull request from the branch closes with it."""
    name = f"refs/{call.params['ref']}"
    if call.repo.git.ref(name) is None:
        raise Problem(422, "Reference does not exist")
    call.repo.git.delete_ref(name)
    for pull in call.repo.pulls.values():
        if pull.state == "open" and pull.head == name.removeprefix("refs/heads/"):
            changes.set_state(call.world, pull.issue, "closed", None, call.author, call.installation.app)
    return Answer(204)


_READ, _WRITE = ("contents:read",), ("contents:write",)
_GIT = "/repos/{owner}/{repo}/git"
ROUTES = [
    Route(f"POST {_GIT}/blobs", create_blob, _WRITE),
    Route(f"GET {_GIT}/blobs/{{file_sha}}", get_blob, _READ),
    Route(f"POST {_GIT}/trees", create_tree, _WRITE),
    Route(f"GET {_GIT}/trees/{{tree_sha}}", get_tree, _READ),
    Route(f"POST {_GIT}/commits", create_commit, _WRITE),
    Route(f"GET {_GIT}/commits/{{commit_sha}}", get_commit, _READ),
    Route(f"GET {_GIT}/ref/{{ref}}", get_ref, _READ),
    Route(f"GET {_GIT}/matching-refs/{{ref}}", matching_refs, _READ),
    Route(f"POST {_GIT}/refs", create_ref, _WRITE),
    Route(f"PATCH {_GIT}/refs/{{ref}}", update_ref, _WRITE),
    Route(f"DELETE {_GIT}/refs/{{ref}}", delete_ref, _WRITE),
]
