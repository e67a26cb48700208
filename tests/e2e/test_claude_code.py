"""The main path with Claude Code as the engine: the real program, in a real sandbox, between the doubles."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from contracts import facts as f
from contracts.envelope import Recorded
from services.sandbox_runner.engine_image import ensure_engine_image
from services.sandbox_runner.image import ensure_image
from tests.doubles.model import Say, Use
from tests.doubles.model.sessions import for_claude_code
from tests.e2e.deployment import Together, eventually
from tests.e2e.harness import BUGGY, FIX, Scene, kinds, only

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

CLAUDE_CODE = for_claude_code(FIX)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """``millrace up`` with the other engine."""
    await ensure_engine_image(await ensure_image())
    home = tmp_path_factory.mktemp("e2e") / "home"
    async with Scene.opened(Together, home, MILLRACE_ENGINE="claude-code") as scene:
        yield scene


def turns(run: list[Recorded]) -> list[f.TurnTaken]:
    return [recorded.fact for recorded in run if isinstance(recorded.fact, f.TurnTaken)]


async def test_an_issue_becomes_a_tested_draft_pull_request(scene: Scene) -> None:
    acme = scene.project()
    scene.play(CLAUDE_CODE, at=acme)
    paid = scene.claude.paid_turns
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", "add(1, 2) is -1", by=acme.maintainer)
    run = await scene.finished(issue, seconds=120)

    (pull,) = scene.github.pull_requests(acme.repo)
    assert pull.draft
    assert scene.github.file_at(acme.repo, pull.head, "calc.py") == b"def add(a, b):\n    return a + b\n"
    verified = only(run, f.VerificationFinished)
    assert verified.verdict == "passed"
    assert scene.github.tree_id(acme.repo, pull.head_sha) == verified.change.tree

    steps = ["turn.taken", "tools.ran"] * 5 + ["turn.taken"]
    assert [kind for kind in kinds(run) if kind in steps] == steps
    assert {turn.engine for turn in turns(run)} == {"claude-code"}
    assert scene.claude.paid_turns - paid == len(turns(run)) == 6
    proposal = only(run, f.SolutionProposed)
    assert proposal.title == "Add instead of subtracting"
    assert proposal.claims == ("`python -m pytest -q` fails before the change and passes after it",)
    batches = [recorded.fact for recorded in run if isinstance(recorded.fact, f.ToolsRan)]
    assert [outcome.name for batch in batches for outcome in batch.results] == [
        "Bash", "Bash", "Read", "Bash", "Edit", "Bash",
    ]  # fmt: skip
    assert batches[-1].checkpoint.tree == verified.change.tree
