"""What people do at GitHub, and what the log then holds: with its answers right, late, wrong and absent."""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from contracts import facts as f
from contracts.envelope import derive_run_id
from contracts.subjects import STREAM
from tests.doubles.github.auth import new_private_key
from tests.doubles.github.state import Issue, User
from tests.integration.gateway_kit import SOON, Place, place

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERMISSION = "GET /repos/{owner}/{repo}/collaborators/{username}/permission"
ISSUE = "GET /repos/{owner}/{repo}/issues/{issue_number}"
TOKEN = "POST /app/installations/{installation_id}/access_tokens"
DEAD_SOON = SOON._replace(again_in=lambda _tries: 0.01, tries=3)
ASKED = f.QuestionAsked(turn=1, tool_use_id="t1", question="Which of the two?")
FINISHED = f.RunFinished(outcome="answer")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def one_place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with place(tmp_path_factory.mktemp("gateway"), SOON) as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def shared(one_place: Place) -> AsyncIterator[Place]:
    """A gateway where each test has issues of its own."""
    yield one_place
    one_place.github.faults.clear()
    assert one_place.github.violations == []


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[Place]:
    """A gateway of this test's own, that gives up soon."""
    async with place(tmp_path, DEAD_SOON) as it:
        yield it
        assert it.github.violations == []


async def opens(it: Place, *, by: User | None = None, labels: tuple[str, ...] = ()) -> Issue:
    return await it.github.open_issue(
        it.repository, "It adds wrongly", "1 + 1 gives 3", by=by or it.writer, labels=labels
    )


async def begins(it: Place) -> Issue:
    """An issue with a run going on."""
    issue = await opens(it)
    assert (await it.row())["state"] == "relayed"
    return issue


async def kinds(it: Place, number: int) -> list[str]:
    return [str(each.fact.__struct_config__.tag) for each in await it.facts(number)]


def person(user: User) -> f.Person:
    return f.Person(id=user.id, login=user.login)


async def sends(it: Place, event: dict[str, Any], name: str = "issues", **options: Any) -> str:
    """A delivery that no double would send; returns its id."""
    delivery = str(uuid.uuid4())
    assert (await it.post(event, event=name, delivery=delivery, **options)).status_code == 202
    return delivery


# --- opened -------------------------------------------------------------------------------------------


async def test_an_issue_opened_by_a_writer_becomes_a_run(shared: Place) -> None:
    issue = await opens(shared)
    row = await shared.row()
    (recorded,) = await shared.facts(issue.number)
    assert (row["state"], row["run"]) == ("relayed", recorded.key.run)
    guid = shared.github.deliveries[-1].guid
    assert recorded.envelope.cause == guid
    assert recorded.envelope.source == "/millrace/gateway"
    assert recorded.fact == f.RunRequested(
        app_id=shared.app.id,
        installation_id=shared.installation.id,
        repository=f.Repository(id=shared.repository.id, full_name="acme/calc", default_branch="main"),
        issue=f.Issue(
            number=issue.number,
            title="It adds wrongly",
            body="1 + 1 gives 3",
            author=person(shared.writer),
            url=f"{shared.github.url}/acme/calc/issues/{issue.number}",
        ),
        trigger=f.Trigger(kind="opened", actor=person(shared.writer), permission="write", delivery=guid),
    )


@pytest.mark.parametrize(
    ("role", "state"),
    [
        ("admin", "relayed"), ("maintain", "relayed"), ("triage", "ignored"), ("read", "ignored"),
        ("none", "ignored"),
    ],
)  # fmt: skip
async def test_who_may_start_work_is_asked_of_github(shared: Place, role: str, state: str) -> None:
    somebody = shared.github.create_user(f"somebody-{role}")
    shared.github.grant(shared.repository, somebody, role)
    issue = await opens(shared, by=somebody)
    row = await shared.row()
    assert (row["state"], row["reason"]) == (state, "" if state == "relayed" else "not_authorised")
    assert len(await shared.runs(issue.number)) == (state == "relayed")


async def test_bots_and_the_app_itself_start_nothing(shared: Place) -> None:
    bot = shared.github.create_user("renovate[bot]", "Bot")
    shared.github.grant(shared.repository, bot, "admin")
    issue = await begins(shared)
    await shared.happens(FINISHED, issue.number)
    asked = len(shared.github.exchanges)
    for by in (bot, shared.app.bot):
        await opens(shared, by=by)
        assert (await shared.row())["reason"] == "bot"
        await shared.github.comment(issue, "/millrace", by=by)
        assert (await shared.row())["reason"] == "bot"
    assert len(shared.github.exchanges) == asked  # nobody needed to ask GitHub about them
    assert len(await shared.runs(issue.number)) == 1


async def test_a_login_that_has_passed_to_somebody_else_may_do_nothing(shared: Place) -> None:
    impostor = {"id": shared.writer.id + 1, "login": shared.writer.login, "type": "User"}
    row = await shared.settled(await sends(shared, shared.issue_event(number=9001, sender=impostor)))
    assert (row["state"], row["reason"]) == ("ignored", "not_authorised")


async def test_a_login_that_is_no_more_may_do_nothing(shared: Place) -> None:
    gone = {"id": shared.writer.id, "login": "nobody-of-this-name", "type": "User"}
    row = await shared.settled(await sends(shared, shared.issue_event(number=9002, sender=gone)))
    assert (row["state"], row["reason"]) == ("ignored", "not_authorised")


async def test_a_repository_that_was_renamed_meanwhile_is_found(own: Place) -> None:
    event = own.issue_event()
    own.github.rename(own.repository, "abacus")
    assert (await own.settled(await sends(own, event)))["state"] == "relayed"


async def test_a_repositorys_own_hook_finds_its_installation(shared: Place) -> None:
    event = shared.issue_event(number=9004)
    del event["installation"]
    headers = {"x-github-hook-installation-target-type": "repository"}
    row = await shared.settled(await sends(shared, event, headers=headers))
    (recorded,) = await shared.facts(9004)
    assert row["state"] == "relayed"
    assert isinstance(recorded.fact, f.RunRequested)
    assert (recorded.fact.app_id, recorded.fact.installation_id) == (shared.app.id, shared.installation.id)


async def test_a_repositorys_own_hook_without_an_installation_is_ignored(shared: Place) -> None:
    stray = shared.github.create_repository("acme/stray")
    event = shared.issue_event(number=1, repository={"id": stray.id, "full_name": stray.full_name})
    del event["installation"]
    headers = {"x-github-hook-installation-target-type": "repository"}
    row = await shared.settled(await sends(shared, event, headers=headers))
    assert (row["state"], row["reason"]) == ("ignored", "repository_not_installed")


# --- labelled -----------------------------------------------------------------------------------------


async def test_the_label_starts_a_run_for_a_writer_only(shared: Place) -> None:
    issue = await opens(shared, by=shared.stranger)
    await shared.github.label(issue, "bug", by=shared.writer)
    assert (await shared.row())["reason"] == "other_label"
    await shared.github.label(issue, "Millrace", by=shared.stranger)
    assert (await shared.row())["reason"] == "not_authorised"
    await shared.github.unlabel(issue, "millrace", by=shared.writer)
    assert (await shared.row())["reason"] == "event_not_used"
    await shared.github.label(issue, "millrace", by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    (recorded,) = await shared.facts(issue.number)
    assert isinstance(recorded.fact, f.RunRequested)
    assert recorded.fact.trigger.kind == "label"


async def test_a_label_set_while_opening_makes_one_run(shared: Place) -> None:
    issue = await opens(shared, labels=("millrace", "bug"))
    of_labels = {each.payload["label"]["name"].lower(): each for each in shared.github.deliveries[-2:]}
    assert (await shared.settled(of_labels["millrace"].guid))["reason"] == "already_requested"
    assert len(await shared.runs(issue.number)) == 1
    await shared.happens(FINISHED, issue.number)
    again = await shared.github.redeliver(of_labels["millrace"].id)
    assert "duplicate" in again.answer
    assert len(await shared.runs(issue.number)) == 1


async def test_even_when_the_label_is_heard_first_and_the_opening_after_the_end(shared: Place) -> None:
    born = {"created_at": "2026-11-01T10:00:00Z", "updated_at": "2026-11-01T10:00:00Z"}
    labelled = shared.issue_event("labeled", 9005, issue=born, label={"name": "millrace"})
    assert (await shared.settled(await sends(shared, labelled)))["state"] == "relayed"
    await shared.happens(FINISHED, 9005)
    row = await shared.settled(await sends(shared, shared.issue_event("opened", 9005, issue=born)))
    assert row["reason"] == "already_requested"
    assert len(await shared.runs(9005)) == 1


async def test_a_label_taken_off_and_put_on_again_within_a_second_makes_one_run(shared: Place) -> None:
    labelled = shared.issue_event("labeled", 9006, label={"name": "millrace"})
    assert (await shared.settled(await sends(shared, labelled)))["state"] == "relayed"
    await shared.happens(FINISHED, 9006)
    assert (await shared.settled(await sends(shared, labelled)))["reason"] == "already_requested"
    later = shared.issue_event(
        "labeled", 9006, label={"name": "millrace"}, issue={"updated_at": "2026-11-01T10:00:07Z"}
    )
    assert (await shared.settled(await sends(shared, later)))["state"] == "relayed"
    assert len(await shared.runs(9006)) == 2


# --- commented ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["/millrace", "Could you have a look, @millrace?"])
async def test_a_command_starts_a_run_for_a_writer_only(shared: Place, words: str) -> None:
    issue = await opens(shared, by=shared.stranger)
    await shared.github.comment(issue, words, by=shared.stranger)
    assert (await shared.row())["reason"] == "not_authorised"
    comment = await shared.github.comment(issue, words, by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    (recorded,) = await shared.facts(issue.number)
    assert isinstance(recorded.fact, f.RunRequested)
    trigger = recorded.fact.trigger
    assert (trigger.kind, trigger.text, trigger.comment_id) == ("comment", words, comment.id)


async def test_talk_starts_nothing_and_costs_github_no_question(shared: Place) -> None:
    issue = await opens(shared, by=shared.stranger)
    assert (await shared.row())["reason"] == "not_authorised"
    asked = len(shared.github.exchanges)
    for words in ("It also happens on Tuesdays.", "> /millrace\n\nWhat is that?", "`@millrace`"):
        comment = await shared.github.comment(issue, words, by=shared.writer)
        assert (await shared.row())["reason"] == "no_command"
    await shared.github.edit_comment(comment, "/millrace", by=shared.writer)
    assert (await shared.row())["reason"] == "event_not_used"
    assert len(shared.github.exchanges) == asked


async def test_a_command_on_a_pull_request_starts_nothing(shared: Place) -> None:
    shared.github.commit_files(shared.repository, {"b.py": b"y = 2\n"}, branch="topic")
    pull = await shared.github.open_pull_request(
        shared.repository, "topic", "main", "Add b", by=shared.writer
    )
    await shared.github.comment(pull, "/millrace", by=shared.writer)
    assert (await shared.row())["reason"] == "pull_request"


async def test_during_a_run_a_second_trigger_starts_nothing_and_afterwards_it_does(shared: Place) -> None:
    issue = await begins(shared)
    await shared.github.comment(issue, "/millrace", by=shared.writer)
    assert (await shared.row())["reason"] == "run_active"
    await shared.github.label(issue, "millrace", by=shared.writer)
    assert (await shared.row())["reason"] in {"run_active", "already_requested"}
    await shared.happens(FINISHED, issue.number)
    await shared.github.comment(issue, "/millrace", by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    assert len(await shared.runs(issue.number)) == 2


async def test_a_parked_run_hears_an_answer_of_a_writer_only(shared: Place) -> None:
    issue = await begins(shared)
    await shared.happens(ASKED, issue.number)
    await shared.github.comment(issue, "The first!", by=shared.stranger)
    assert (await shared.row())["reason"] == "not_authorised"
    bot = shared.github.create_user("stale[bot]", "Bot")
    await shared.github.comment(issue, "Still waiting?", by=bot)
    assert (await shared.row())["reason"] == "bot"
    comment = await shared.github.comment(issue, "The second.", by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    history = await shared.facts(issue.number)
    assert history[-1].fact == f.QuestionAnswered(
        answer="The second.", by=person(shared.writer), comment_id=comment.id
    )
    await shared.github.comment(issue, "And one more thing.", by=shared.writer)
    assert (await shared.row())["reason"] == "no_command"
    assert len(await shared.facts(issue.number)) == len(history)


async def test_an_answer_delivered_twice_is_one_answer(shared: Place) -> None:
    issue = await begins(shared)
    await shared.happens(ASKED, issue.number)
    answer = shared.comment_event("The first.", issue.number, comment_id=77)
    first, second = await sends(shared, answer, "issue_comment"), await sends(shared, answer, "issue_comment")
    await shared.settled(first, second)
    assert (await kinds(shared, issue.number)).count("question.answered.v1") == 1


# --- the end ------------------------------------------------------------------------------------------


async def test_stop_cancels_for_a_writer_only(shared: Place) -> None:
    issue = await begins(shared)
    await shared.github.comment(issue, "/millrace stop", by=shared.stranger)
    assert (await shared.row())["reason"] == "not_authorised"
    await shared.github.comment(issue, "@millrace stop", by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    assert (await shared.facts(issue.number))[-1].fact == f.RunCancelled(
        by=person(shared.writer), why="asked to stop"
    )
    await shared.github.comment(issue, "/millrace stop", by=shared.writer)
    assert (await shared.row())["reason"] == "no_run_active"


@pytest.mark.parametrize("who", ["writer", "stranger", "bot"])
async def test_closing_its_issue_cancels_a_run_whoever_does_it(shared: Place, who: str) -> None:
    by = shared.github.create_user("closer[bot]", "Bot") if who == "bot" else getattr(shared, who)
    issue = await begins(shared)
    await shared.github.close(issue, by=by)
    assert (await shared.row())["state"] == "relayed"
    assert (await shared.facts(issue.number))[-1].fact == f.RunCancelled(
        by=person(by), why="the issue was closed"
    )
    await shared.github.reopen(issue, by=shared.writer)
    assert (await shared.row())["reason"] == "event_not_used"


async def test_deleting_its_issue_cancels_a_parked_run(shared: Place) -> None:
    issue = await begins(shared)
    await shared.happens(ASKED, issue.number)
    await shared.github.delete(issue, by=shared.writer)
    assert (await shared.row())["state"] == "relayed"
    assert (await kinds(shared, issue.number))[-1] == "run.cancelled.v1"


async def test_an_issue_that_was_closed_before_its_opening_is_heard_is_left_alone(shared: Place) -> None:
    url, shared.app.webhook_url = shared.app.webhook_url, "http://127.0.0.1:9/nobody"
    issue = await opens(shared)
    lost = shared.github.deliveries[-1]
    shared.app.webhook_url = url
    assert lost.status == 0
    await shared.github.close(issue, by=shared.writer)
    assert (await shared.row())["reason"] == "no_run_active"
    assert (await shared.github.redeliver(lost.id)).status == 202
    assert (await shared.row())["reason"] == "issue_closed"
    assert await shared.facts(issue.number) == []


async def test_a_closed_and_a_deleted_issue_start_nothing_on_command(shared: Place) -> None:
    issue = await opens(shared, by=shared.stranger)
    await shared.github.close(issue, by=shared.writer)
    await shared.github.comment(issue, "/millrace", by=shared.writer)
    assert (await shared.row())["reason"] == "issue_closed"
    await shared.github.delete(issue, by=shared.writer)
    row = await shared.settled(
        await sends(shared, shared.comment_event("/millrace", issue.number, 5), "issue_comment")
    )
    assert row["reason"] == "issue_gone"


# --- when the permission cannot be asked for ----------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "status", "times"),
    [(PERMISSION, 500, 2), (PERMISSION, None, 2), (ISSUE, 502, 2), (ISSUE, None, 1), (TOKEN, 503, 1)],
)
async def test_a_github_that_fails_is_asked_again(
    shared: Place, endpoint: str, status: int | None, times: int
) -> None:
    # Another repository each time, so that no token from before is at hand.
    repository = shared.github.create_repository(f"acme/r{len(shared.github.world.repositories)}")
    shared.installation.repositories.append(repository)
    shared.github.grant(repository, shared.writer, "write")
    shared.github.faults.add(endpoint, status=status, times=times)
    issue = await shared.github.open_issue(repository, "t", by=shared.writer)
    row = await shared.row()
    assert (row["state"], row["tries"]) == ("relayed", times)
    assert row["reason"] == ""
    log = await shared.bus.log("test").read_issue(repository.id, issue.number)
    assert len(log) == 1


@pytest.mark.parametrize("status", [403, 429])
async def test_a_rate_limit_is_waited_out_as_long_as_github_says(shared: Place, status: int) -> None:
    body = b'{"message":"You have exceeded a secondary rate limit"}'
    shared.github.faults.add(PERMISSION, status=status, headers={"retry-after": "1"}, body=body)
    started = time.monotonic()
    await opens(shared)
    waiting = await shared.tried(shared.github.deliveries[-1].guid)
    assert "github_rate_limited" in waiting["reason"]
    assert (await shared.row())["state"] == "relayed"
    assert time.monotonic() - started >= 1


async def test_a_token_that_was_revoked_meanwhile_is_asked_for_again_at_once(shared: Place) -> None:
    await begins(shared)
    shared.github.faults.add(PERMISSION, status=401, body=b'{"message":"Bad credentials"}')
    await opens(shared)
    row = await shared.row()
    assert (row["state"], row["tries"]) == ("relayed", 0)


async def test_a_person_whom_github_does_not_know_in_this_repository_may_do_nothing(shared: Place) -> None:
    shared.github.faults.add(PERMISSION, status=404, body=b'{"message":"Not Found"}')
    await opens(shared)
    assert (await shared.row())["reason"] == "not_authorised"


async def test_without_the_right_to_ask_the_delivery_is_ignored_with_that_reason(shared: Place) -> None:
    body = b'{"message":"Resource not accessible by integration"}'
    shared.github.faults.add(PERMISSION, status=403, body=body)
    await opens(shared)
    row = await shared.row()
    assert (row["state"], row["reason"]) == ("ignored", "needs_permission")


async def test_while_the_vault_is_away_deliveries_wait(own: Place) -> None:
    await own.stop_vault()
    await opens(own)
    guid = own.github.deliveries[-1].guid
    # More often than a failure would be tried: an outage is waited out.
    waiting = await own.tried(guid, DEAD_SOON.tries + 3)
    assert "vault_unavailable" in waiting["reason"]
    await own.start_vault()
    assert (await own.settled(guid))["state"] == "relayed"


@pytest.mark.parametrize(
    ("action", "reason"), [("deleted", "installation_gone"), ("suspend", "installation_suspended")]
)
async def test_an_installation_that_is_gone_is_the_reason(own: Place, action: str, reason: str) -> None:
    await own.github.announce_installation(own.installation, action)
    assert (await own.row())["reason"] == "event_not_used"
    row = await own.settled(await sends(own, own.issue_event()))
    assert (row["state"], row["reason"]) == ("ignored", reason)
    assert await own.facts() == []


async def test_a_repository_that_the_installation_no_longer_has_is_the_reason(own: Place) -> None:
    own.installation.repositories.clear()
    row = await own.settled(await sends(own, own.issue_event()))
    assert (row["state"], row["reason"]) == ("ignored", "repository_not_installed")


# --- order, poison, dead deliveries -------------------------------------------------------------------


async def test_an_issues_deliveries_keep_their_order_and_others_do_not_wait_for_them(shared: Place) -> None:
    shared.github.faults.add(PERMISSION, status=502, times=3)
    opened = await sends(shared, shared.issue_event("opened", 9010))
    closed = await sends(shared, shared.issue_event("closed", 9010))
    assert (await shared.tried(opened))["state"] == "pending"
    assert (await shared.rows())[closed]["tries"] == 0
    other = await sends(shared, shared.issue_event("closed", 9011))
    assert (await shared.settled(other))["reason"] == "no_run_active"
    rows = [await shared.settled(each) for each in (opened, closed)]
    assert [row["state"] for row in rows] == ["relayed", "relayed"]
    assert await kinds(shared, 9010) == ["run.requested.v1", "run.cancelled.v1"]


async def test_a_delivery_that_fails_every_time_is_dead_after_a_few_tries_and_can_be_tried_anew(
    own: Place,
) -> None:
    own.github.faults.add(PERMISSION, status=200, body=b"{", times=100)
    await opens(own)
    guid = own.github.deliveries[-1].guid
    row = await own.settled(guid)
    assert (row["state"], row["tries"]) == ("dead", DEAD_SOON.tries - 1)
    assert row["reason"].startswith("github_malformed: ")
    assert 'millrace_relayed_total{outcome="dead"} 1.0' in (await own.get("/metrics")).text
    assert (await own.post({}, delivery=guid)).json()["status"] == "duplicate"

    own.github.faults.clear()
    retry = await own.client.post(f"/api/deliveries/{guid}/retry", headers=own.operator())
    assert (retry.status_code, retry.json()) == (202, {"delivery": guid, "status": "accepted"})
    row = await own.settled(guid)
    assert (row["state"], row["reason"]) == ("relayed", "")
    for nothing in (guid, "unknown"):
        again = await own.client.post(f"/api/deliveries/{nothing}/retry", headers=own.operator())
        assert again.status_code == 404
    assert len(await own.runs(1)) == 1


async def test_what_an_operator_can_mend_is_kept_to_be_tried_anew(own: Place) -> None:
    key, own.app.private_key_pem = own.app.private_key_pem, new_private_key()  # revoked at GitHub
    await opens(own)
    guid = own.github.deliveries[-1].guid
    row = await own.settled(guid)
    assert row["state"] == "dead"
    assert row["reason"].startswith("app_key_rejected: ")

    own.app.private_key_pem = key
    await own.client.post(f"/api/deliveries/{guid}/retry", headers=own.operator())
    assert (await own.settled(guid))["state"] == "relayed"
    assert len(await own.runs(1)) == 1


async def test_a_poisoned_issue_stops_no_other(own: Place) -> None:
    js = own.bus.client.jetstream()
    run = derive_run_id(own.repository.created_at, "poison")
    await js.publish(f"issues.{own.repository.id}.7.{run}.run.requested", b"no fact", stream=STREAM)
    poisoned = [await sends(own, own.issue_event(number=7)) for _ in range(2)]
    others = [await sends(own, own.issue_event(number=number)) for number in (8, 9)]
    assert (await own.settled(*others))["state"] == "relayed"
    assert (await own.settled(*poisoned))["state"] == "dead"
    rows = await own.rows()
    assert {rows[each]["reason"] for each in poisoned} == {"failed: Unreadable"}
    assert [rows[each]["state"] for each in others] == ["relayed", "relayed"]


async def test_a_row_that_no_release_understands_is_dead_at_once_and_stops_no_other(own: Place) -> None:
    await own.stop_nats()  # so that it waits
    strange, other = await sends(own, own.issue_event(number=7)), await sends(own, own.issue_event(number=7))
    await own.tried(strange)
    with contextlib.closing(sqlite3.connect(own.settings.home / "gateway.sqlite3")) as inbox, inbox:
        inbox.execute("UPDATE deliveries SET message = ? WHERE delivery = ?", (b'{"kind":"dreamt"}', strange))
    await own.start_nats()
    assert (await own.settled(strange, other))["state"] == "relayed"
    row = (await own.rows())[strange]
    assert row["state"] == "dead"
    assert row["reason"].startswith("unreadable: ")
