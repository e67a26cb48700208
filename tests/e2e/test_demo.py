"""``millrace demo`` as a person runs it: a process of its own, judged by its exit code and its words."""

import asyncio
import hashlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.cli.demo_session import session
from tests.doubles.model import ClaudeDouble

SECONDS = 90.0
DEMO = (sys.executable, "-m", "services.cli", "demo")


@pytest.fixture(autouse=True)
def _nothing_went_wrong_unseen() -> None:
    """The demo looks at its own doubles; it needs no scene beside it."""


@asynccontextmanager
async def demo(temporary: Path, *arguments: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo in a process group of its own, all of its files under ``temporary``."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "XDG_RUNTIME_DIR")}
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        env={**kept, "COLUMNS": "80", "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary), **more},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read(process: asyncio.subprocess.Process, until: str | None = None) -> str:
    """The output so far: to its end, or to a line with these words."""
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(SECONDS):
        while line := (await process.stdout.readline()).decode():
            text += line
            if until is not None and until in line:
                return text
        await process.wait()
    assert until is None, f"it never said {until!r}:\n{text}"
    return text


@pytest.mark.timeout(2 * SECONDS)
async def test_the_demo_ends_with_a_pull_request_whose_tree_passes(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        said = await read(process)

    assert process.returncode == 0, said
    assert re.search(r"^Draft pull request #2 ─", said, re.MULTILINE)
    assert re.search(r"^main +[0-9a-f]{10} +exit code 1: 4 failed", said, re.MULTILINE)
    assert re.search(r"^millrace/issue-1 +[0-9a-f]{10} +exit code 0: 25 passed", said, re.MULTILINE)
    assert re.search(r"^\+ +left = round\(seconds\)", said, re.MULTILINE)
    assert re.search(r"^webhook to pull request +\d+\.\d\d", said, re.MULTILINE)
    assert "Traceback" not in said
    assert max(len(line) for line in said.splitlines()) <= 80
    assert files(tmp_path) == []


@pytest.mark.timeout(2 * SECONDS)
async def test_live_asks_the_model_that_the_environment_names(tmp_path: Path) -> None:
    async with ClaudeDouble() as claude:
        claude.play(session())
        given = {"ANTHROPIC_API_KEY": claude.key, "ANTHROPIC_BASE_URL": claude.url}
        async with demo(tmp_path, "--live", **given) as process:
            said = await read(process)

    assert process.returncode == 0, said
    assert claude.paid_turns == len(session())
    assert claude.violations == []
    assert claude.key not in said


@pytest.mark.timeout(2 * SECONDS)
async def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await read(process, until="sandbox 1 ready")
        [home] = files(tmp_path, "millrace-demo-*")
        assert await containers(home)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everything hears it
        said = await read(process)

    assert process.returncode == 130, said
    assert "nothing is left behind" in said
    assert "Traceback" not in said
    assert await containers(home) == []
    assert files(tmp_path) == []


def files(directory: Path, pattern: str = "*") -> list[Path]:
    """What is there."""
    return list(directory.glob(pattern))


async def containers(home: Path) -> list[str]:
    """The sandboxes of the runner that works in this home."""
    mark = hashlib.sha256(os.fsencode((home / "runners").absolute())).hexdigest()[:8]
    asked = ("ps", "--all", f"--filter=label=dev.millrace.runner={socket.gethostname()}-{mark}-1", "--quiet")
    process = await asyncio.create_subprocess_exec("podman", *asked, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode().split()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        pytest.param(["--live"], {}, "set ANTHROPIC_API_KEY", id="live without a key"),
        pytest.param([], {"MILLRACE_TYPO": "1"}, "MILLRACE_TYPO is not a setting", id="an unknown setting"),
        pytest.param([], {"PATH": "/nonexistent"}, "needs git and podman", id="without git and Podman"),
    ],
)
async def test_what_is_missing_is_one_message(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *DEMO, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **environment},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    said = await read(process)

    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith(("millrace: ", "  ")), said
    assert words in said
    assert "Traceback" not in said


async def test_without_the_doubles_it_says_where_it_runs(tmp_path: Path) -> None:
    for name in ("contracts", "services", "deploy"):
        (tmp_path / name).symlink_to(Path(__file__).parents[2] / name)
    hide = "import sys; sys.path[:] = [p for p in sys.path if p != sys.argv[1]]; del sys.argv[1]; "
    start = "from services.cli.__main__ import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", hide + start, str(Path(__file__).parents[2]), "demo",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    said = await read(process)

    assert (process.returncode, said.count("\n")) == (1, 1)
    assert "runs from a checkout" in said
