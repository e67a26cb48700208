"""The client of GitHub's API against a real HTTP server with scripted answers."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from inline_snapshot import snapshot

from contracts.vault import Secret
from services.kit.errors import Later, MillraceError
from services.kit.github import GitHubClient, GitHubRefused, Limiter
from services.kit.github_errors import classify, limit_seconds
from tests.unit.scripted_http import Asked, Reply, serving

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
IN_NINE_SECONDS = format_datetime(NOW + timedelta(seconds=9), usegmt=True)


async def credential() -> Secret:
    return Secret("ghs_canary")


def judge(status: int, message: str = "", **headers: str) -> Later | GitHubRefused:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify("GET /x", status, named, {"message": message}, now=NOW)


async def test_a_request_carries_the_credential_the_version_and_its_json() -> None:
    async with (
        serving(lambda _: Reply(201, {"id": 7}, headers={"X-One": "1"})) as server,
        GitHubClient(server.url + "/api/v3", credential) as client,
    ):
        answer = await client.request("POST", "/repos/a/b/issues", json={"title": "T"}, params={"q": 1})
    assert (answer.status, answer.json, answer.headers["x-one"]) == (201, {"id": 7}, "1")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query, asked.json) == (
        "POST", "/api/v3/repos/a/b/issues", "q=1", {"title": "T"},
    )  # fmt: skip
    assert asked.headers["authorization"] == "Bearer ghs_canary"
    assert asked.headers["x-github-api-version"] == "2022-11-28"


async def test_a_renamed_repository_is_followed_on_the_same_host() -> None:
    def script(asked: Asked) -> Reply:
        if asked.path == "/repos/old/name":
            return Reply(301, {"url": "…"}, headers={"location": "/repositories/7?page=2"})
        return Reply(200, {"path": asked.path})

    async with serving(script) as server, GitHubClient(server.url, credential) as client:
        answer = await client.request("GET", "/repos/old/name")
    assert answer.json == {"path": "/repositories/7"}
    assert answer.url == server.url + "/repositories/7?page=2"
    assert server.asked[1].query == "page=2"


async def test_a_redirect_to_another_host_is_not_followed_and_the_credential_stays() -> None:
    async with (
        serving(lambda _: Reply(200, {})) as stranger,
        serving(lambda _: Reply(302, headers={"location": stranger.url + "/steal"})) as server,
        GitHubClient(server.url, credential) as client,
    ):
        with pytest.raises(GitHubRefused) as refused:
            await client.request("GET", "/x")
    assert (refused.value.kind, refused.value.status) == ("moved", 302)
    assert stranger.asked == []


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirected_write_is_refused_instead_of_repeated(status: int) -> None:
    async with (
        serving(lambda _: Reply(status, headers={"location": "/elsewhere"})) as server,
        GitHubClient(server.url, credential) as client,
    ):
        with pytest.raises(GitHubRefused) as refused:
            await client.request("POST", "/x", json={})
    assert refused.value.status == status
    assert len(server.asked) == 1


async def test_redirects_in_a_circle_end() -> None:
    async with (
        serving(lambda _: Reply(301, headers={"location": "/x"})) as server,
        GitHubClient(server.url) as client,
    ):
        with pytest.raises(GitHubRefused):
            await client.request("GET", "/x")
    assert len(server.asked) == 4


@pytest.mark.parametrize("path", ["https://evil.example/x", "/../outside", "../outside"])
async def test_a_path_that_leaves_the_api_is_never_asked(path: str) -> None:
    async with serving(lambda _: Reply()) as server, GitHubClient(server.url + "/api/v3") as client:
        with pytest.raises(ValueError, match="leaves"):
            await client.request("GET", path)
    assert server.asked == []


@pytest.mark.parametrize("body", [b"<html>maintenance</html>", b'{"cut": ', b"\xff\xfe"])
async def test_a_success_that_is_not_json_is_tried_later(body: bytes) -> None:
    async with serving(lambda _: Reply(200, body=body)) as server, GitHubClient(server.url) as client:
        with pytest.raises(Later) as later:
            await client.request("POST", "/x")
    assert later.value.kind == "github_malformed"
    assert len(server.asked) == 1


async def test_an_empty_success_is_an_answer() -> None:
    async with serving(lambda _: Reply(204)) as server, GitHubClient(server.url) as client:
        answer = await client.request("DELETE", "/x")
    assert (answer.status, answer.json) == (204, None)


async def test_a_dropped_connection_is_tried_later_and_the_credential_is_not_in_the_error() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, GitHubClient(f"http://127.0.0.1:{port}", credential) as client:
        with pytest.raises(Later) as later:
            await client.request("POST", "/x")
    error: BaseException | None = later.value
    assert later.value.kind == "github_unreachable"
    assert error is not None
    assert error.__cause__ is None
    assert "canary" not in str(error)


async def test_nobody_listening_is_tried_later() -> None:
    async with serving(lambda _: Reply()) as server:
        pass
    async with GitHubClient(server.url) as client:
        with pytest.raises(Later, match=r"did not answer GET /x \(ConnectError\)"):
            await client.request("GET", "/x")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": IN_NINE_SECONDS}, 9.0, id="date"),
        pytest.param({"retry-after": "soon"}, 60.0, id="nonsense means a minute"),
        pytest.param({"retry-after": "-5"}, 60.0, id="a negative wait means a minute"),
        pytest.param({"retry-after": "9" * 30}, 86400.0, id="at most a day"),
        pytest.param({}, 60.0, id="a minute when GitHub says nothing"),
        pytest.param(
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 100)}, 101.0,
            id="until the reset",
        ),
        pytest.param(
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) - 100)}, 1.0,
            id="a reset that has passed",
        ),
        pytest.param(
            {"x-ratelimit-remaining": "12", "x-ratelimit-reset": str(int(NOW.timestamp()) + 1)}, 60.0,
            id="a secondary limit ignores the primary's reset",
        ),
    ],
)  # fmt: skip
def test_a_limit_is_waited_out(headers: dict[str, str], seconds: float) -> None:
    assert limit_seconds(headers, NOW) == seconds


def test_the_reset_is_counted_by_githubs_clock() -> None:
    server_time = NOW + timedelta(minutes=10)
    error = classify(
        "GET /x",
        403,
        {
            "date": format_datetime(server_time, usegmt=True),
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(int(server_time.timestamp()) + 30),
        },
        {"message": "API rate limit exceeded"},
        now=NOW,
    )
    assert isinstance(error, Later)
    assert error.seconds == 31.0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (judge(500), "github_unavailable"),
        (judge(502), "github_unavailable"),
        (judge(304), "github_unavailable"),
        (judge(429), "github_rate_limited"),
        (judge(403, "You have exceeded a secondary rate limit"), "github_rate_limited"),
        (judge(403, "anything", retry_after="3"), "github_rate_limited"),
        (judge(403, "Resource not accessible by integration"), "needs_permission"),
        (judge(403, "This installation has been suspended"), "installation_suspended"),
        (judge(403, "Repository was archived so is read-only."), "repository_archived"),
        (judge(403, "an IP allow list enabled, and your IP address is not permitted"), "ip_not_allowed"),
        (judge(403, "Resource protected by organization SAML enforcement"), "sso_required"),
        (judge(403, "no reason we know"), "forbidden"),
        (judge(401, "Bad credentials"), "bad_credentials"),
        (judge(404), "not_found"),
        (judge(409), "conflict"),
        (judge(410), "gone"),
        (judge(422), "invalid"),
        (judge(451), "legally_blocked"),
        (judge(418), "refused"),
    ],
)
def test_each_refusal_has_a_stable_name(error: Later | GitHubRefused, kind: str) -> None:
    assert error.kind == kind


def test_a_refusal_tells_what_github_said_on_one_line() -> None:
    body = {
        "message": "Validation\nFailed",
        "errors": [
            {"resource": "PullRequest", "code": "custom", "message": "A pull request already exists"},
            {"resource": "Issue", "field": "title", "code": "missing_field"},
            "plain",
            7,
        ],
    }
    error = classify("POST /pulls", 422, {}, body, now=NOW)
    assert str(error) == snapshot(
        "GitHub refused POST /pulls: 422 Validation Failed; A pull request already exists; "
        "Issue title missing_field; plain"
    )


@pytest.mark.parametrize("body", [None, [], "text", {"message": 7, "errors": "x"}, {"errors": [None, {}]}])
def test_a_refusal_without_a_sentence_is_still_one(body: Any) -> None:
    error = classify("GET /x", 404, {}, body, now=NOW)
    assert isinstance(error, GitHubRefused)
    assert error.status == 404


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: deque[float] = deque()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_writes_are_a_second_apart_and_reads_are_not_held_up() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock, sleep=clock.sleep)
    await limiter.turn(write=True)
    await limiter.turn(write=False)
    await limiter.turn(write=True)
    await limiter.turn(write=True)
    assert list(clock.slept) == [1.0, 1.0]


async def test_the_81st_write_of_a_minute_comes_later() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock, sleep=clock.sleep, gap=0.5)
    for _ in range(80):
        await limiter.turn(write=True)
    with pytest.raises(Later) as later:
        await limiter.turn(write=True)
    assert (later.value.seconds, later.value.kind) == (60 - 79 * 0.5, "queued")
    clock.now += later.value.seconds or 0
    await limiter.turn(write=True)


async def test_a_writer_far_back_in_line_is_queued_and_one_that_was_silenced_is_rate_limited() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock, sleep=clock.sleep, patience=0.5)
    await limiter.turn(write=True)
    with pytest.raises(Later) as behind:
        await limiter.turn(write=True)
    assert behind.value.kind == "queued"
    limiter.pause(30)
    with pytest.raises(Later) as silenced:
        await limiter.turn(write=True)
    assert silenced.value.kind == "github_rate_limited"


async def test_a_rate_limit_silences_the_whole_installation() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock, sleep=clock.sleep)
    script = deque([Reply(429, {"message": "slow down"}, headers={"retry-after": "90"})])
    async with (
        serving(lambda _: script.popleft()) as server,
        GitHubClient(server.url, limiter=limiter) as first,
        GitHubClient(server.url, limiter=limiter) as second,
    ):
        for client in (first, second):
            with pytest.raises(MillraceError) as raised:
                await client.request("GET", "/x")
            assert isinstance(raised.value, Later)
            assert raised.value.seconds == 90.0
    assert len(server.asked) == 1


async def test_a_limiter_is_idle_again_when_the_last_write_is_a_second_old() -> None:
    clock = Clock()
    limiter = Limiter(clock=clock, sleep=clock.sleep)
    assert limiter.idle
    await limiter.turn(write=True)
    assert not limiter.idle
    await clock.sleep(1.0)
    assert limiter.idle
    limiter.pause(30.0)
    assert not limiter.idle
