"""A request and its answer, as the handlers see them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.github.auth import Identity, Vault
from tests.doubles.github.state import App, Installation, Json, Repository, User, World

DOCUMENTATION = "https://docs.github.com/rest"


@dataclass(frozen=True)
class Answer:
    """``body`` is JSON, raw bytes, or ``None`` for no body."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(Exception):  # noqa: N818  it is an answer, raised
    """GitHub's refusal: a message, and for 422 the errors behind it."""

    def __init__(self, status: int, message: str, errors: list[Json] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.errors = status, message, errors
        self.headers: dict[str, str] = {}

    def answer(self) -> Answer:
        """In GitHub's shape (schemas basic-error, validation-error)."""
        body: Json = {"message": self.message, "documentation_url": DOCUMENTATION, "status": str(self.status)}
        if self.errors is not None:
            body["errors"] = self.errors
        return Answer(self.status, body, self.headers)


def invalid(
    resource: str, field_name: str | None = None, code: str = "invalid", message: str = ""
) -> Problem:
    """A validation failure in GitHub's words."""
    error: Json = {"resource": resource, "code": code}
    if field_name is not None:
        error["field"] = field_name
    if message:
        error["message"] = message
    return Problem(422, "Validation Failed", [error])


@dataclass
class Call:
    """One request, matched to its route and past authorisation."""

    world: World
    vault: Vault
    method: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    who: Identity
    path: str

    @property
    def given(self) -> Json:
        """The object in the body; none is an empty one."""
        return self.body or {}

    @property
    def repo(self) -> Repository:
        """The repository of the path; authorisation made sure that there is one."""
        found = self.world.repository(self.params["owner"], self.params["repo"])
        if found is None:
            raise Problem(404, "Not Found")
        return found

    @property
    def app(self) -> App:
        """The app that signed the JWT."""
        if self.who.app is None:
            raise Problem(401, "A JSON web token could not be decoded")
        return self.who.app

    @property
    def installation(self) -> Installation:
        """The installation behind the token."""
        if self.who.token is None:
            raise Problem(403, "Resource not accessible by integration")
        return self.who.token.installation

    @property
    def author(self) -> User:
        """Who writes: the app's bot."""
        return self.installation.app.bot

    def page(self, items: list[Any]) -> Answer:
        """One page of a list, with the link to the next (GitHub: 30 by default, at most 100)."""
        size = min(int(self.query.get("per_page", "30")), 100)
        number = max(int(self.query.get("page", "1")), 1)
        start = (number - 1) * size
        headers = {}
        if start + size < len(items):
            extra = "".join(
                f"&{key}={value}" for key, value in self.query.items() if key not in {"page", "per_page"}
            )
            link = f"{self.world.api_url}{self.path}?per_page={size}&page={number + 1}{extra}"
            headers["link"] = f'<{link}>; rel="next"'
        return Answer(200, items[start : start + size], headers)


Handler = Callable[[Call], Answer]


@dataclass(frozen=True)
class Route:
    """``endpoint`` is method and template; ``needs`` the permissions of which one suffices.

    ``auth``: ``app`` (a JWT), ``token`` (any installation token), ``repository`` (the repository of the
    path must be within reach), ``open`` (anybody).
    """

    endpoint: str
    handler: Handler
    needs: tuple[str, ...] = ("metadata:read",)
    auth: str = "repository"
