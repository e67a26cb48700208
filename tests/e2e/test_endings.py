"""Every way in which a run ends is told truthfully in its one comment."""

import pytest

from contracts import facts as f
from tests.doubles.model import Use
from tests.doubles.model.sessions import answer_only, ask_first, submit
from tests.e2e.deployment import eventually
from tests.e2e.harness import BUGGY, END_TO_END, FIX, Project, Scene, kinds, only

pytestmark = END_TO_END

HAND_IN = (submit("Change something", "I changed something."),)


def _runs(command: str) -> tuple[Use]:
    return (Use("bash", {"command": command}),)


@pytest.fixture
def acme(scene: Scene) -> Project:
    """A project of this test's own."""
    return scene.project()


async def test_an_answer_without_a_change_is_the_comment(scene: Scene, acme: Project) -> None:
    scene.play(answer_only("Because `b` is **negated**; see #1 and @octocat."), at=acme)
    issue = await scene.github.open_issue(acme.repo, "Why minus?", by=acme.maintainer)
    run = await scene.finished(issue)
    assert only(run, f.RunFinished).outcome == "answer"
    (comment,) = scene.said(issue)
    assert "Because `b` is **negated**" in comment.body
    assert "@octocat" not in comment.body
    assert scene.github.pull_requests(acme.repo) == []


async def test_a_question_waits_for_its_answer_and_the_work_goes_on(scene: Scene, acme: Project) -> None:
    scene.play(ask_first("Should `add` add?", FIX), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.QuestionAsked)
    (comment,) = scene.said(issue)
    await eventually(lambda: "Should `add` add?" in comment.body, what="the question is told")

    stranger = scene.github.create_user("stranger")
    await scene.github.comment(issue, "No!", by=stranger)
    await scene.github.comment(issue, "Yes, it should.", by=acme.maintainer)
    run = await scene.finished(issue)

    answered = only(run, f.QuestionAnswered)
    assert (answered.answer, answered.by.id) == ("Yes, it should.", acme.maintainer.id)
    assert only(run, f.RunFinished).outcome == "pull_request"
    assert kinds(run).count("sandbox.ready") == 2, "a parked run holds no sandbox"
    assert scene.said(issue) == [comment]


async def test_failing_tests_are_said_in_the_pull_request_of_the_last_attempt(
    scene: Scene, acme: Project
) -> None:
    scene.play((_runs("echo '# Soon' >> README.md"), HAND_IN, HAND_IN, HAND_IN), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    run = await scene.finished(issue)
    verdicts = [r.fact.verdict for r in run if isinstance(r.fact, f.VerificationFinished)]
    assert verdicts == ["failed", "failed", "failed"]
    (pull,) = scene.github.pull_requests(acme.repo)
    assert pull.draft
    assert "**The tests fail.** They fail on the unchanged base as well." in (pull.body or "")
    (comment,) = scene.said(issue)
    assert "**fails** on that tree" in comment.body


async def test_work_without_a_difference_is_no_pull_request(scene: Scene, acme: Project) -> None:
    scene.play((HAND_IN,), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    run = await scene.finished(issue)
    assert only(run, f.RunFinished).outcome == "unchanged"
    (comment,) = scene.said(issue)
    assert "ended without a change" in comment.body
    assert scene.github.pull_requests(acme.repo) == []


async def test_a_change_to_a_workflow_is_refused(scene: Scene, acme: Project) -> None:
    write = "mkdir -p .github/workflows && echo 'on: push' > .github/workflows/ci.yml"
    scene.play((_runs(write), HAND_IN, HAND_IN, HAND_IN), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    run = await scene.finished(issue)
    assert only(run, f.RunFinished).outcome == "failed"
    (comment,) = scene.said(issue)
    assert "does not publish it" in comment.body
    assert ".github/workflows/ci.yml" in comment.body
    assert list(scene.github.branches(acme.repo)) == ["main"]


async def test_a_revoked_model_key_is_the_reason_given(scene: Scene, acme: Project) -> None:
    scene.claude.misbehave("revoked_key")
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    run = await scene.finished(issue)
    assert (only(run, f.RunFailed).kind, only(run, f.RunFinished).outcome) == ("model_key_rejected", "failed")
    (comment,) = scene.said(issue)
    assert "key was rejected" in comment.body


@pytest.mark.parametrize("how", ["/millrace stop", "closed"])
async def test_a_person_ends_the_run(scene: Scene, acme: Project, how: str) -> None:
    scene.play(ask_first("Should `add` add?", FIX), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.QuestionAsked)
    if how == "closed":
        await scene.github.close(issue, by=acme.maintainer)
    else:
        await scene.github.comment(issue, how, by=acme.maintainer)
    run = await scene.finished(issue)
    assert only(run, f.RunFinished).outcome == "cancelled"
    (comment,) = scene.said(issue)
    assert comment.body.startswith("**Millrace stopped:**")
    assert scene.github.pull_requests(acme.repo) == []


async def test_a_project_without_tests_is_published_as_untested(scene: Scene) -> None:
    plain = scene.project(files={"calc.py": BUGGY["calc.py"]})
    scene.play((_runs("sed -i 's/a - b/a + b/' calc.py"), HAND_IN), at=plain)
    issue = await scene.github.open_issue(plain.repo, "add() subtracts", by=plain.maintainer)
    run = await scene.finished(issue)
    assert only(run, f.VerificationFinished).verdict == "untested"
    (pull,) = scene.github.pull_requests(plain.repo)
    assert "**Untested.**" in (pull.body or "")


async def test_tokens_that_are_revoked_meanwhile_are_replaced(scene: Scene, acme: Project) -> None:
    scene.play(ask_first("Should `add` add?", FIX), at=acme)
    issue = await scene.github.open_issue(acme.repo, "add() subtracts", by=acme.maintainer)
    await scene.until(issue, f.QuestionAsked)
    (comment,) = scene.said(issue)
    await eventually(lambda: "Should `add` add?" in comment.body, what="the question is told")
    for token in scene.github.vault.tokens.values():
        token.revoked = True
    await scene.github.comment(issue, "Yes.", by=acme.maintainer)
    assert only(await scene.finished(issue), f.RunFinished).outcome == "pull_request"
