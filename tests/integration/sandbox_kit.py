"""Real Podman, a real repository and its mirror, for the sandbox tests."""

import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from contracts.envelope import RunKey
from contracts.tools import ToolCall, ToolResult
from services.sandbox_runner.image import ensure_image
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_command import working_runtime
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.sandbox import MIB, Limits, Ready, SandboxSpec

REPOSITORY = 1296269
KEY = RunKey(REPOSITORY, 42, "01HZZZZZZZZZZZZZZZZZZZZZZZ")
SMALL = Limits(memory=1024 * MIB, disk=640 * MIB, pids=128, cpus=1.0, seconds=600)
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def git(directory: Path, *arguments: str) -> str:
    """Run git as the author of the test's repository."""
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, **AUTHOR},
    )
    return done.stdout.decode().strip()


def commit(directory: Path, message: str = "change") -> str:
    """Record everything in the directory."""
    git(directory, "add", "--all", "--force")
    git(directory, "commit", "--quiet", "--message", message)
    return git(directory, "rev-parse", "HEAD")


def make_repository(directory: Path) -> str:
    """A small Python project with some of what real repositories hold."""
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch=main")
    (directory / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    (directory / "test_calc.py").write_text(
        "from calc import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"
    )
    (directory / "windows.txt").write_bytes(b"one\r\ntwo\r\n")
    (directory / "old.txt").write_text("to be deleted\n")
    (directory / "run.sh").write_text("#!/bin/sh\necho run\n")
    (directory / "logo.bin").write_bytes(bytes(range(256)) * 8)
    (directory / ".gitattributes").write_text("*.txt text eol=lf\n*.bin filter=lfs\n")
    (directory / "docs").mkdir()
    (directory / "docs/read.me").write_text("read\n")
    (directory / "link").symlink_to("docs/read.me")
    return commit(directory, "first")


class Bench(msgspec.Struct):
    """One repository at one commit, on one Podman service."""

    service: PodmanService
    host: PodmanHost
    mirror: Mirror
    image: str
    source: Path
    base: str
    pack: Path

    def spec(self, limits: Limits = SMALL) -> SandboxSpec:
        """Another sandbox."""
        return SandboxSpec(sandbox_id=f"t{uuid.uuid4().hex[:12]}", key=KEY, image=self.image, limits=limits)

    @asynccontextmanager
    async def open(self, limits: Limits = SMALL) -> AsyncIterator["Open"]:
        """A prepared sandbox that is gone afterwards."""
        sandbox = PodmanSandbox(self.host, self.mirror.path(REPOSITORY))
        try:
            ready = await sandbox.prepare(self.spec(limits), self.pack, self.base)
            yield Open(sandbox, ready)
        finally:
            await sandbox.release()


class Open:
    """A running sandbox with the tools as verbs."""

    def __init__(self, sandbox: PodmanSandbox, ready: Ready) -> None:
        self.sandbox = sandbox
        self.ready = ready

    async def bash(self, command: str, seconds: float = 30.0, call: str = "") -> ToolResult:
        """Run a command."""
        call = call or uuid.uuid4().hex
        return await self.sandbox.call(
            ToolCall(id=call, name="bash", input={"command": command}, seconds=seconds)
        )

    async def edit(self, command: str, path: str, **more: object) -> ToolResult:
        """Use the editor."""
        given = {"command": command, "path": path, **more}
        return await self.sandbox.call(
            ToolCall(id=uuid.uuid4().hex, name="str_replace_based_edit_tool", input=given)
        )


@asynccontextmanager
async def bench(directory: Path) -> AsyncIterator[Bench]:
    """Everything a sandbox test needs; nothing of it is left behind."""
    image = await ensure_image(lambda line: print(line, flush=True))
    runtime = await working_runtime(image, None, directory / "runtime")
    service = PodmanService(runtime=runtime)
    api = await service.start()
    host = PodmanHost(api, f"test-{uuid.uuid4().hex[:8]}", directory / "runner", service.ceiling)
    try:
        source = directory / "source"
        base = make_repository(source)
        mirror = Mirror(directory / "mirrors", protocols="file")
        assert await mirror.fetch(REPOSITORY, source.as_uri(), None, "main") == base
        pack = await mirror.shallow_pack(REPOSITORY, base)
        yield Bench(service, host, mirror, image, source, base, pack)
    finally:
        await host.pool.drain()
        for orphan in await host.list_orphans(set()):
            await host.remove(orphan.container, orphan.box)
        await service.stop()
