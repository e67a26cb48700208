"""The mirror against git's own HTTP server: what it fetches, what it hides, how it fails."""

import asyncio
import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner.mirror import Mirror
from tests.integration.sandbox_kit import commit, git, make_repository

TOKEN = "ghs_" + "canary" * 80


class GitServer(ThreadingHTTPServer):
    """`git http-backend` behind a token, with faults on demand; it remembers what it was asked."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.fault = ""
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        """The repository's address."""
        return f"http://127.0.0.1:{self.server_port}/ada/calc.git"


class Handler(BaseHTTPRequestHandler):
    """One request, by the CGI that git ships."""

    server: GitServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.server.paths.append(self.path)
        fault = self.server.fault
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1" + self.path)
            self.end_headers()
            return
        if fault == "hang":
            self.connection.recv(1 << 16)
            return
        expected = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="GitHub"')
            self.end_headers()
            return
        status, head, body = self._backend()
        if fault == "cut" and self.command == "POST":
            body = body[: len(body) // 2]
        self.send_response(status)
        for line in head:
            self.send_header(*line)
        self.end_headers()
        self.wfile.write(body)

    def _backend(self) -> tuple[int, list[tuple[str, str]], bytes]:
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "app",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = subprocess.run(
            ["git", "http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        pairs = [tuple(line.decode().split(": ", 1)) for line in head.split(b"\r\n")]
        status = next((int(value[:3]) for name, value in pairs if name == "Status"), 200)
        return status, [(name, value) for name, value in pairs if name != "Status"], content

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    made = GitServer(tmp_path / "www")
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def work(tmp_path: Path, server: GitServer) -> Path:
    """A working copy whose pushes arrive at the server."""
    directory = tmp_path / "work"
    make_repository(directory)
    bare = server.root / "ada/calc.git"
    bare.parent.mkdir(parents=True)
    git(tmp_path, "clone", "--quiet", "--bare", str(directory), str(bare))
    git(directory, "remote", "add", "origin", str(bare))
    return directory


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirrors", seconds=20)


async def test_a_branch_is_fetched_and_later_only_what_is_new(
    mirror: Mirror, server: GitServer, work: Path
) -> None:
    first = await mirror.fetch(7, server.url, TOKEN, "main")
    assert first == git(work, "rev-parse", "HEAD")
    (work / "new.txt").write_text("new\n")
    second = commit(work)
    git(work, "push", "--quiet", "origin", "main")
    assert await mirror.fetch(7, server.url, TOKEN, "main") == second
    asked = len(server.paths)
    assert await mirror.fetch(7, server.url, TOKEN, first) == first  # by commit, known: nobody is asked
    assert len(server.paths) == asked
    assert await mirror.read_file(7, second, "new.txt", 2) == b"ne"
    assert await mirror.read_file(7, second, "docs", 10) is None
    assert await mirror.read_file(7, second, "link", 10) is None
    assert await mirror.read_file(7, second, "absent", 10) is None
    names = [entry.path for entry in await mirror.list_tree(7, second)]
    assert {b"calc.py", b"docs", b"new.txt"} <= set(names)


async def test_a_pack_is_made_once_and_holds_the_commit_alone(
    mirror: Mirror, server: GitServer, work: Path, tmp_path: Path
) -> None:
    (work / "second.txt").write_text("second\n")
    sha = commit(work)
    git(work, "push", "--quiet", "origin", "main")
    await mirror.fetch(7, server.url, TOKEN, "main")
    pack = await mirror.shallow_pack(7, sha)
    made = pack.stat().st_ino
    assert (await mirror.shallow_pack(7, sha)).stat().st_ino == made
    git(tmp_path, "init", "--quiet", "--bare", "empty")
    copied = tmp_path / "empty/objects/pack/pack-copy.pack"
    copied.write_bytes(pack.read_bytes())
    git(tmp_path / "empty", "index-pack", str(copied))
    objects = git(tmp_path / "empty", "cat-file", "--batch-all-objects", "--batch-check")
    assert objects.count(" commit ") == 1
    assert git(tmp_path / "empty", "ls-tree", "-r", "--name-only", sha).count("\n") >= 8


async def test_the_token_is_in_no_file_and_no_argument(
    mirror: Mirror, server: GitServer, work: Path, tmp_path: Path
) -> None:
    await mirror.fetch(7, server.url, TOKEN, "main")
    encoded = base64.b64encode(f"x-access-token:{TOKEN}".encode())
    for path in (tmp_path / "mirrors").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert TOKEN.encode() not in data, path
            assert encoded not in data, path
    server.fault = "hang"
    fetching = asyncio.create_task(mirror.fetch(7, server.url, TOKEN, "refs/heads/other"))
    seen = ""
    while "fetch" not in seen:
        seen = await asyncio.to_thread(_arguments)
    fetching.cancel()
    assert TOKEN not in seen
    assert encoded.decode() not in seen


def _arguments() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(line for line in found if line.startswith("git "))


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        pytest.param("401", Refused, "clone_unauthorized", id="401"),
        pytest.param("403", Refused, "clone_forbidden", id="403"),
        pytest.param("404", Refused, "repository_not_found", id="404"),
        pytest.param("429", Later, "clone_unavailable", id="429"),
        pytest.param("500", Later, "clone_unavailable", id="500"),
        pytest.param("503", Later, "clone_unavailable", id="503"),
        pytest.param("cut", Later, "clone_interrupted", id="early end"),
        pytest.param("redirect", Refused, "clone_redirected", id="redirect to another host"),
    ],
)
async def test_each_fault_of_the_server_has_its_class(
    mirror: Mirror, server: GitServer, work: Path, fault: str, error: type[MillraceError], kind: str
) -> None:
    server.fault = fault
    with pytest.raises(error) as caught:
        await mirror.fetch(7, server.url, TOKEN, "main")
    assert getattr(caught.value, "kind", "") == kind
    assert TOKEN not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    server.fault = ""
    assert await mirror.fetch(7, server.url, TOKEN, "main") == git(work, "rev-parse", "HEAD")


async def test_a_server_that_hangs_is_given_up(server: GitServer, work: Path, tmp_path: Path) -> None:
    server.fault = "hang"
    with pytest.raises(Later) as caught:
        await Mirror(tmp_path / "m", seconds=1.0).fetch(7, server.url, TOKEN, "main")
    assert caught.value.kind == "clone_timeout"


async def test_what_is_not_there_is_named(mirror: Mirror, server: GitServer, work: Path) -> None:
    cases = (("gone", "branch_missing"), ("0123456789" * 4, "commit_gone"))
    for ref, kind in cases:
        with pytest.raises(Refused) as caught:
            await mirror.fetch(7, server.url, TOKEN, ref)
        assert caught.value.kind == kind, ref


async def test_an_empty_repository_is_named(mirror: Mirror, server: GitServer, tmp_path: Path) -> None:
    server.root.joinpath("ada").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--bare", str(server.root / "ada/calc.git"))
    with pytest.raises(Refused) as caught:
        await mirror.fetch(7, server.url, TOKEN, "main")
    assert caught.value.kind == "repository_empty"


async def test_a_wrong_token_is_refused_and_a_prompt_never_waits(
    mirror: Mirror, server: GitServer, work: Path
) -> None:
    for token in ("ghs_wrong", None):
        with pytest.raises(Refused) as caught:
            await mirror.fetch(7, server.url, token, "main")
        assert caught.value.kind == "clone_unauthorized"


async def test_nobody_there_is_another_class(mirror: Mirror) -> None:
    with pytest.raises(Later) as caught:
        await mirror.fetch(7, "http://127.0.0.1:1/ada/calc.git", TOKEN, "main")
    assert caught.value.kind == "clone_unreachable"


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("http://user:secret@127.0.0.1/x.git", "main"),
        ("ext::sh -c true", "main"),
        ("file:///etc", "main"),
        ("http://127.0.0.1:1/x.git", "--upload-pack=touch /tmp/x"),
        ("http://127.0.0.1:1/x.git", "a..b"),
        ("--upload-pack=x", "main"),
    ],
)
async def test_an_address_or_branch_cannot_become_an_option_or_a_program(
    mirror: Mirror, url: str, ref: str
) -> None:
    with pytest.raises(Refused) as caught:
        await mirror.fetch(7, url, TOKEN, ref)
    assert "secret" not in str(caught.value)


async def test_too_large_a_repository_is_given_up(server: GitServer, work: Path, tmp_path: Path) -> None:
    (work / "big").write_bytes(os.urandom(6_000_000))
    commit(work)
    git(work, "push", "--quiet", "origin", "main")
    small = Mirror(tmp_path / "small", max_size=1_000_000)
    with pytest.raises(Refused) as caught:
        await small.fetch(7, server.url, TOKEN, "main")
    assert caught.value.kind == "repository_too_large"
    assert not list((tmp_path / "small").rglob("tmp_*"))


async def test_two_runners_that_fetch_at_once_both_get_it(
    server: GitServer, work: Path, tmp_path: Path
) -> None:
    one, two = Mirror(tmp_path / "same"), Mirror(tmp_path / "same")
    shas = await asyncio.gather(*(m.fetch(7, server.url, TOKEN, "main") for m in (one, two, one, two)))
    assert set(shas) == {git(work, "rev-parse", "HEAD")}


async def test_a_fetch_that_was_killed_leaves_nothing_in_the_way(
    mirror: Mirror, server: GitServer, work: Path
) -> None:
    git_dir = mirror.path(7)
    await mirror.fetch(7, server.url, TOKEN, "main")
    (git_dir / "objects/pack/tmp_pack_abc").write_bytes(b"half")
    (git_dir / "shallow.lock").write_text("")
    (work / "later.txt").write_text("later\n")
    sha = commit(work)
    git(work, "push", "--quiet", "origin", "main")
    assert await mirror.fetch(7, server.url, TOKEN, "main") == sha
    assert not (git_dir / "objects/pack/tmp_pack_abc").exists()
