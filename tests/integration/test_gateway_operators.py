"""What operators meet: every route, with and without their token, with its dependencies there and away."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio

from contracts import facts as f
from contracts.subjects import PROCESS_SUBJECT, RUNNERS_SUBJECT, STREAM
from contracts.tools import RunnerStatus
from services.gateway import follow
from services.kit.operator import operator_token
from tests.integration.gateway_kit import SECRET, SOON, Place, place

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = [("GET", "/"), ("GET", "/health"), ("GET", "/ready")]
GUARDED = [
    ("GET", "/config"),
    ("POST", "/config"),
    ("DELETE", "/config"),
    ("POST", "/container/process"),
    ("GET", "/container/health"),
    ("GET", "/api/issues"),
    ("GET", "/api/issues/acme/calc/1/events"),
    ("GET", "/api/deliveries"),
    ("POST", "/api/deliveries/x/retry"),
    ("GET", "/metrics"),
    ("GET", "/schema"),
]
MODEL_KEY = "sk-ant-canary-0123456789-abcd"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A gateway with a history for tests that do not get in each other's way."""
    async with place(tmp_path_factory.mktemp("gateway"), SOON) as it, it.history():
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[Place]:
    """A gateway of this test's own."""
    async with place(tmp_path, SOON) as it:
        yield it


def work(number: int, **changes: Any) -> dict[str, Any]:
    """What an operator sends to start a run."""
    issue = {"number": number, "title": "It adds wrongly", "body": "1 + 1 gives 3"}
    return {"repository": "acme/calc", "issue": issue, **changes}


async def asks(it: Place, body: Any, *, headers: dict[str, str] | None = None) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await it.client.post(
        "/container/process", content=content, headers=it.operator() if headers is None else headers
    )


async def stores(it: Place, body: Any, client: httpx2.AsyncClient | None = None) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await (client or it.client).post("/config", content=content, headers=it.operator())


# --- who may ask --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), PUBLIC)
async def test_these_are_for_anyone(shared: Place, method: str, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert (await shared.client.request(method, path, headers=headers)).status_code == 200


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_these_are_for_operators(shared: Place, method: str, path: str) -> None:
    token = operator_token(shared.settings)
    for header in (
        None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {token}x", f"Bearer {token[:-1]}",
        f"Basic {token}", token, f"Bearer {token.upper()}", f"Token {token}", "Bearer \xe9",
    ):  # fmt: skip
        headers = [] if header is None else [(b"authorization", header.encode("latin-1").strip())]
        answer = await shared.client.request(method, path, headers=headers)
        assert answer.status_code == 401, (header, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json()["error"]
        assert token not in answer.text


async def test_the_token_is_asked_for_before_anything_is_read(shared: Place) -> None:
    answer = await shared.client.post("/config", content=b"\xff" * 2_000_000)
    assert answer.status_code == 401


async def test_the_scheme_of_the_token_is_read_in_any_case(shared: Place) -> None:
    token = operator_token(shared.settings)
    for scheme in ("bearer", "BEARER"):
        answer = await shared.client.get("/config", headers={"authorization": f"{scheme} {token}"})
        assert answer.status_code == 200


async def test_the_token_lies_in_a_file_for_its_owner_only(shared: Place) -> None:
    file = shared.settings.home / "admin-token"
    assert file.read_text().startswith("mlr_")
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_token_can_be_set(tmp_path: Path) -> None:
    async with place(tmp_path, SOON, admin_token="set by the operator") as it:
        assert (await it.get("/config")).status_code == 200
        assert it.operator() == {"authorization": "Bearer set by the operator"}


# --- the front page, health, errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
    ],
)
async def test_the_front_page_is_for_browsers_and_for_programs(shared: Place, accept: str, kind: str) -> None:
    answer = await shared.client.get("/", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    if kind == "application/json":
        assert answer.json() == {"name": "millrace", "version": answer.json()["version"], "status": "running"}
    else:
        assert "<h1>Millrace</h1>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404), ("POST", "/nowhere", 404), ("GET", "/config/x", 404),
        ("GET", "/api/issues/acme/calc/x/events", 404), ("GET", f"/api/issues/a/b/{'9' * 5000}/events", 404),
        ("DELETE", "/", 405), ("PUT", "/config", 405), ("GET", "/container/process", 405),
        ("POST", "/api/issues", 405), ("GET", "/api/issues?limit=0", 400),
        ("GET", "/api/issues?limit=x", 400),
        ("GET", "/api/issues?limit=1001", 400), ("GET", "/api/deliveries?limit=-1", 400),
        ("GET", "/api/issues/acme/calc/0/events", 400), ("GET", f"/api/issues/a/b/{2**63}/events", 400),
    ],
)  # fmt: skip
async def test_every_error_is_json_with_a_sentence(
    shared: Place, method: str, path: str, status: int
) -> None:
    answer = await shared.client.request(method, path, headers=shared.operator())
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)


async def test_ready_names_what_is_away(own: Place) -> None:
    ready = await own.client.get("/ready")
    everything = {"nats": "ok", "database": "ok", "vault": "ok"}
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "dependencies": everything})

    await own.stop_vault()  # what it told is remembered
    assert (await own.client.get("/ready")).status_code == 200

    with own.locked_inbox():
        ready = await own.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "degraded")
        assert ready.json()["dependencies"]["database"] == "the inbox does not answer"
        for path in ("/api/deliveries", "/metrics"):  # to look costs no lock
            assert (await own.get(path)).status_code == 200

    inbox = sqlite3.connect(own.settings.home / "gateway.sqlite3", isolation_level=None)
    inbox.execute("ALTER TABLE deliveries RENAME TO mislaid")
    ready = await own.client.get("/ready")
    assert "OperationalError" in ready.json()["dependencies"]["database"]
    for path in ("/api/deliveries", "/metrics"):
        answer = await own.get(path)
        assert (answer.status_code, answer.json()["kind"]) == (503, "inbox_unavailable")
        assert answer.headers["retry-after"]
    assert (await own.post(b"{}", event="push")).status_code == 503
    inbox.execute("ALTER TABLE mislaid RENAME TO deliveries")
    inbox.close()
    assert (await own.client.get("/ready")).status_code == 200

    await own.stop_nats()
    ready = await own.client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["dependencies"] == everything | {"nats": "NATS is not connected"}
    assert (await own.client.get("/health")).status_code == 200


async def test_without_nats_and_history_operators_are_told_so(own: Place) -> None:
    history = [("GET", "/api/issues", None), ("GET", "/api/issues/acme/calc/1/events", None)]
    needs_nats = [
        *history,
        ("GET", "/config", None),
        ("POST", "/config", {"webhookSecret": "new"}),
        ("DELETE", "/config", None),
        ("POST", "/container/process", work(1)),
        ("GET", "/container/health", None),
    ]
    for method, path, _ in history:
        answer = await own.client.request(method, path, headers=own.operator())
        assert (answer.status_code, answer.json()["kind"]) == (503, "no_responders")
    await own.stop_nats()
    for method, path, body in needs_nats:
        answer = await own.client.request(method, path, json=body, headers=own.operator())
        assert answer.status_code == 503, (path, answer.text)
        assert answer.json()["error"]
    for path in ("/api/deliveries", "/metrics", "/schema", "/"):
        assert (await own.get(path)).status_code == 200


# --- credentials --------------------------------------------------------------------------------------


async def test_what_is_absent_stays_as_it_is_and_no_secret_is_ever_shown(own: Place) -> None:
    before = (await own.get("/config")).json()
    assert (before["configured"], before["modelKey"], before["readOnly"]) == (False, None, "")
    (app,) = before["apps"]
    assert app["appId"] == own.app.id
    assert app["privateKeyFingerprint"].startswith("SHA256:")

    stored = await stores(own, {"anthropicApiKey": MODEL_KEY})
    assert (stored.status_code, stored.json()["configured"]) == (200, True)
    assert stored.json()["modelKey"]["ending"] == MODEL_KEY[-4:]
    assert stored.json()["apps"] == [app]

    stored = await stores(own, {"installationId": own.installation.id})
    assert stored.json()["apps"] == [app | {"installationId": own.installation.id}]

    stored = await stores(own, {"appId": own.app.id, "webhookSecret": "changed"})
    (changed,) = stored.json()["apps"]
    assert changed["webhookSecretUpdatedAt"] > app["webhookSecretUpdatedAt"]
    assert changed["privateKeyUpdatedAt"] == app["privateKeyUpdatedAt"]
    assert datetime.fromisoformat(changed["webhookSecretUpdatedAt"]).tzinfo is not None

    shown = (await own.get("/config")).text + stored.text
    for secret in (SECRET, "changed", MODEL_KEY, own.app.private_key_pem.splitlines()[1]):
        assert secret not in shown


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"webhookSecret":"\xff"}', "not JSON"),
        (b'{"webhookSecret":"\\ud800"}', "not JSON"),
        (b'{"a":' * 10_000, "not JSON"),
        ([], "a JSON object"),
        ("text", "a JSON object"),
        ({}, "nothing was submitted"),
        ({"appID": 1}, "`appID`"),
        ({"type": "clear"}, "`type`"),
        ({"webhook_secret": "x"}, "`webhook_secret`"),
        ({"appId": "1001"}, "$.appId"),
        ({"appId": 1.5}, "$.appId"),
        ({"appId": -1}, "appId"),
        ({"appId": 10**30, "webhookSecret": "x"}, "appId"),
        ({"installationId": True}, "$.installationId"),
        ({"installationId": 0}, "installationId"),
        ({"webhookSecret": 7}, "$.webhookSecret"),
        ({"webhookSecret": ["x"]}, "$.webhookSecret"),
        ({"webhookSecret": ""}, "webhookSecret"),
        ({"webhookSecret": " x"}, "webhookSecret"),
        ({"webhookSecret": "x" * 2000}, "webhookSecret"),
        ({"privateKey": "canary-not-a-key"}, "privateKey"),
        ({"anthropicApiKey": "canary\nkey"}, "anthropicApiKey"),
        ({"appId": 4711, "webhookSecret": "canary"}, "4711"),
    ],
)
async def test_a_wrong_submission_names_the_field_and_quotes_no_value(
    shared: Place, body: Any, words: str
) -> None:
    before = (await shared.get("/config")).json()
    answer = await stores(shared, body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]
    assert "canary" not in answer.text
    assert (await shared.get("/config")).json() == before


@pytest.mark.parametrize("size", [400_000, 600_000, 3_000_000])
async def test_a_submission_of_any_size_is_refused_in_words(shared: Place, size: int) -> None:
    answer = await stores(shared, {"webhookSecret": "x" * size})
    assert answer.status_code == (400 if size < 500_000 else 413)
    assert answer.json()["error"]


async def test_a_changed_webhook_secret_counts_at_once_on_every_replica(own: Place) -> None:
    async with own.another_gateway() as other:
        raw = b"{}"
        assert (await stores(own, {"webhookSecret": "changed"}, client=other)).status_code == 200
        for client in (other, own.client):
            async with asyncio.timeout(5):  # the other replica hears of it over NATS
                while (await _delivers(own, client, raw, "changed")) != 202:
                    continue
            assert await _delivers(own, client, raw, SECRET) == 401


async def _delivers(it: Place, client: httpx2.AsyncClient, raw: bytes, secret: str) -> int:
    headers = it.headers(raw, event="push", secret=secret)
    return (await client.post("/webhook/github", content=raw, headers=headers)).status_code


async def test_after_everything_was_forgotten_nothing_is_signed_and_nothing_can_start(own: Place) -> None:
    waiting = (await own.post(own.issue_event())).json()["delivery"]
    assert (await own.settled(waiting))["state"] == "relayed"
    cleared = await own.client.request("DELETE", "/config", headers=own.operator())
    assert cleared.status_code == 200
    assert (cleared.json()["configured"], cleared.json()["apps"]) == (False, [])
    assert (await own.post(own.issue_event())).status_code == 401
    answer = await asks(own, work(1))
    assert (answer.status_code, answer.json()["kind"]) == (409, "not_configured")
    again = {"appId": own.app.id, "privateKey": own.app.private_key_pem, "webhookSecret": SECRET}
    assert (await stores(own, again)).status_code == 200
    assert (await own.post(own.issue_event(number=8))).status_code == 202


# --- starting a run -----------------------------------------------------------------------------------


async def test_an_operator_starts_a_run(shared: Place) -> None:
    answer = await asks(shared, work(101))
    assert answer.status_code == 202
    told = answer.json()
    (recorded,) = await shared.facts(101)
    assert told == {
        "status": "accepted", "run": recorded.key.run, "events": "/api/issues/acme/calc/101/events",
    }  # fmt: skip
    assert isinstance(recorded.fact, f.RunRequested)
    assert recorded.fact.issue.url == f"{shared.github.url}/acme/calc/issues/101"
    assert (recorded.fact.trigger.kind, recorded.fact.trigger.permission) == ("operator", "admin")
    assert recorded.fact.installation_id == shared.installation.id

    # While that goes on there is no second; the first is named.
    again = await asks(shared, work(101))
    assert (again.status_code, again.json()["run"]) == (409, recorded.key.run)
    comment = await shared.post(shared.comment_event("/millrace", 101, 1), event="issue_comment")
    assert (await shared.settled(comment.json()["delivery"]))["reason"] == "run_active"


async def test_the_same_key_names_the_same_run_however_often_it_is_sent(shared: Place) -> None:
    answers = await asyncio.gather(*(asks(shared, work(102, key="one")) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    (run,) = await shared.runs(102)
    assert {answer.json()["run"] for answer in answers} == {run}
    await shared.happens(f.RunFinished(outcome="answer"), 102)
    late = await asks(shared, work(102, key="one"))
    assert (late.status_code, late.json()["run"]) == (202, run)
    assert await shared.runs(102) == [run]
    other = await asks(shared, work(102, key="two"))
    assert other.json()["run"] != run


async def test_without_a_key_two_at_once_make_one_run(shared: Place) -> None:
    answers = await asyncio.gather(*(asks(shared, work(103)) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 9
    assert len(await shared.runs(103)) == 1


async def test_a_parked_run_of_an_operator_hears_its_answer(shared: Place) -> None:
    await asks(shared, work(104))
    await shared.happens(f.QuestionAsked(turn=1, tool_use_id="t", question="Which?"), 104)
    sent = await shared.post(shared.comment_event("The first.", 104, 9), event="issue_comment")
    assert sent.json()["status"] == "accepted"
    assert (await shared.settled(sent.json()["delivery"]))["state"] == "relayed"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[" * 100_000, 400, ""),
        ([], 400, "object"),
        ({}, 400, "repository"),
        ({"repository": "acme/calc"}, 400, "issue"),
        (work(1, repository="calc"), 400, "$.repository"),
        (work(1, repository="acme/calc/x"), 400, "$.repository"),
        (work(1, repository="../.."), 400, "$.repository"),
        (work(1, repository="acme/calc\n"), 400, "$.repository"),
        (work(1, repository=7), 400, "$.repository"),
        (work(1, extra=1), 400, "extra"),
        (work(1, key=""), 400, "$.key"),
        (work(1, key="x" * 300), 400, "$.key"),
        (work(0), 400, "$.issue.number"),
        (work(2**63), 400, "$.issue.number"),
        (work(1, issue={"number": "1", "title": "t"}), 400, "$.issue.number"),
        (work(1, issue={"number": 1, "title": ""}), 400, "$.issue.title"),
        (work(1, issue={"number": 1}), 400, "title"),
        (work(1, issue={"number": 1, "title": "t", "boby": "x"}), 400, "boby"),
        (work(1, repository="acme/unknown"), 404, "acme/unknown"),
        (work(1, repository="nobody/nothing"), 404, "nobody/nothing"),
    ],
)
async def test_a_wrong_request_for_a_run_is_told_what_is_wrong(
    shared: Place, body: Any, status: int, words: str
) -> None:
    answer = await asks(shared, body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert words in answer.json()["error"]


async def test_a_long_text_is_cut_to_what_a_fact_may_hold(shared: Place) -> None:
    issue = {"number": 105, "title": "\x01" * 5000, "body": "日" * 65_536, "url": "https://x/" + "y" * 9000}
    assert (await asks(shared, work(105, issue=issue))).status_code == 202
    (recorded,) = await shared.facts(105)
    assert isinstance(recorded.fact, f.RunRequested)
    assert recorded.fact.issue.body.endswith("[cut here: the text is longer]")


async def test_github_away_is_a_503(shared: Place) -> None:
    shared.github.faults.add("GET /repos/{owner}/{repo}/installation", status=502)
    answer = await asks(shared, work(106))
    assert (answer.status_code, answer.json()["kind"]) == (503, "github_unavailable")
    assert answer.headers["retry-after"]
    assert (await asks(shared, work(106))).status_code == 202


async def test_the_same_over_nats(shared: Place) -> None:
    async def ask(body: bytes) -> dict[str, Any]:
        answer = json.loads(await shared.bus.ask(PROCESS_SUBJECT, body, timeout=10))
        assert isinstance(answer, dict)
        return answer

    first = await ask(json.dumps(work(107, key="k")).encode())
    assert first["status"] == 202
    assert first["body"]["status"] == "accepted"
    assert await ask(json.dumps(work(107, key="k")).encode()) == first
    assert (await ask(json.dumps(work(107)).encode()))["status"] == 409
    assert (await ask(b"{"))["status"] == 400
    assert (await ask(json.dumps(work(1, repository="acme/unknown")).encode()))["status"] == 404
    assert await shared.runs(107) == [first["body"]["run"]]


async def test_over_nats_a_stuck_inbox_is_a_503_too(own: Place) -> None:
    with own.spoiled_inbox("query_only=ON", "query_only=OFF"):
        answer = json.loads(await own.bus.ask(PROCESS_SUBJECT, json.dumps(work(1, key="k")).encode()))
        assert (answer["status"], answer["body"]["kind"]) == (503, "inbox_unavailable")
    again = await asks(own, work(1, key="k"))
    assert again.status_code == 202
    assert await own.runs(1) == [again.json()["run"]]


async def test_runners_are_asked_what_they_hold(own: Place) -> None:
    nobody = await own.get("/container/health")
    assert (nobody.status_code, nobody.json()["runners"]) == (503, [])
    runner = RunnerStatus(runner="r1", sandboxes=("s1", "s2"), limit=8, image="i", uptime=1.0)

    async def say(_question: bytes) -> bytes:
        return msgspec.json.encode(runner)

    async with own.bus.answering(RUNNERS_SUBJECT, say):
        found = await own.get("/container/health")
    assert (found.status_code, found.json()["status"], found.json()["sandboxes"]) == (200, "ok", 2)
    assert found.json()["runners"] == [
        msgspec.to_builtins(runner, str_keys=True) | {"sandboxes": ["s1", "s2"]}
    ]


# --- what happened ------------------------------------------------------------------------------------


async def test_runs_and_their_events_are_told_as_json(shared: Place) -> None:
    run = (await asks(shared, work(108))).json()["run"]
    await _archived(shared, 108, 1)
    issues = (await shared.get("/api/issues")).json()
    assert ("acme/calc", 108) in {(each["full_name"], each["number"]) for each in issues}
    assert len((await shared.get("/api/issues?limit=1")).json()) == 1
    events = await shared.get("/api/issues/acme/calc/108/events")
    (event,) = events.json()["events"]
    assert (event["type"], event["run"]) == ("dev.millrace.run.requested.v1", run)
    unknown = await shared.get("/api/issues/acme/calc/999999/events")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "no run of acme/calc#999999 is known"})


async def test_events_are_followed_from_the_first_to_what_comes(shared: Place) -> None:
    await asks(shared, work(109))
    await _archived(shared, 109, 1)
    async with _following(shared, 109) as coming:
        first = await anext(coming)
        assert first["data"]["type"] == "dev.millrace.run.requested.v1"
        await shared.happens(f.ProgressPosted(comment_id=1, url="u"), 109)
        second = await anext(coming)
    assert second["data"]["type"] == "dev.millrace.progress.posted.v1"
    assert second["data"]["data"] == {"type": "progress.posted.v1", "comment_id": 1, "url": "u"}
    assert int(second["id"]) == second["data"]["sequence"] > int(first["id"])
    # What was followed live reads the same as what the archive tells later.
    await _archived(shared, 109, 2)
    told = (await shared.get("/api/issues/acme/calc/109/events")).json()["events"]
    assert told == [first["data"], second["data"]]


async def test_who_comes_back_hears_only_what_is_new(shared: Place) -> None:
    await asks(shared, work(110))
    for number in range(1, 4):
        await shared.happens(f.ProgressPosted(comment_id=number, url="u"), 110)
    await _archived(shared, 110, 4)
    async with _following(shared, 110) as coming:
        heard = [await anext(coming) for _ in range(4)]
    async with _following(shared, 110, last=heard[1]["id"]) as coming:
        assert [await anext(coming) for _ in range(2)] == heard[2:]
    async with _following(shared, 110, last=heard[3]["id"]) as coming:
        await shared.happens(f.ProgressPosted(comment_id=9, url="u"), 110)
        assert (await anext(coming))["data"]["data"]["comment_id"] == 9
    for nonsense in ("x", "-1", "1.5", "9" * 50, "\xb2"):
        async with _following(shared, 110, last=nonsense) as coming:
            assert await anext(coming) == heard[0]


async def test_a_quiet_stream_says_that_it_is_there(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "QUIET_SECONDS", 0.05)
    await asks(shared, work(111))
    await _archived(shared, 111, 1)
    url, headers = "/api/issues/acme/calc/111/events", {"accept": "text/event-stream"}
    async with (
        asyncio.timeout(10),
        shared.client.stream("GET", url, headers=headers | shared.operator()) as response,
    ):
        quiet = 0
        async for line in response.aiter_lines():
            quiet += line == ": still here"
            if quiet == 3:
                break
    assert quiet == 3


async def test_when_a_follower_leaves_nobody_listens_any_more(shared: Place) -> None:
    js = shared.bus.client.jetstream()
    await asks(shared, work(112))
    await _archived(shared, 112, 1)
    before = {each.name for each in await js.consumers_info(STREAM)}
    async with _following(shared, 112) as coming:
        await anext(coming)
        await shared.happens(f.ProgressPosted(comment_id=1, url="u"), 112)
        await anext(coming)
        (ours,) = (each for each in await js.consumers_info(STREAM) if each.name not in before)
        assert ours.push_bound
    async with asyncio.timeout(10):
        while (await js.consumer_info(STREAM, ours.name)).push_bound:
            continue


async def test_a_gateway_that_stops_ends_its_streams(own: Place) -> None:
    async with own.history():
        await asks(own, work(1))
        await _archived(own, 1, 1)
        async with _following(own, 1) as coming:
            await anext(coming)
            await asyncio.wait_for(own.stop_gateway(), 3)
            with pytest.raises(StopAsyncIteration):
                await anext(coming)


@asynccontextmanager
async def _following(
    it: Place, number: int, *, last: str | None = None
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    headers = [
        (b"accept", b"text/event-stream"),
        *((k.encode(), v.encode()) for k, v in it.operator().items()),
    ]
    if last is not None:
        headers.append((b"last-event-id", last.encode("latin-1")))
    async with (
        asyncio.timeout(15),
        httpx2.AsyncClient(base_url=it.client.base_url, trust_env=False) as client,
        client.stream("GET", f"/api/issues/acme/calc/{number}/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _messages(response)


async def _messages(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield {"id": fields["id"], "data": json.loads(fields["data"])}
            fields = {}


async def _archived(it: Place, number: int, events: int) -> None:
    """Return when the history has so many events of an issue."""
    async with asyncio.timeout(10):
        while True:
            answer = await it.get(f"/api/issues/acme/calc/{number}/events")
            if answer.status_code == 200 and len(answer.json()["events"]) >= events:
                return
            await asyncio.sleep(0.02)


async def test_deliveries_are_told_newest_first_with_their_zone(shared: Place) -> None:
    sent = [(await shared.post(b"{}", event="push")).json()["delivery"] for _ in range(3)]
    rows = (await shared.get("/api/deliveries?limit=2")).json()
    assert [row["delivery"] for row in rows] == sent[:0:-1]
    received = datetime.fromisoformat(rows[0]["received_at"])
    assert received.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - received) < timedelta(minutes=1)
    assert set(rows[0]) == {
        "delivery", "event", "action", "state", "reason", "repository_id", "issue", "run", "received_at",
        "tries",
    }  # fmt: skip


async def test_metrics_count_what_came_in(shared: Place) -> None:
    await shared.post(b"{}", event="push")
    await shared.post(b"{}", event="push", headers={"x-hub-signature-256": None})
    answer = await shared.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for name in (
        'millrace_deliveries_total{outcome="ignored"}', 'millrace_deliveries_total{outcome="unsigned"}',
        "millrace_inbox_pending", "millrace_inbox_lag_seconds",
    ):  # fmt: skip
        assert name in answer.text


async def test_the_schema_describes_every_route(shared: Place) -> None:
    answer = await shared.get("/schema")
    schema = answer.json()
    assert schema["openapi"].startswith("3.")
    described = {
        (method.upper(), path, operation.get("security", schema["security"]) == [{}])
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
    }
    webhooks = [("POST", "/webhook/github"), ("POST", "/webhooks/github")]
    wanted = {(method, path, True) for method, path in [*webhooks, *PUBLIC]}
    templates = {
        "/api/issues/acme/calc/1/events": "/api/issues/{owner}/{repo}/{number}/events",
        "/api/deliveries/x/retry": "/api/deliveries/{delivery}/retry",
    }
    wanted |= {(method, templates.get(path, path), False) for method, path in GUARDED if path != "/schema"}
    assert described == wanted
    hook = schema["paths"]["/webhook/github"]["post"]
    assert {"202", "401", "413", "503"} <= hook["responses"].keys()
    assert {each["name"] for each in hook["parameters"]} == {
        "X-Hub-Signature-256", "X-GitHub-Delivery", "X-GitHub-Event",
    }  # fmt: skip
