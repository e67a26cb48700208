"""Pull requests between branches of one repository."""

from tests.doubles.github import changes, views_git
from tests.doubles.github.http import Answer, Call, Problem, Route, invalid
from tests.doubles.github.rest_issues import check_body
from tests.doubles.github.state import Issue, PullRequest


def _find(call: Call) -> PullRequest:
    found = call.repo.pulls.get(int(call.params["pull_number"]))
    if found is None:
        raise Problem(404, "Not Found")
    return found


def _custom(message: str) -> Problem:
    return invalid("PullRequest", None, "custom", message)


def create_pull(call: Call) -> Answer:
    """A pull request; one per head and base may be open."""
    repo, body, git = call.repo, call.given, call.repo.git
    check_body("PullRequest", body.get("body"))
    owner, _, head = body["head"].rpartition(":")
    base = body["base"]
    head_sha, base_sha = git.ref(f"refs/heads/{head}"), git.ref(f"refs/heads/{base}")
    if base_sha is None:
        raise invalid("PullRequest", "base")
    if head_sha is None or owner.lower() not in {"", repo.owner.login.lower()}:
        raise invalid("PullRequest", "head")
    if any(one.state == "open" and (one.head, one.base) == (head, base) for one in repo.pulls.values()):
        raise _custom(f"A pull request already exists for {repo.owner.login}:{head}.")
    if not git.commits_between(base_sha, head_sha):
        raise _custom(f"No commits between {base} and {head}")
    if not body.get("title"):
        raise invalid("PullRequest", "title", "missing_field")
    bot, app = call.author, call.installation.app
    pull = changes.open_pull(
        call.world, repo, (head, base), body["title"], body.get("body"), bot, app,
        draft=body.get("draft", False), maintainer_can_modify=body.get("maintainer_can_modify", False),
    )  # fmt: skip
    return Answer(201, views_git.pull(call.world, pull))


def list_pulls(call: Call) -> Answer:
    """Newest first; ``head`` filters by ``owner:branch`` and, as at GitHub, is ignored without an owner."""
    state = call.query.get("state", "open")
    found = [one for one in call.repo.pulls.values() if state in {"all", one.state}]
    owner, colon, branch = call.query.get("head", "").partition(":")
    if colon:
        same = owner.lower() == call.repo.owner.login.lower()
        found = [one for one in found if same and one.head == branch]
    if "base" in call.query:
        found = [one for one in found if one.base == call.query["base"]]
    newest = sorted(found, key=lambda one: one.number, reverse=call.query.get("direction", "desc") == "desc")
    return call.page([views_git.pull_simple(call.world, one) for one in newest])


def get_pull(call: Call) -> Answer:
    """One pull request."""
    return Answer(200, views_git.pull(call.world, _find(call)))


def update_pull(call: Call) -> Answer:
    """Another title, body, base or state. ``draft`` is not among what this endpoint changes."""
    pull, body, bot, app = _find(call), call.given, call.author, call.installation.app
    issue: Issue = pull.issue
    check_body("PullRequest", body.get("body"))
    if "base" in body:
        base_sha = call.repo.git.ref(f"refs/heads/{body['base']}")
        if base_sha is None:
            raise invalid("PullRequest", "base")
        pull.base, pull.base_sha = body["base"], base_sha
    changes.edit_issue(call.world, issue, bot, app, title=body.get("title"), body=body.get("body"))
    reopens = body.get("state") == "open" and issue.state == "closed"
    if reopens and (pull.merged_at or call.repo.git.ref(f"refs/heads/{pull.head}") is None):
        raise invalid("PullRequest", "state")
    if "state" in body:
        changes.set_state(call.world, issue, body["state"], None, bot, app)
    return Answer(200, views_git.pull(call.world, pull))


def list_files(call: Call) -> Answer:
    """What a pull request changes."""
    pull = _find(call)
    changed = call.repo.git.changed_files(pull.base_sha, pull.head_sha)
    return call.page([views_git.file_of_pull(call.world, pull, one) for one in changed])


def list_commits(call: Call) -> Answer:
    """What a pull request adds, oldest first."""
    pull, git = _find(call), call.repo.git
    shas = git.commits_between(pull.base_sha, pull.head_sha)
    return call.page([views_git.commit(call.world, call.repo, git.commit(sha)) for sha in shas])


_READ, _WRITE = ("pull_requests:read",), ("pull_requests:write",)
_PULLS = "/repos/{owner}/{repo}/pulls"
ROUTES = [
    Route(f"POST {_PULLS}", create_pull, _WRITE),
    Route(f"GET {_PULLS}", list_pulls, _READ),
    Route(f"GET {_PULLS}/{{pull_number}}", get_pull, _READ),
    Route(f"PATCH {_PULLS}/{{pull_number}}", update_pull, _WRITE),
    Route(f"GET {_PULLS}/{{pull_number}}/files", list_files, _READ),
    Route(f"GET {_PULLS}/{{pull_number}}/commits", list_commits, _READ),
]
