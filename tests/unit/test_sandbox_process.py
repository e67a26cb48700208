"""Programs on the host end with the call that started them."""

import asyncio
import os
from pathlib import Path

import pytest

from services.sandbox_runner.process import run_process

ENV = {"PATH": os.environ["PATH"]}


def alive(pid: str) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().split()[2] != "Z"


async def test_output_error_and_code_come_back() -> None:
    done = await run_process(["sh", "-c", "cat; echo no >&2; exit 3"], env=ENV, seconds=10, feed=b"in")
    assert (done.code, done.output, done.errors) == (3, b"in", b"no\n")


async def test_lines_are_told_as_they_come() -> None:
    told: list[str] = []
    done = await run_process(["sh", "-c", "echo a; echo b >&2"], env=ENV, seconds=10, on_line=told.append)
    await asyncio.sleep(0)
    assert told == ["a", "b"]
    assert done.output == b"a\nb\n"


async def test_a_deadline_ends_the_program_and_its_children(tmp_path: Path) -> None:
    command = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(TimeoutError):
        await run_process(["sh", "-c", command], env=ENV, seconds=0.5)
    child = (tmp_path / "child").read_text().strip()
    assert not alive(child)


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01])
async def test_a_call_that_is_cancelled_at_any_moment_ends(delay: float) -> None:
    running = asyncio.create_task(run_process(["sleep", "600"], env=ENV, seconds=60))
    await asyncio.sleep(delay)
    running.cancel()
    running.cancel()
    async with asyncio.timeout(10):
        done, _ = await asyncio.wait([running])
    assert done == {running}


async def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(["no-such-program-here"], env=ENV, seconds=10)
