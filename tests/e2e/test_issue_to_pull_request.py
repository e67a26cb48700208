"""The main path: somebody opens an issue, a tested draft pull request comes back."""

import pytest

from contracts import facts as f
from tests.e2e.deployment import Apart, Together
from tests.e2e.harness import END_TO_END, FIX, Scene, kinds, only

pytestmark = END_TO_END


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(Together, id="all services in one process tree"),
        pytest.param(Apart, id="each service a process of its own, gateway and runner twice"),
    ],
    indirect=True,
)
async def test_an_issue_becomes_a_tested_draft_pull_request(scene: Scene) -> None:
    github = scene.github
    acme = scene.project("acme/calc")
    scene.play(FIX, at=acme)

    issue = await github.open_issue(acme.repo, "add() subtracts", "add(1, 2) is -1", by=acme.maintainer)
    run = await scene.finished(issue)

    (pull,) = github.pull_requests(acme.repo)
    assert pull.draft
    body = pull.body or ""
    assert body.count(f"Fixes #{issue.number}") == body.count(f"#{issue.number}") == 1

    verified = only(run, f.VerificationFinished)
    (check,) = verified.checks
    assert (verified.verdict, check.exit_code) == ("passed", 0)
    assert f"| `{check.command}` | 0 |" in body
    assert check.tree in body
    assert github.tree_id(acme.repo, pull.head_sha) == verified.change.tree == check.tree
    assert github.file_at(acme.repo, pull.head, "calc.py") == b"def add(a, b):\n    return a + b\n"

    (comment,) = scene.said(issue)
    assert f"opened a draft pull request: {only(run, f.PullRequestOpened).url}" in comment.body

    told = await scene.history(issue, up_to=run[-1], replica=-1)
    assert [event["sequence"] for event in told] == [recorded.sequence for recorded in run]
    assert [event["type"].split(".", 2)[2].rpartition(".v")[0] for event in told] == kinds(run)
    assert kinds(run)[0] == "run.requested"
    assert kinds(run)[-5:] == [
        "solution.proposed",
        "verification.finished",
        "commit.published",
        "pull_request.opened",
        "run.finished",
    ]
