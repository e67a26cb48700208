"""SIGKILL to the whole process tree, then a start: the run goes on where it was, nothing is done twice."""

import os
import signal

import pytest

from contracts import facts as f
from tests.doubles.model import Use
from tests.e2e.deployment import eventually
from tests.e2e.harness import END_TO_END, FIX, Project, Scene, kinds

pytestmark = END_TO_END


SLOW = (*FIX[:1], (Use("bash", {"command": "sleep 2"}),), *FIX[1:])
"""The same work with a second turn whose command lasts long enough to be interrupted."""


@pytest.fixture
def acme(scene: Scene) -> Project:
    """A project with a bug that Claude fixes."""
    project = scene.project()
    scene.play(FIX, at=project)
    return project


async def _ends_well(scene: Scene, acme: Project, paid_before: int, *, turns: int = len(FIX)) -> None:
    """One pull request with one verified tree, one final comment, no recorded turn bought again."""
    (issue,) = [issue for issue in acme.repo.issues.values() if issue.number not in acme.repo.pulls]
    run = await scene.finished(issue)
    (pull,) = scene.github.pull_requests(acme.repo)
    verified = [r.fact for r in run if isinstance(r.fact, f.VerificationFinished)]
    assert [fact.verdict for fact in verified] == ["passed"]
    assert scene.github.tree_id(acme.repo, pull.head_sha) == verified[0].change.tree
    (comment,) = scene.said(issue)
    assert "opened a draft pull request" in comment.body
    assert sorted(scene.github.branches(acme.repo)) == ["main", f"millrace/issue-{issue.number}"]
    assert kinds(run).count("run.requested") == kinds(run).count("run.finished") == 1
    assert scene.claude.paid_turns - paid_before == kinds(run).count("turn.taken") == turns


async def test_killed_while_the_model_thinks(scene: Scene, acme: Project) -> None:
    paid = scene.claude.paid_turns
    scene.claude.misbehave("stall", after_turns=paid + 2)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    asked = len(scene.claude.requests)
    await scene.until(issue, f.ToolsRan, times=2)
    await eventually(lambda: len(scene.claude.requests) >= asked + 3, what="a third turn is asked for")
    await scene.millrace.kill()
    await scene.millrace.start()
    await _ends_well(scene, acme, paid)


@pytest.mark.parametrize(
    "request_",
    [
        "POST /repos/{owner}/{repo}/git/trees",
        "POST /repos/{owner}/{repo}/git/refs",
        "POST /repos/{owner}/{repo}/pulls",
        "PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}",
    ],
)
async def test_killed_between_a_write_and_its_answer(scene: Scene, acme: Project, request_: str) -> None:
    paid = scene.claude.paid_turns
    fault = scene.github.faults.add(request_, "after", seconds=600, status=None)
    await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await eventually(lambda: fault.used, what=f"{request_} is asked")
    await scene.millrace.kill()
    await scene.millrace.start()
    await _ends_well(scene, acme, paid)


async def test_killed_between_the_first_comment_and_its_answer(scene: Scene, acme: Project) -> None:
    paid = scene.claude.paid_turns
    scene.claude.misbehave("stall", after_turns=paid)  # nothing else goes on meanwhile
    comment = "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"
    fault = scene.github.faults.add(comment, "after", seconds=600, status=None)
    await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await eventually(lambda: fault.used, what="the comment is posted")
    await scene.millrace.kill()
    scene.claude.faults.clear()
    await scene.millrace.start()
    await _ends_well(scene, acme, paid)


async def test_killed_while_a_command_runs(scene: Scene, acme: Project) -> None:
    paid = scene.claude.paid_turns
    scene.play(SLOW, at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.TurnTaken, times=2)
    await scene.millrace.kill()
    await scene.millrace.start()
    await _ends_well(scene, acme, paid, turns=len(SLOW))


async def test_killed_nats_server_alone(scene: Scene, acme: Project) -> None:
    paid = scene.claude.paid_turns
    scene.play(SLOW, at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.TurnTaken, times=2)
    os.kill(scene.millrace.find("nats-server"), signal.SIGKILL)
    await _ends_well(scene, acme, paid, turns=len(SLOW))


async def test_stopped_in_an_orderly_way_while_a_command_runs(scene: Scene, acme: Project) -> None:
    paid = scene.claude.paid_turns
    scene.play(SLOW, at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.TurnTaken, times=2)
    await scene.millrace.stop()
    await scene.millrace.start()
    await _ends_well(scene, acme, paid, turns=len(SLOW))
