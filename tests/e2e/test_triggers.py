"""Who and what starts a run, once; and what does not."""

import asyncio

import pytest

from contracts import facts as f
from tests.doubles.model.sessions import answer_only
from tests.e2e.harness import END_TO_END, Project, Scene, only

pytestmark = END_TO_END

ANSWER = "It is deliberate; see README.md."


@pytest.fixture
def acme(scene: Scene) -> Project:
    """A project where Claude answers every question with the same words."""
    project = scene.project()
    scene.play(answer_only(ANSWER), at=project)
    return project


async def _reason(scene: Scene, guid: str) -> str | None:
    """Why the inbox ignored a delivery, once it did."""
    async with asyncio.timeout(60):
        while True:
            for delivery in (await scene.millrace.ask("GET", "/api/deliveries")).json():
                if delivery["delivery"] == guid and delivery["state"] == "ignored":
                    return str(delivery["reason"])


@pytest.mark.parametrize("words", ["/millrace", "Could you look at this, @millrace?"])
async def test_a_maintainers_comment_starts_a_run(scene: Scene, acme: Project, words: str) -> None:
    stranger = scene.github.create_user("stranger")
    issue = await scene.github.open_issue(acme.repo, "Why minus?", by=stranger)
    comment = await scene.github.comment(issue, words, by=acme.maintainer)
    run = await scene.finished(issue)
    asked = only(run, f.RunRequested)
    assert (asked.trigger.kind, asked.trigger.comment_id) == ("comment", comment.id)
    assert (asked.trigger.actor.id, asked.trigger.permission) == (acme.maintainer.id, "write")
    (answer,) = scene.said(issue)
    assert ANSWER in answer.body


async def test_the_label_starts_a_run(scene: Scene, acme: Project) -> None:
    stranger = scene.github.create_user("stranger")
    issue = await scene.github.open_issue(acme.repo, "Why minus?", by=stranger)
    await scene.github.label(issue, "question", by=acme.maintainer)
    await scene.github.label(issue, "millrace", by=acme.maintainer)
    assert only(await scene.finished(issue), f.RunRequested).trigger.kind == "label"


async def test_an_operator_starts_a_run(scene: Scene, acme: Project) -> None:
    stranger = scene.github.create_user("stranger")
    issue = await scene.github.open_issue(acme.repo, "Why minus?", by=stranger)
    body = {
        "repository": acme.repo.full_name,
        "issue": {"number": issue.number, "title": issue.title, "body": ""},
    }
    assert (await scene.millrace.ask("POST", "/container/process", body)).status_code == 202
    assert only(await scene.finished(issue), f.RunRequested).trigger.kind == "operator"
    assert ANSWER in scene.said(issue)[0].body


async def test_strangers_start_nothing(scene: Scene, acme: Project) -> None:
    stranger = scene.github.create_user("stranger")
    issue = await scene.github.open_issue(acme.repo, "Why minus?", by=stranger)
    opened = scene.github.deliveries[-1]
    await scene.github.comment(issue, "/millrace please", by=stranger)
    asked = scene.github.deliveries[-1]
    await scene.github.comment(issue, "I wonder too.", by=acme.maintainer)
    talked = scene.github.deliveries[-1]
    assert [delivery.status for delivery in (opened, asked, talked)] == [202, 202, 202]
    assert await _reason(scene, opened.guid) == "not_authorised"
    assert await _reason(scene, asked.guid) == "not_authorised"
    assert await _reason(scene, talked.guid) == "no_command"
    assert scene.said(issue) == []


async def test_one_delivery_sent_fifty_times_at_once_and_after_a_restart_is_one_run(
    scene: Scene, acme: Project
) -> None:
    github = scene.github
    issue = await github.open_issue(acme.repo, "Why minus?", by=acme.maintainer)
    delivery = github.deliveries[-1]
    again = await asyncio.gather(*(github.redeliver(delivery.id) for _ in range(50)))
    assert {one.status for one in again} == {202}
    await scene.finished(issue)

    await scene.millrace.stop()
    await scene.millrace.start()

    again = await asyncio.gather(*(github.redeliver(delivery.id) for _ in range(50)))
    assert {one.status for one in again} == {202}
    assert all('"duplicate"' in one.answer for one in again)
    # Whatever follows from a delivery is in the log before a later delivery's consequences are.
    await github.comment(issue, "/millrace", by=acme.maintainer)
    asked = github.deliveries[-1]
    facts = await scene.finished(issue, runs=2)
    triggers = [recorded.fact.trigger for recorded in facts if isinstance(recorded.fact, f.RunRequested)]
    assert [(trigger.kind, trigger.delivery) for trigger in triggers] == [
        ("opened", delivery.guid),
        ("comment", asked.guid),
    ]
    assert len(scene.said(issue)) == 2
