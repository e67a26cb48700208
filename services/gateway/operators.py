"""What operators ask for over HTTP, as answers without the HTTP: credentials, runs, the state of things."""

from typing import Annotated, Any, NamedTuple

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from contracts.subjects import RUNNERS_SUBJECT, history_subject
from contracts.tools import RunnerStatus
from contracts.vault import AskView, ClearCredentials, Secret, StoreCredentials, View
from services.gateway.act import Desk, RunActive
from services.gateway.deliveries import Deliveries
from services.gateway.inbox import TEXT_BYTES, TITLE_BYTES, FullName, bounded
from services.gateway.webhook_secrets import Keeper
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.errors import Later, Refused

_STATUS = {
    "not_configured": 409,
    "invalid": 400,
    "unreadable": 400,
    "rolled_back": 409,
    "repository_not_installed": 404,
    "not_entitled": 500,
}


class Outcome(NamedTuple):
    """HTTP status and JSON body."""

    status: int
    body: Any


class _Issue(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    title: Annotated[str, msgspec.Meta(min_length=1)]
    body: str | None = None
    url: str | None = None


class _Process(msgspec.Struct, forbid_unknown_fields=True):
    repository: FullName
    issue: _Issue
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


def problem(error: Later | Refused | SQLAlchemyError | OSError) -> Outcome:
    """One of our errors, or the inbox's, as an answer."""
    match error:
        case Later():
            return Outcome(503, {"error": f"{error}; try again", "kind": error.kind})
        case Refused():
            return Outcome(_STATUS.get(error.kind, 422), {"error": str(error), "kind": error.kind})
        case _:
            return Outcome(
                503, {"error": "the inbox does not answer; try again", "kind": "inbox_unavailable"}
            )


class Operators:
    """Carries operators' requests out.

    Args:
        github_url: where issues are, for their links.
    """

    def __init__(self, bus: Bus, keeper: Keeper, deliveries: Deliveries, desk: Desk, github_url: str) -> None:
        self._bus = bus
        self._keeper = keeper
        self._deliveries = deliveries
        self._desk = desk
        self._github_url = github_url

    async def view(self) -> Outcome:
        """What is stored, without any secret."""
        return _shown(await ask_vault(self._bus, "gateway", AskView(), View))

    async def store(self, body: bytes) -> Outcome:
        """Store what was given."""
        try:
            given = msgspec.json.decode(body)
            if not isinstance(given, dict):
                return Outcome(400, {"error": "give a JSON object: appId, privateKey, webhookSecret, …"})
            if "type" in given:
                return Outcome(400, {"error": "unknown field `type`"})
            wanted = msgspec.convert({**given, "type": "store"}, StoreCredentials, dec_hook=_secret)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Outcome(400, {"error": _why(error)})
        view = await ask_vault(self._bus, "gateway", wanted, View)
        await self._keeper.changed()
        return _shown(view)

    async def clear(self) -> Outcome:
        """Forget everything."""
        view = await ask_vault(self._bus, "gateway", ClearCredentials(), View)
        await self._keeper.changed()
        return _shown(view)

    async def process(self, body: bytes) -> Outcome:
        """Start a run directly."""
        try:
            wanted = msgspec.json.decode(body, type=_Process)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Outcome(400, {"error": _why(error)})
        issue = wanted.issue
        url = issue.url or f"{self._github_url}/{wanted.repository}/issues/{issue.number}"
        key, done = await self._desk.start(
            wanted.repository,
            issue.number,
            bounded(issue.title, TITLE_BYTES),
            bounded(issue.body or "", TEXT_BYTES),
            wanted.key,
            bounded(url, 1024),
        )
        events = f"/api/issues/{wanted.repository}/{issue.number}/events"
        if isinstance(done, RunActive):
            words = f"run {done.run} is working on this issue; end it with /millrace stop, or wait"
            return Outcome(409, {"error": words, "run": done.run, "events": events})
        await self._deliveries.note_run(f"operator-{done.run}", key.repository_id, key.issue, done.run)
        return Outcome(202, {"status": "accepted", "run": done.run, "events": events})

    async def runners(self) -> Outcome:
        """Every runner that answers, with its sandboxes; 503 if none does."""
        answers = await self._bus.ask_all(RUNNERS_SUBJECT, b"")
        runners = sorted((msgspec.json.decode(a, type=RunnerStatus) for a in answers), key=lambda r: r.runner)
        held = sum(len(runner.sandboxes) for runner in runners)
        status = "ok" if runners else "no runner answers: start `millrace serve sandbox_runner`"
        body = {"status": status, "sandboxes": held, "runners": msgspec.to_builtins(runners)}
        return Outcome(200 if runners else 503, body)

    async def issues(self, limit: int) -> Outcome:
        """The newest runs."""
        question = msgspec.json.encode({"limit": limit})
        return Outcome(200, msgspec.json.decode(await self._bus.ask(history_subject("issues"), question)))

    async def events(self, full_name: str, number: int) -> Outcome:
        """Everything about one issue."""
        question = msgspec.json.encode({"full_name": full_name, "number": number})
        answer = msgspec.json.decode(await self._bus.ask(history_subject("events"), question, timeout=30))
        if "error" in answer:
            return Outcome(404, {"error": f"no run of {full_name}#{number} is known"})
        return Outcome(200, answer)

    async def deliveries(self, limit: int) -> Outcome:
        """The newest deliveries and what became of them."""
        return Outcome(200, await self._deliveries.recent(limit))

    async def revive(self, delivery: str) -> Outcome:
        """Try a dead delivery anew."""
        if await self._deliveries.revive(delivery):
            return Outcome(202, {"delivery": delivery, "status": "accepted"})
        return Outcome(404, {"error": "no dead delivery has this id"})


def _shown(view: View) -> Outcome:
    shown = msgspec.to_builtins(view)
    shown.pop("type")
    return Outcome(200, {"configured": bool(view.apps) and view.model_key is not None, **shown})


def _secret(kind: type, value: Any) -> Any:
    if kind is not Secret or not isinstance(value, str):
        raise ValueError("expected a string")
    return Secret(value)


def _why(error: Exception) -> str:
    """What is wrong with a body; msgspec names types and places, never values."""
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    return "the body is not JSON"
