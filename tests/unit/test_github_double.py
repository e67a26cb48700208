"""The GitHub double is itself held to GitHub's description and to git."""

import asyncio
import base64
import hashlib
import hmac
import os
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from tests.doubles.github import GitHubDouble, openapi, rest
from tests.doubles.github.examples import examples
from tests.doubles.github.faults import Mode
from tests.doubles.github.http import Answer, Route
from tests.doubles.github.state import App, Installation, Repository, User

READ_WRITE = {"contents": "write", "pull_requests": "write", "issues": "write"}
WIDGETS = "/repos/acme/widgets"


@dataclass
class Place:
    """A GitHub with a private repository, an app on it and somebody who may write."""

    github: GitHubDouble
    app: App
    installation: Installation
    repo: Repository
    alice: User
    http: httpx2.AsyncClient

    def jwt(self, *, issued: int = -60, expires: int = 540, issuer: str | None = None) -> dict[str, str]:
        now = int(time.time())
        claims = {"iat": now + issued, "exp": now + expires, "iss": issuer or str(self.app.id)}
        return {"authorization": f"Bearer {jwt.encode(claims, self.app.private_key_pem, algorithm='RS256')}"}

    async def mint(self, **asked: Any) -> httpx2.Response:
        path = f"/app/installations/{self.installation.id}/access_tokens"
        return await self.http.post(path, headers=self.jwt(), json=asked)

    async def token(self, **asked: Any) -> dict[str, str]:
        answer = await self.mint(**asked)
        assert answer.status_code == 201, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with GitHubDouble() as github:
        app = github.create_app(1001)
        repo = github.create_repository(
            "acme/widgets", {"README.md": b"# Widgets\n", "src/a.py": b"a = 1\n"}, private=True
        )
        installation = github.install(app, "acme", [repo], READ_WRITE)
        alice = github.create_user("alice")
        github.grant(repo, alice, "write")
        async with httpx2.AsyncClient(base_url=github.api_url, trust_env=False) as http:
            yield Place(github, app, installation, repo, alice, http)


async def _publish(place: Place, branch: str = "millrace/issue-1") -> httpx2.Response:
    """Blob, tree, commit, ref, pull request, as the publisher does it."""
    headers, http = await place.token(), place.http
    head = (await http.get(f"{WIDGETS}/git/ref/heads/main", headers=headers)).json()["object"]["sha"]
    base = (await http.get(f"{WIDGETS}/git/commits/{head}", headers=headers)).json()["tree"]["sha"]
    content = base64.b64encode(b"a = 2\n").decode()
    blob = (
        await http.post(
            f"{WIDGETS}/git/blobs", headers=headers, json={"content": content, "encoding": "base64"}
        )
    ).json()
    rows = [
        {"path": "src/a.py", "mode": "100755", "type": "blob", "sha": blob["sha"]},
        {"path": "docs/new.md", "mode": "100644", "type": "blob", "content": "new\n"},
        {"path": "README.md", "mode": "100644", "type": "blob", "sha": None},
    ]
    tree = (
        await http.post(f"{WIDGETS}/git/trees", headers=headers, json={"base_tree": base, "tree": rows})
    ).json()
    given = {"message": "Fix it", "tree": tree["sha"], "parents": [head]}
    commit = (await http.post(f"{WIDGETS}/git/commits", headers=headers, json=given)).json()
    assert commit["verification"]["verified"]
    ref = {"ref": f"refs/heads/{branch}", "sha": commit["sha"]}
    assert (await http.post(f"{WIDGETS}/git/refs", headers=headers, json=ref)).status_code == 201
    asked = {"title": "Fix it", "head": branch, "base": "main", "body": "Done.", "draft": True}
    return await http.post(f"{WIDGETS}/pulls", headers=headers, json=asked)


async def test_a_change_is_published_through_the_git_data_interface(place: Place) -> None:
    answer = await _publish(place)

    assert answer.status_code == 201, answer.text
    [pull] = place.github.pull_requests(place.repo)
    assert (pull.number, pull.draft, pull.head, pull.issue.user.login) == (
        1,
        True,
        "millrace/issue-1",
        "millrace[bot]",
    )
    assert place.github.file_at(place.repo, pull.head, "src/a.py") == b"a = 2\n"
    assert place.github.file_at(place.repo, pull.head, "docs/new.md") == b"new\n"
    assert place.github.file_at(place.repo, pull.head, "README.md") is None
    assert answer.json()["changed_files"] == 3
    assert set(place.github.branches(place.repo)) == {"main", "millrace/issue-1"}
    headers = await place.token()
    files = (await place.http.get(f"{WIDGETS}/pulls/1/files", headers=headers)).json()
    assert {one["filename"]: one["status"] for one in files} == {
        "README.md": "removed",
        "docs/new.md": "added",
        "src/a.py": "modified",
    }
    found = (
        await place.http.get(f"{WIDGETS}/pulls", headers=headers, params={"head": f"acme:{pull.head}"})
    ).json()
    assert [one["number"] for one in found] == [1]
    page = await place.http.get(f"{place.github.url}/acme/widgets/pull/1")
    assert "Fix it" in page.text
    await place.github.drain()
    assert place.github.violations == []


async def test_what_exists_already_is_refused_in_githubs_words(place: Place) -> None:
    await _publish(place)
    headers = await place.token()
    main = place.github.branches(place.repo)["main"]

    ref = await place.http.post(
        f"{WIDGETS}/git/refs", headers=headers, json={"ref": "refs/heads/millrace/issue-1", "sha": main}
    )
    twice = await place.http.post(
        f"{WIDGETS}/pulls", headers=headers, json={"title": "x", "head": "millrace/issue-1", "base": "main"}
    )
    nothing = await place.http.post(
        f"{WIDGETS}/pulls", headers=headers, json={"title": "x", "head": "main", "base": "main"}
    )
    back = await place.http.patch(
        f"{WIDGETS}/git/refs/heads/millrace/issue-1", headers=headers, json={"sha": main}
    )

    assert (ref.status_code, ref.json()["message"]) == (422, "Reference already exists")
    assert twice.json()["errors"][0]["message"] == "A pull request already exists for acme:millrace/issue-1."
    assert nothing.json()["errors"][0]["message"] == "No commits between main and main"
    assert (back.status_code, back.json()["message"]) == (422, "Update is not a fast forward")
    assert place.github.violations == []


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"issued": 120}, "'Issued at'"),
        ({"expires": 660}, "too far in the future"),
        ({"expires": -1}, "'Expiration time'"),
        ({"issuer": "77"}, "Integration not found"),
    ],
)
async def test_a_jwt_out_of_bounds_is_401(place: Place, times: dict[str, Any], message: str) -> None:
    answer = await place.http.get("/app", headers=place.jwt(**times))

    assert answer.status_code == 401
    assert message in answer.json()["message"]


async def test_a_token_reaches_no_further_than_it_was_narrowed(place: Place) -> None:
    place.github.create_repository("acme/other", {"x": b""}, private=True)
    headers = await place.token(repositories=["widgets"], permissions={"contents": "read"})
    issue = await place.github.open_issue(place.repo, "It breaks", "Badly.", by=place.alice)

    read = await place.http.get(f"{WIDGETS}/contents/src/a.py", headers=headers)
    write = await place.http.post(f"{WIDGETS}/git/blobs", headers=headers, json={"content": "x"})
    comment = await place.http.post(
        f"{WIDGETS}/issues/{issue.number}/comments", headers=headers, json={"body": "x"}
    )
    other = await place.http.get("/repos/acme/other", headers=headers)
    anonymous = await place.http.get(WIDGETS)

    assert base64.b64decode(read.json()["content"]) == b"a = 1\n"
    assert (write.status_code, write.json()["message"]) == (403, "Resource not accessible by integration")
    assert comment.status_code == 403
    assert (other.status_code, anonymous.status_code) == (404, 404)
    assert (await place.mint(permissions={"administration": "write"})).status_code == 422
    assert (await place.mint(repositories=["other"])).status_code == 422
    assert (await place.http.delete("/installation/token", headers=headers)).status_code == 204
    assert (await place.http.get(WIDGETS, headers=headers)).status_code == 401
    assert place.github.violations == []


async def test_a_suspended_installation_mints_nothing_and_its_tokens_stop(place: Place) -> None:
    headers = await place.token()
    place.installation.suspended = True

    assert (await place.mint()).status_code == 403
    assert (await place.http.get(WIDGETS, headers=headers)).status_code == 403


def _git(token: str | None, *args: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }
    if token is not None:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader"}
        env["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {basic}"
    return subprocess.run(["git", *args], env=env, capture_output=True, text=True, check=False, timeout=30)


async def test_git_clones_a_private_repository_with_a_token_and_not_without(
    place: Place, tmp_path: Path
) -> None:
    token = (await place.mint(permissions={"contents": "read"})).json()["token"]
    blind = (await place.mint(permissions={"issues": "read"})).json()["token"]
    url = f"{place.github.url}/acme/widgets.git"

    cloned = await asyncio.to_thread(_git, token, "clone", "-q", url, str(tmp_path / "with"))
    without = await asyncio.to_thread(_git, None, "clone", "-q", url, str(tmp_path / "without"))
    unable = await asyncio.to_thread(_git, blind, "clone", "-q", url, str(tmp_path / "blind"))
    pushed = await asyncio.to_thread(
        _git, token, "-C", str(tmp_path / "with"), "push", "-q", "origin", "HEAD:refs/heads/x"
    )

    assert cloned.returncode == 0, cloned.stderr
    assert (tmp_path / "with" / "src" / "a.py").read_bytes() == b"a = 1\n"
    assert without.returncode != 0
    assert unable.returncode != 0
    assert pushed.returncode != 0
    assert set(place.github.branches(place.repo)) == {"main"}


async def test_anybody_clones_a_public_repository(place: Place, tmp_path: Path) -> None:
    place.github.create_repository("acme/open", {"x": b"1\n"})

    done = await asyncio.to_thread(
        _git, None, "clone", "-q", f"{place.github.url}/acme/open.git", str(tmp_path / "open")
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("mode", "applied"),
    [
        pytest.param("after", 1, id="after: the pull request is there"),
        pytest.param("before", 0, id="before: it is not"),
    ],
)
async def test_a_dropped_answer_leaves_what_the_mode_says(place: Place, mode: Mode, applied: int) -> None:
    fault = place.github.faults.add("POST /repos/{owner}/{repo}/pulls", mode, status=None)

    with pytest.raises(httpx2.RemoteProtocolError):
        await _publish(place)

    assert fault.used == 1
    assert len(place.github.pull_requests(place.repo)) == applied
    assert place.github.exchanges[-1].status is None


async def test_a_replaced_answer_hides_what_was_applied(place: Place) -> None:
    place.github.faults.add("POST /repos/{owner}/{repo}/pulls", "after", 502, headers={"retry-after": "7"})

    answer = await _publish(place)

    assert (answer.status_code, answer.headers["retry-after"]) == (502, "7")
    assert len(place.github.pull_requests(place.repo)) == 1


async def test_a_delayed_answer_is_whole_but_late(place: Place) -> None:
    place.github.faults.add("GET /repos/{owner}/{repo}", "delay", seconds=0.2)
    headers = await place.token()

    started = time.monotonic()
    answer = await place.http.get(WIDGETS, headers=headers)

    assert time.monotonic() - started >= 0.2
    assert (answer.status_code, answer.json()["full_name"]) == (200, "acme/widgets")


async def test_a_renamed_repository_is_found_under_its_old_name_and_its_id(
    place: Place, tmp_path: Path
) -> None:
    token = (await place.mint()).json()["token"]
    headers = {"authorization": f"Bearer {token}"}
    old = f"{place.github.url}/acme/widgets.git"
    place.github.rename(place.repo, "gadgets")

    moved = await place.http.get(f"{WIDGETS}/git/ref/heads/main", headers=headers)
    written = await place.http.post(f"{WIDGETS}/git/blobs", headers=headers, json={"content": "x"})
    there = await place.http.get(moved.headers["location"], headers=headers)
    by_id = await place.http.get(f"/repositories/{place.repo.id}", headers=headers)
    clone = await asyncio.to_thread(_git, token, "clone", "-q", old, str(tmp_path / "clone"))

    assert (moved.status_code, written.status_code) == (301, 307)
    assert (there.status_code, there.json()["ref"]) == (200, "refs/heads/main")
    assert by_id.json()["full_name"] == "acme/gadgets"
    assert clone.returncode == 0, clone.stderr
    assert place.github.violations == []


@dataclass
class Ear:
    """A webhook receiver."""

    url: str
    heard: "asyncio.Queue[tuple[dict[str, str], bytes]]"


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    heard: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        heard.put_nowait((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Ear(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/webhook/github", heard)


async def test_what_people_do_arrives_signed_and_as_github_describes_it(place: Place, ear: Ear) -> None:
    github, repo, alice = place.github, place.repo, place.alice
    place.app.webhook_url = ear.url

    issue = await github.open_issue(repo, "It breaks", "Badly.", by=alice, labels=("bug",))
    said = await github.comment(issue, "Still.", by=alice)
    await github.edit_comment(said, "Still!", by=alice)
    await github.delete_comment(said, by=alice)
    await github.label(issue, "millrace", by=alice)
    await github.unlabel(issue, "bug", by=alice)
    await github.edit_issue(issue, by=alice, title="It breaks often")
    await github.close(issue, by=alice)
    await github.reopen(issue, by=alice)
    await github.delete(issue, by=alice)
    await github.announce_installation(place.installation)

    heard = [ear.heard.get_nowait() for _ in range(ear.heard.qsize())]
    names = [f"{one.event}.{one.action}" for one in github.deliveries]
    assert names == [
        "issues.opened",
        "issues.labeled",
        "issue_comment.created",
        "issue_comment.edited",
        "issue_comment.deleted",
        "issues.labeled",
        "issues.unlabeled",
        "issues.edited",
        "issues.closed",
        "issues.reopened",
        "issues.deleted",
        "installation.created",
    ]
    assert len(heard) == len(names)
    for headers, body in heard:
        signature = hmac.new(place.app.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
        assert headers["x-hub-signature-256"] == f"sha256={signature}"
        assert headers["x-github-hook-installation-target-id"] == "1001"
    assert {one.status for one in github.deliveries} == {202}
    assert github.violations == []


async def test_what_the_app_writes_comes_back_from_its_bot(place: Place, ear: Ear) -> None:
    place.app.webhook_url = ear.url
    issue = await place.github.open_issue(place.repo, "It breaks", by=place.alice)
    headers = await place.token()

    answer = await place.http.post(
        f"{WIDGETS}/issues/{issue.number}/comments", headers=headers, json={"body": "On it."}
    )
    await _publish(place)
    await place.github.drain()

    assert answer.status_code == 201
    opened, created, pulled = place.github.deliveries
    assert opened.payload["sender"]["type"] == "User"
    assert (created.event, created.payload["sender"]["login"]) == ("issue_comment", "millrace[bot]")
    assert (pulled.event, pulled.payload["sender"]["type"]) == ("pull_request", "Bot")
    assert created.payload["installation"]["id"] == place.installation.id
    assert place.github.violations == []


async def test_a_delivery_is_sent_again_under_its_guid(place: Place, ear: Ear) -> None:
    await place.github.open_issue(place.repo, "Nobody hears this", by=place.alice)
    place.app.webhook_url = ear.url
    listed = (
        await place.http.get("/app/hook/deliveries", headers=place.jwt(), params={"status": "failure"})
    ).json()

    asked = await place.http.post(f"/app/hook/deliveries/{listed[0]['id']}/attempts", headers=place.jwt())
    await place.github.drain()

    first, second = place.github.deliveries
    assert (asked.status_code, first.status, second.status) == (202, 0, 202)
    assert (first.guid, second.redelivery) == (second.guid, True)
    assert place.github.violations == []


async def test_issues_and_comments_behave_as_at_github(place: Place) -> None:
    issue = await place.github.open_issue(place.repo, "It breaks", by=place.alice)
    headers, path = await place.token(), f"{WIDGETS}/issues/{issue.number}"

    long = await place.http.post(f"{path}/comments", headers=headers, json={"body": "x" * 65537})
    created = (await place.http.post(f"{path}/comments", headers=headers, json={"body": "one"})).json()
    edited = await place.http.patch(
        f"{WIDGETS}/issues/comments/{created['id']}", headers=headers, json={"body": "two"}
    )
    for number in range(3):
        await place.github.comment(issue, f"more {number}", by=place.alice)
    page = await place.http.get(f"{path}/comments", headers=headers, params={"per_page": "2"})
    rest = await place.http.get(page.links["next"]["url"], headers=headers)
    may = await place.http.get(f"{WIDGETS}/collaborators/alice/permission", headers=headers)
    await place.github.delete(issue, by=place.alice)
    gone = await place.http.get(path, headers=headers)

    assert (long.status_code, edited.json()["body"]) == (422, "two")
    assert [one["body"] for one in page.json() + rest.json()] == ["two", "more 0", "more 1", "more 2"]
    assert (may.json()["permission"], may.json()["user"]["id"]) == ("write", place.alice.id)
    assert gone.status_code == 410
    assert place.github.violations == []


@pytest.mark.parametrize(
    ("method", "path", "sent", "said"),
    [
        ("POST", f"{WIDGETS}/pulls", {"json": {"title": 1, "head": "x", "base": "main"}}, "body title"),
        ("POST", f"{WIDGETS}/pulls", {"json": {"title": "x", "head": "x"}}, "base"),
        ("POST", f"{WIDGETS}/issues/1/comments", {"json": {"body": "x", "colour": "red"}}, "colour"),
        (
            "POST",
            f"{WIDGETS}/git/trees",
            {"json": {"tree": [{"path": "a", "mod": "100644", "content": ""}]}},
            "mod",
        ),
        ("GET", f"{WIDGETS}/pulls", {"params": {"heads": "x"}}, "heads"),
        ("GET", f"{WIDGETS}/pulls", {"params": {"per_page": "many"}}, "per_page"),
        ("GET", f"{WIDGETS}/nonsense", {}, "not in GitHub's description"),
    ],
)
async def test_a_wrong_request_is_reported(
    place: Place, method: str, path: str, sent: dict[str, Any], said: str
) -> None:
    await place.http.request(method, path, headers=await place.token(), **sent)

    [violation] = place.github.violations
    assert said in violation


async def test_a_wrong_webhook_is_reported(place: Place) -> None:
    await place.github.open_issue(place.repo, "It breaks", by=place.alice)
    payload = place.github.deliveries[0].payload
    wrong = openapi.webhooks().wrong

    assert wrong("issues", payload) == []
    assert wrong("issues", {**payload, "issue": {**payload["issue"], "number": "1"}})
    assert wrong("issues", {key: value for key, value in payload.items() if key != "repository"})
    assert wrong("issues", {**payload, "action": "exploded"}) == ["issues-exploded is not described"]


async def test_a_wrong_answer_is_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = "GET /repos/{owner}/{repo}"
    broken = Route(endpoint, lambda _: Answer(200, {"id": "seven"}))
    monkeypatch.setitem(rest.ROUTES, endpoint, broken)

    await place.http.get(WIDGETS, headers=await place.token())

    assert any("answer 200" in one and "id" in one for one in place.github.violations)


def test_the_real_payloads_are_all_there() -> None:
    found = examples()

    assert len(found) == 329
    assert sum(name == "issues" for name, _ in found) == 29
