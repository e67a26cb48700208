"""``python -m tests.e2e.engines``: both engines on the same script, side by side: time, facts, bytes, memory.

Memory is the sum of the proportional set sizes (PSS) of all processes of the run's sandbox, at its highest of
what was seen ten times a second; temporary files are not in it.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from services.sandbox_runner.engine_image import ensure_engine_image
from services.sandbox_runner.image import ensure_image
from tests.doubles.model.sessions import for_claude_code
from tests.e2e.deployment import Together, descendants
from tests.e2e.harness import FIX, Scene, kinds

SCRIPTS = {"millrace": FIX, "claude-code": for_claude_code(FIX)}
RUNS = 5


def main() -> None:
    """Measure, and print one table."""
    asyncio.run(_measure())


async def _measure() -> None:
    await ensure_engine_image(await ensure_image(_tell), _tell)
    print(
        f"{'engine':<14}{'seconds':>9}{'turns':>7}{'asked, KB':>11}{'sandbox, MB':>13}   (medians of {RUNS})"
    )
    for engine, script in SCRIPTS.items():
        with tempfile.TemporaryDirectory(prefix="millrace-engines-") as directory:
            async with Scene.opened(Together, Path(directory, "home"), MILLRACE_ENGINE=engine) as scene:
                found = [await _one(scene, script) for _ in range(RUNS)]
        seconds, turns, asked, memory = (statistics.median(each) for each in zip(*found, strict=True))
        print(
            f"{engine:<14}{seconds:>9.2f}{turns:>7.0f}{asked / 1000:>11.0f}{memory / 1e6:>13.0f}", flush=True
        )


async def _one(scene: Scene, script: object) -> tuple[float, int, int, int]:
    project = scene.project()
    scene.play(script, at=project)  # type: ignore[arg-type]
    before = len(scene.claude.requests)
    watching = asyncio.create_task(_peak(scene))
    began = time.monotonic()
    issue = await scene.github.open_issue(project.repo, "add() subtracts", by=project.maintainer)
    run = await scene.finished(issue, seconds=240)
    took = time.monotonic() - began
    watching.cancel()
    peak = (await asyncio.gather(watching, return_exceptions=True))[0]
    assert len(scene.github.pull_requests(project.repo)) == 1
    asked = sum(len(json.dumps(request)) for request in scene.claude.requests[before:])
    return took, kinds(run).count("turn.taken"), asked, int(str(peak))


async def _peak(scene: Scene) -> int:
    """The highest memory of the first container that appears, until it is gone or this is cancelled."""
    peak = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            names = [name for name in await scene.millrace.sandboxes() if name.endswith("-1")]
            if names:
                pid = await _pid(names[0])
                while pid and (now := sum(map(_pss, descendants(pid)))):
                    peak = max(peak, now)
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
    return peak


async def _pid(name: str) -> int:
    asked = await asyncio.create_subprocess_exec(
        "podman", "inspect", "--format={{.State.Pid}}", name,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asked.communicate()
    return int(out.decode().strip() or 0)


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
