"""Issues and their comments, labels, reactions."""

from tests.doubles.github import changes, views
from tests.doubles.github.http import Answer, Call, Problem, Route, invalid
from tests.doubles.github.state import Comment, Issue, Json, User, now, stamp

LONGEST_BODY = 65536


def _within_reach(call: Call, issue: Issue) -> Issue:
    # The route lets either permission in; a plain issue is behind ``issues`` alone.
    token, level = call.who.token, "read" if call.method == "GET" else "write"
    kinds = ("issues", "pull_requests") if issue.number in issue.repo.pulls else ("issues",)
    if token and token.reaches(issue.repo) and not any(token.allows(kind, level) for kind in kinds):
        raise Problem(403, "Resource not accessible by integration")
    return issue


def find(call: Call) -> Issue:
    """The issue of the path; 410 when it was deleted."""
    issue = call.repo.issues.get(int(call.params["issue_number"]))
    if issue is None:
        raise Problem(404, "Not Found")
    if issue.deleted:
        raise Problem(410, "This issue was deleted")
    return _within_reach(call, issue)


def _comment(call: Call) -> Comment:
    wanted = int(call.params["comment_id"])
    for issue in call.repo.issues.values():
        for comment in issue.comments:
            if comment.id == wanted and not issue.deleted:
                _within_reach(call, issue)
                return comment
    raise Problem(404, "Not Found")


def check_body(resource: str, body: str | None, *, required: bool = False) -> None:
    """GitHub counts characters, and refuses more than 65536 of them.

    Raises:
        Problem: 422.
    """
    if required and not (body or "").strip():
        raise invalid(resource, "body", "missing_field")
    if body is not None and len(body) > LONGEST_BODY:
        message = f"body is too long (maximum is {LONGEST_BODY} characters)"
        raise invalid(resource, "body", "custom", message)


def get_issue(call: Call) -> Answer:
    """One issue."""
    return Answer(200, views.issue(call.world, find(call)))


def list_issues(call: Call) -> Answer:
    """Issues and pull requests, newest first."""
    state = call.query.get("state", "open")
    found = [one for one in call.repo.issues.values() if not one.deleted and state in {"all", one.state}]
    return call.page([views.issue(call.world, one) for one in sorted(found, key=lambda one: -one.number)])


def create_issue(call: Call) -> Answer:
    """A new issue by the app."""
    check_body("Issue", call.given.get("body"))
    bot, app = call.author, call.installation.app
    issue = changes.open_issue(
        call.world, call.repo, str(call.body["title"]), call.given.get("body"), bot, app
    )
    changes.announce_issue(call.world, issue, "opened", bot)
    for name in call.given.get("labels", []):
        changes.add_label(call.world, issue, name, bot, app)
    return Answer(201, views.issue(call.world, issue))


def update_issue(call: Call) -> Answer:
    """Another title, body or state."""
    issue, bot, app = find(call), call.author, call.installation.app
    check_body("Issue", call.given.get("body"))
    changes.edit_issue(
        call.world, issue, bot, app, title=call.given.get("title"), body=call.given.get("body")
    )
    if "state" in call.given:
        changes.set_state(call.world, issue, call.body["state"], call.given.get("state_reason"), bot, app)
    return Answer(200, views.issue(call.world, issue))


def list_comments(call: Call) -> Answer:
    """Comments, oldest first."""
    since = call.query.get("since", "")
    found = [one for one in find(call).comments if stamp(one.updated_at) >= since]
    return call.page([views.comment(call.world, one) for one in found])


def create_comment(call: Call) -> Answer:
    """A new comment by the app."""
    issue = find(call)
    check_body("IssueComment", call.body["body"], required=True)
    it = changes.comment(call.world, issue, call.body["body"], call.author, call.installation.app)
    return Answer(201, views.comment(call.world, it))


def get_comment(call: Call) -> Answer:
    """One comment."""
    return Answer(200, views.comment(call.world, _comment(call)))


def update_comment(call: Call) -> Answer:
    """Other words."""
    it = _comment(call)
    check_body("IssueComment", call.body["body"], required=True)
    changes.edit_comment(call.world, it, call.body["body"], call.author, call.installation.app)
    return Answer(200, views.comment(call.world, it))


def delete_comment(call: Call) -> Answer:
    """Gone."""
    changes.delete_comment(call.world, _comment(call), call.author, call.installation.app)
    return Answer(204)


def _labels(call: Call, issue: Issue) -> Answer:
    return Answer(200, [views.label(call.world, issue.repo, one) for one in issue.labels])


def list_labels(call: Call) -> Answer:
    """What is on the issue."""
    return _labels(call, find(call))


def add_labels(call: Call) -> Answer:
    """Put labels on; unknown ones are made, as at GitHub."""
    issue = find(call)
    given = call.body.get("labels", []) if isinstance(call.body, dict) else call.body
    for one in given or ():
        name = one if isinstance(one, str) else one["name"]
        changes.add_label(call.world, issue, name, call.author, call.installation.app)
    return _labels(call, issue)


def remove_label(call: Call) -> Answer:
    """Take one label off."""
    issue, name = find(call), call.params["name"]
    if name.lower() not in {one.name.lower() for one in issue.labels}:
        raise Problem(404, "Label does not exist")
    changes.remove_label(call.world, issue, name, call.author, call.installation.app)
    return _labels(call, issue)


def _react(call: Call, given: list[tuple[int, User, str]]) -> Answer:
    content = call.body["content"]
    same = next((one for one in given if one[1] is call.author and one[2] == content), None)
    reaction = same or (next(call.world.ids), call.author, content)
    if same is None:
        given.append(reaction)
    body: Json = {
        "id": reaction[0],
        "node_id": f"REA_{reaction[0]}",
        "user": views.user(call.world, reaction[1]),
        "content": content,
        "created_at": stamp(now()),
    }
    return Answer(200 if same else 201, body)


def react_to_issue(call: Call) -> Answer:
    """201 the first time, 200 when it was there."""
    return _react(call, find(call).reactions)


def react_to_comment(call: Call) -> Answer:
    """201 the first time, 200 when it was there."""
    return _react(call, _comment(call).reactions)


_READ, _WRITE = ("issues:read", "pull_requests:read"), ("issues:write", "pull_requests:write")
_ISSUES = "/repos/{owner}/{repo}/issues"
ROUTES = [
    Route(f"GET {_ISSUES}/comments/{{comment_id}}", get_comment, _READ),
    Route(f"PATCH {_ISSUES}/comments/{{comment_id}}", update_comment, _WRITE),
    Route(f"DELETE {_ISSUES}/comments/{{comment_id}}", delete_comment, _WRITE),
    Route(f"POST {_ISSUES}/comments/{{comment_id}}/reactions", react_to_comment, _WRITE),
    Route(f"GET {_ISSUES}", list_issues, _READ),
    Route(f"POST {_ISSUES}", create_issue, ("issues:write",)),
    Route(f"GET {_ISSUES}/{{issue_number}}", get_issue, _READ),
    Route(f"PATCH {_ISSUES}/{{issue_number}}", update_issue, _WRITE),
    Route(f"GET {_ISSUES}/{{issue_number}}/comments", list_comments, _READ),
    Route(f"POST {_ISSUES}/{{issue_number}}/comments", create_comment, _WRITE),
    Route(f"GET {_ISSUES}/{{issue_number}}/labels", list_labels, _READ),
    Route(f"POST {_ISSUES}/{{issue_number}}/labels", add_labels, _WRITE),
    Route(f"DELETE {_ISSUES}/{{issue_number}}/labels/{{name}}", remove_label, _WRITE),
    Route(f"POST {_ISSUES}/{{issue_number}}/reactions", react_to_issue, _WRITE),
]
