"""The demo's own judgement, after the fact: nothing that the run said about itself is taken for granted."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from contracts.envelope import RunKey
from contracts.tools import ToolCall
from services.cli.demo_repository import TEST_COMMAND
from services.cli.demo_stage import Stage
from services.cli.demo_view import Tested
from services.kit.errors import Refused
from services.sandbox_runner.image import ensure_image
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_command import working_runtime
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.sandbox import MIB, Limits, SandboxSpec
from tests.doubles.github.state import PullRequest

_SECONDS = 300.0


def the_pull_request(stage: Stage) -> PullRequest:
    """The one that there is; ``Refused`` when there is none, or more than one."""
    match stage.github.pull_requests(stage.repo):
        case [pull]:
            return pull
        case []:
            raise Refused("the run ended without a pull request", kind="demo")
        case pulls:
            raise Refused(f"the run ended with {len(pulls)} pull requests", kind="demo")


async def test_again(stage: Stage, branches: Sequence[str]) -> list[Tested]:
    """Clone each branch from GitHub into a sandbox of its own and run its tests there."""
    settings, home = stage.settings, stage.settings.home.absolute()
    image = settings.sandbox_image or await ensure_image(lambda _: None)
    runtime = await working_runtime(image, settings.sandbox_runtime, home / "runtime")
    service = PodmanService(settings.podman_url, runtime)
    api = await service.start()
    try:
        host = PodmanHost(api, f"demo-{os.getpid()}", home / "sandboxes" / "demo", service.ceiling)
        mirror = Mirror(home / "demo-mirror")
        token = stage.github.vault.mint(stage.installation, [stage.repo], {"contents": "read"}).value
        url = f"{stage.github.url}/{stage.repo.full_name}.git"

        async def tested(number: int, branch: str) -> Tested:
            commit = await mirror.fetch(stage.repo.id, url, token, branch)
            pack = await mirror.shallow_pack(stage.repo.id, commit)
            box = PodmanSandbox(host, mirror.path(stage.repo.id))
            name = f"demo-{os.getpid()}-{number}"
            limits = Limits(memory=settings.sandbox_memory * MIB, disk=settings.sandbox_memory * MIB // 2)
            key = RunKey(stage.repo.id, number, "demo")
            spec = SandboxSpec(sandbox_id=name, key=key, image=image, limits=limits)
            call = ToolCall(id="test", name="bash", input={"command": TEST_COMMAND}, seconds=_SECONDS)
            try:
                ready = await box.prepare(spec, pack, commit)
                result = await box.call(call)
            finally:
                await asyncio.shield(box.release())
            lines = [line for line in result.content.splitlines() if line and not line.startswith("[")]
            return Tested(branch, ready.tree, result.exit_code, lines[-1] if lines else "")

        return list(await asyncio.gather(*(tested(*pair) for pair in enumerate(branches, 1))))
    finally:
        await service.stop()


def problems(
    stage: Stage, pull: PullRequest, before: Tested, after: Tested, events: Sequence[dict[str, Any]]
) -> list[str]:
    """What is not as promised, a sentence each."""
    found = list(stage.violations)
    if pull.state != "open" or not pull.draft:
        found.append("the pull request is not an open draft")
    if before.exit_code == 0:
        found.append(f"the tests pass on {before.branch} without the change: there was no bug to mend")
    if after.exit_code != 0:
        found.append(f"the tests fail on the pull request's tree ({after.said})")
    if stage.github.tree_id(stage.repo, pull.head_sha) != after.tree:
        found.append("the sandbox did not hold the pull request's tree")
    evidence = {
        (check["tree"], check["exit_code"])
        for event in events
        if event["type"].startswith("dev.millrace.verification.finished.")
        for check in event["data"]["checks"]
    }
    if (after.tree, 0) not in evidence:
        found.append(f"no recorded check passed on the published tree {after.tree}")
    return found
