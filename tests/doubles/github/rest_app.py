"""The app's own endpoints: itself, installations, tokens, deliveries."""

from tests.doubles.github import views
from tests.doubles.github.auth import LEVELS
from tests.doubles.github.http import Answer, Call, Problem, Route
from tests.doubles.github.state import Installation, Json, Repository, stamp


def get_app(call: Call) -> Answer:
    """The app behind the JWT."""
    theirs = [one for one in call.world.installations.values() if one.app is call.app and not one.deleted]
    permissions = {name: level for one in theirs for name, level in one.permissions.items()}
    shown = views.app(call.world, call.app, permissions)
    return Answer(200, {**shown, "installations_count": len(theirs)})


def list_installations(call: Call) -> Answer:
    """Where the app is installed."""
    found = [one for one in call.world.installations.values() if one.app is call.app and not one.deleted]
    return call.page([views.installation(call.world, one) for one in found])


def _installation(call: Call) -> Installation:
    found = call.world.installations.get(int(call.params["installation_id"]))
    if found is None or found.app is not call.app or found.deleted:
        raise Problem(404, "Not Found")
    return found


def get_installation(call: Call) -> Answer:
    """One installation."""
    return Answer(200, views.installation(call.world, _installation(call)))


def installation_of_repository(call: Call) -> Answer:
    """The app's installation that reaches a repository."""
    repo = call.world.repository(call.params["owner"], call.params["repo"])
    found = call.world.installation_of(call.app, repo) if repo else None
    if found is None:
        raise Problem(404, "Not Found")
    return Answer(200, views.installation(call.world, found))


def _narrowed(installation: Installation, asked: Json) -> list[Repository]:
    names, ids = asked.get("repositories"), asked.get("repository_ids")
    if names is None and ids is None:
        return list(installation.repositories)
    by_name = {repo.name.lower(): repo for repo in installation.repositories}
    by_id = {repo.id: repo for repo in installation.repositories}
    found = [by_name.get(name.lower()) for name in names or ()] + [by_id.get(one) for one in ids or ()]
    chosen = [repo for repo in found if repo is not None]
    if len(chosen) != len(found):
        raise Problem(
            422,
            "There is at least one repository that does not exist or is not accessible to the parent "
            "installation.",
        )
    return list(dict.fromkeys(chosen))


def create_token(call: Call) -> Answer:
    """A token, narrowed to the repositories and permissions asked for; wider than the installation is 422."""
    installation = _installation(call)
    if installation.suspended:
        raise Problem(403, "This installation has been suspended")
    asked: Json = call.body or {}
    repositories = _narrowed(installation, asked)
    permissions = asked.get("permissions", installation.permissions)
    for name, level in permissions.items():
        granted = installation.permissions.get(name, "none")
        if level not in LEVELS or LEVELS.index(level) > LEVELS.index(granted):
            raise Problem(422, "The permissions requested are not granted to this installation.")
    token = call.vault.mint(installation, repositories, permissions)
    body: Json = {
        "token": token.value,
        "expires_at": stamp(token.expires_at),
        "permissions": token.permissions,
        "repository_selection": "selected",
    }
    if "repositories" in asked or "repository_ids" in asked:
        body["repositories"] = [views.repository(call.world, repo) for repo in repositories]
    return Answer(201, body)


def revoke_token(call: Call) -> Answer:
    """The token that asks is good no longer."""
    if call.who.token is not None:
        call.who.token.revoked = True
    return Answer(204)


def list_repositories(call: Call) -> Answer:
    """What the token reaches."""
    reached = call.who.token.repositories if call.who.token else []
    page = call.page([views.repository(call.world, repo) for repo in reached])
    return Answer(200, {"total_count": len(reached), "repositories": page.body}, page.headers)


def rate_limit(call: Call) -> Answer:
    """The limits; the double counts nothing against them."""
    core = {"limit": 5000, "used": 0, "remaining": 5000, "reset": 4102444800}
    return Answer(200, {"resources": {"core": core, "search": core}, "rate": core})


def get_user(call: Call) -> Answer:
    """An account by its login."""
    found = call.world.users.get(call.params["username"].lower())
    if found is None:
        raise Problem(404, "Not Found")
    return Answer(200, views.public_user(call.world, found))


ROUTES = [
    Route("GET /app", get_app, auth="app"),
    Route("GET /app/installations", list_installations, auth="app"),
    Route("GET /app/installations/{installation_id}", get_installation, auth="app"),
    Route("POST /app/installations/{installation_id}/access_tokens", create_token, auth="app"),
    Route("GET /repos/{owner}/{repo}/installation", installation_of_repository, auth="app"),
    Route("DELETE /installation/token", revoke_token, auth="token"),
    Route("GET /installation/repositories", list_repositories, auth="token"),
    Route("GET /rate_limit", rate_limit, auth="open"),
    Route("GET /users/{username}", get_user, auth="open"),
]
