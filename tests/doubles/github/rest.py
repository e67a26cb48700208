"""The REST interface: who may call what, then the handler."""

import json
from collections.abc import Mapping
from typing import Any

from tests.doubles.github import rest_app, rest_git, rest_hooks, rest_issues, rest_pulls, rest_repos
from tests.doubles.github.auth import DeniedError, Identity, Token, Vault
from tests.doubles.github.http import Answer, Call, Problem, Route
from tests.doubles.github.openapi import Operation, Rest
from tests.doubles.github.state import Repository, World

ROUTES: dict[str, Route] = {
    route.endpoint: route
    for module in (rest_app, rest_hooks, rest_repos, rest_issues, rest_git, rest_pulls)
    for route in module.ROUTES
}
VERSIONS = {"2022-11-28", "2026-03-10"}
_UNAUTHORISED = "A JSON web token could not be decoded"
_FORBIDDEN = "Resource not accessible by integration"


def identify(vault: Vault, headers: Mapping[str, str]) -> Identity:
    """Who sent the request; ``Bearer`` and ``token`` are both good, as at GitHub.

    Raises:
        DeniedError: the credential is no good.
    """
    given = headers.get("authorization")
    if given is None:
        return Identity()
    scheme, _, credential = given.partition(" ")
    if scheme.lower() not in {"bearer", "token"} or not credential:
        raise DeniedError(401, "Bad credentials")
    return vault.identify(credential.strip())


def authorise(world: World, who: Identity, route: Route, params: Mapping[str, str]) -> None:
    """Let the request pass or raise GitHub's refusal.

    Raises:
        Problem: 401, 403 or 404; a private repository out of reach looks absent.
    """
    if route.auth == "app" and who.app is None:
        raise Problem(401, _UNAUTHORISED)
    if route.auth == "token" and who.token is None:
        raise Problem(401, "Requires authentication")
    if route.auth == "repository":
        _authorise_repository(world.repository(params["owner"], params["repo"]), who, route)


def _authorise_repository(repo: Repository | None, who: Identity, route: Route) -> None:
    reads = route.endpoint.startswith("GET ")
    if who.app is not None:
        raise Problem(401, "Requires authentication")
    within = who.token is not None and repo is not None and who.token.reaches(repo)
    if repo is None or (repo.private and not within):
        raise Problem(404, "Not Found")
    if who.token is None and not reads:
        raise Problem(401, "Requires authentication")
    if not within and (not reads or route.handler is rest_repos.permission):
        raise Problem(403 if who.token else 401, _FORBIDDEN if who.token else "Requires authentication")
    if within and who.token is not None and not _suffices(who.token, route):
        problem = Problem(403, _FORBIDDEN)
        problem.headers["x-accepted-github-permissions"] = "; ".join(
            need.replace(":", "=") for need in route.needs
        )
        raise problem
    if repo.archived and not reads:
        raise Problem(403, "Repository was archived so is read-only.")


def _suffices(token: Token, route: Route) -> bool:
    return any(token.allows(*need.split(":")) for need in route.needs)


def parse(body: bytes) -> Any:
    """The JSON of a body; nothing is ``None``.

    Raises:
        Problem: 400.
    """
    try:
        given = json.loads(body) if body else None
        json.dumps(given, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except ValueError as error:
        raise Problem(400, "Problems parsing JSON") from error
    return given


def check_headers(headers: Mapping[str, str]) -> None:
    """GitHub refuses clients without a name, and versions it does not know.

    Raises:
        Problem: 403 or 400.
    """
    if not headers.get("user-agent"):
        raise Problem(
            403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent."
        )
    version = headers.get("x-github-api-version")
    if version is not None and version not in VERSIONS:
        raise Problem(400, f"{version} is not a supported API version")


def apply(call: Call, operation: Operation, described: Rest, violations: list[str]) -> Answer:
    """Authorise, check against the description, handle, check the answer."""
    route = ROUTES.get(operation.endpoint)
    if route is None:
        violations.append(f"{operation.endpoint}: the double does not have this endpoint")
        raise Problem(404, "Not Found")
    authorise(call.world, call.who, route, call.params)
    wrong = described.wrong_request(operation, call.params, call.query, call.body)
    unknown = described.unknown_in_request(operation, call.query, call.body)
    violations += [f"{operation.endpoint}: {why}" for why in (*wrong, *unknown)]
    if wrong:
        raise Problem(422, f"Invalid request.\n\n{wrong[0]}")
    return route.handler(call)
