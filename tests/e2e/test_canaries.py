"""No credential appears where it does not belong, whatever happens in a run. Logs are at debug level."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from contracts import facts as f
from contracts.codec import encode_fact
from services.kit.embedded import password
from tests.doubles.github.state import Issue
from tests.doubles.model import Use
from tests.e2e.canaries import Canaries
from tests.e2e.deployment import Together, descendants, eventually
from tests.e2e.harness import END_TO_END, FIX, Project, Scene, only

pytestmark = END_TO_END

LOOK = "id; env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; cat /proc/self/mountinfo"
SHAPES = "gh[s]_[A-Za-z0-9_-]{40}|sk-an[t]-api03|MII[E][A-Za-z0-9+/]{2}IBAAKCAQEA|canar[y]-[0-9a-f]{48}"
"""Of the secrets; with brackets, so that the command which looks for them does not find itself."""
SEARCH = f"""
search() {{
    find "$1" -xdev -type f -not -path '/proc/*' -print0 2>/dev/null | xargs -0 grep -ls"$2"E '{SHAPES}'
}}
printf 'canary''-%048d' 0 > /tmp/control
search / I  # libgnutls holds a key of its own, to test itself
for place in /workspace /tmp /home/agent /run/millrace /run/channel /dev/shm; do search $place a; done
echo looked
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Everything at debug level."""
    home = tmp_path_factory.mktemp("canary") / "home"
    async with Scene.opened(Together, home, MILLRACE_LOG_LEVEL="debug") as scene:
        yield scene


def own_secrets(scene: Scene) -> dict[str, str]:
    """What Millrace made for itself; each lies in a file that only its user may read."""
    return {
        "operator token": scene.millrace.token,
        "password of NATS": password(scene.millrace.home, "millrace"),
    }


def canaries(scene: Scene) -> Canaries:
    """Everything secret that is in use, tokens minted so far included."""
    tokens = {f"token {number}": token for number, token in enumerate(scene.github.vault.tokens, 1)}
    return Canaries(
        {
            "App key": scene.app.private_key_pem,
            "webhook secret": scene.app.webhook_secret,
            "model key": scene.claude.key,
            **tokens,
            **own_secrets(scene),
        }
    )


def host_processes(scene: Scene) -> Iterator[tuple[str, bytes, bytes]]:
    """Name, command line and environment of each process of Millrace."""
    for pid in scene.millrace.pids:
        for process in descendants(pid):
            with contextlib.suppress(OSError):
                directory = Path("/proc") / str(process)
                name = (directory / "comm").read_text().strip()
                yield name, (directory / "cmdline").read_bytes(), (directory / "environ").read_bytes()


async def _run(scene: Scene, acme: Project) -> Issue:
    """A run that looks around in its sandbox, loses its tokens and its model for a moment, and ends well."""
    scene.play(((Use("bash", {"command": LOOK}),), (Use("bash", {"command": SEARCH}),), *FIX), at=acme)
    scene.claude.misbehave("overloaded", after_turns=scene.claude.paid_turns + 1)
    slow_clone = scene.github.faults.add("POST /{owner}/{repo}.git/git-upload-pack", "delay", seconds=1.0)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)

    await eventually(lambda: slow_clone.used, what="the repository is cloned")
    seen = list(host_processes(scene))
    assert "git" in {name for name, _, _ in seen}
    known = canaries(scene)
    for name, command, environment in seen:
        assert known.in_bytes(command, f"the command line of {name}") == []
        if not name.startswith("git"):  # that is how git gets its token
            assert known.in_bytes(environment, f"the environment of {name}") == []

    await scene.until(issue, f.SandboxReady)
    for token in scene.github.vault.tokens.values():
        token.revoked = True
    return issue


async def test_no_secret_is_where_it_does_not_belong(scene: Scene) -> None:
    acme = scene.project()
    issue = await _run(scene, acme)
    run = await scene.finished(issue)
    assert only(run, f.RunFinished).outcome == "pull_request"
    known = canaries(scene)

    # The sandbox: its environment, processes and files.
    looked, found = (
        next(r.fact.results[0].content for r in run if isinstance(r.fact, f.ToolsRan) and r.fact.turn == turn)
        for turn in (1, 2)
    )
    assert "uid=1000" in looked
    assert "PATH=" in looked
    assert found.split() == ["/tmp/control", "looked"]  # noqa: S108  a file in the sandbox

    # What was recorded, and what the model was told.
    for recorded in run:
        assert known.in_bytes(encode_fact(recorded.fact), type(recorded.fact).__name__) == []
    assert known.in_bytes(repr(scene.claude.requests).encode(), "requests to the model") == []

    # What people see.
    (pull,) = scene.github.pull_requests(acme.repo)
    texts = [pull.title, pull.body or "", *(comment.body for comment in scene.github.comments(issue))]
    assert known.in_bytes("\n".join(texts).encode(), "the issue or the pull request") == []
    git = await asyncio.create_subprocess_exec(
        "git", "cat-file", "--batch-all-objects", "--batch", cwd=acme.repo.git.path, stdout=subprocess.PIPE
    )
    content, _ = await git.communicate()
    assert b"return a + b" in content
    assert known.in_bytes(content, "the repository") == []

    # What operators see.
    events = f"/api/issues/{acme.repo.full_name}/{issue.number}/events"
    for path in ("/config", "/api/issues", events, "/api/deliveries", "/metrics", "/container/health"):
        answer = await scene.millrace.ask("GET", path)
        assert answer.status_code == 200
        assert known.in_bytes(answer.content, path) == []

    # Everything on disk: NATS's store, the databases with their journals, mirrors, logs.
    home, logs = scene.millrace.home, scene.millrace.logs
    kept = [home / "admin-token", home / "nats" / "millrace.password", home / "nats" / "nats-server.conf"]
    assert known.in_files([home, *logs], besides=kept) == []
    assert Canaries(own_secrets(scene)).in_files(kept)
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}
    assert any(b'"level": "debug"' in log.read_bytes() for log in logs)
    assert Canaries({"the run's id": run[0].key.run}).in_files([home / "nats"]), "NATS's store is readable"
