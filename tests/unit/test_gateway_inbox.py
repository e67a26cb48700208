"""GitHub's JSON into our words: its own 329 examples, and what no GitHub would send."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import facts as f
from contracts.codec import MAX_FACT_BYTES, encode_fact
from services.gateway.heard import AnyHeard, Commented, Ended, Ignored, Labelled, Opened, encode_heard
from services.gateway.inbox import (
    CUT,
    TEXT_BYTES,
    TITLE_BYTES,
    BadPayload,
    Delivery,
    ForeignApp,
    bounded,
    translate,
    unform,
)
from tests.doubles.github.examples import examples

WREN = {"id": 1, "login": "wren", "type": "User"}
BOT = {"id": 2, "login": "renovate[bot]", "type": "Bot"}
REPOSITORY = {"id": 7, "full_name": "acme/calc", "default_branch": "trunk", "private": True}
ISSUE = {
    "number": 42,
    "title": "It adds wrongly",
    "body": "1 + 1 gives 3",
    "user": WREN,
    "html_url": "https://github.example/acme/calc/issues/42",
    "created_at": "2026-11-01T10:00:00Z",
    "updated_at": "2026-11-01T10:00:05Z",
}
COMMENT = {"id": 5, "body": "/millrace", "user": WREN, "created_at": "2026-11-01T12:00:00+01:00"}
EVENT: dict[str, Any] = {
    "action": "opened",
    "issue": ISSUE,
    "repository": REPOSITORY,
    "sender": WREN,
    "installation": {"id": 90, "node_id": "x"},
}
REASONS = {"event_not_used", "ping", "bot", "pull_request", "unreadable"}


def delivery(event: str = "issues", app_id: int | None = 9) -> Delivery:
    return Delivery(id="d1", event=event, app_id=app_id)


def heard(event: dict[str, Any], name: str = "issues") -> AnyHeard | Ignored:
    return translate(delivery(name), json.dumps(event).encode())[1]


def with_issue(**changes: Any) -> dict[str, Any]:
    return EVENT | {"issue": ISSUE | changes}


# --- what GitHub sends --------------------------------------------------------------------------------


def test_every_one_of_githubs_own_examples_is_understood_or_ignored_for_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for event, payload in examples():
        action, told = translate(delivery(event), json.dumps(payload).encode())
        assert action == payload.get("action", "")
        if isinstance(told, Ignored):
            assert told.reason in REASONS
        outcomes[told.reason if isinstance(told, Ignored) else type(told).__name__] += 1
    assert sum(outcomes.values()) == 329
    # Each kind that Millrace reacts to is among them, and none of those is unreadable.
    assert {"Opened", "Labelled", "Commented", "Ended"} <= outcomes.keys()
    assert outcomes["unreadable"] == 0


def test_an_opened_issue_is_read_with_the_few_fields_that_are_needed() -> None:
    assert heard(EVENT) == Opened(
        delivery="d1",
        app_id=9,
        installation_id=90,
        repository=f.Repository(id=7, full_name="acme/calc", default_branch="trunk", private=True),
        issue=f.Issue(
            number=42,
            title="It adds wrongly",
            body="1 + 1 gives 3",
            author=f.Person(id=1, login="wren"),
            url="https://github.example/acme/calc/issues/42",
        ),
        actor=f.Person(id=1, login="wren"),
        at=datetime(2026, 11, 1, 10, tzinfo=UTC),
    )


def test_a_label_is_read_with_the_time_at_which_it_was_put_on() -> None:
    told = heard(EVENT | {"action": "labeled", "label": {"name": "millrace"}})
    assert isinstance(told, Labelled)
    assert (told.label, told.at.second, told.while_opening) == ("millrace", 5, False)


@pytest.mark.parametrize("updated_at", ["2026-11-01T10:00:00Z", None])
def test_a_label_as_old_as_its_issue_was_set_while_opening(updated_at: str | None) -> None:
    told = heard(with_issue(updated_at=updated_at) | {"action": "labeled", "label": {"name": "millrace"}})
    assert isinstance(told, Labelled)
    assert told.while_opening


def test_a_comment_is_read_with_its_own_time_in_utc() -> None:
    told = heard(EVENT | {"action": "created", "comment": COMMENT}, "issue_comment")
    assert isinstance(told, Commented)
    assert (told.comment_id, told.text, told.at.isoformat()) == (
        5, "/millrace", "2026-11-01T11:00:00+00:00",
    )  # fmt: skip


@pytest.mark.parametrize("who", [WREN, BOT])
@pytest.mark.parametrize("how", ["closed", "deleted", "transferred"])
def test_the_end_of_an_issue_is_heard_whoever_ends_it(how: str, who: dict[str, Any]) -> None:
    told = heard(EVENT | {"action": how, "sender": who})
    assert isinstance(told, Ended)
    assert told.how == how


@pytest.mark.parametrize("nothing", [None, "absent"])
def test_an_issue_without_a_text_and_an_author_who_is_gone_are_read(nothing: str | None) -> None:
    issue = {key: value for key, value in ISSUE.items() if key not in ("body", "user")}
    told = heard(EVENT | {"issue": issue if nothing else issue | {"body": None, "user": None}})
    assert isinstance(told, Opened)
    assert (told.issue.body, told.issue.author.login) == ("", "wren")


def test_a_repositorys_own_hook_names_no_installation() -> None:
    event = {key: value for key, value in EVENT.items() if key != "installation"}
    told = translate(delivery(app_id=None), json.dumps(event).encode())[1]
    assert isinstance(told, Opened)
    assert (told.app_id, told.installation_id) == (None, None)


@pytest.mark.parametrize(
    ("name", "event", "reason"),
    [
        pytest.param("ping", {"zen": "Keep it logically awesome."}, "ping", id="a ping"),
        pytest.param("push", {"ref": "refs/heads/main"}, "event_not_used", id="another event"),
        pytest.param("issues", EVENT | {"action": "edited"}, "event_not_used", id="another action"),
        pytest.param("issues", EVENT | {"action": "Opened"}, "event_not_used", id="an action in other case"),
        pytest.param("issues", EVENT | {"action": "open\0ed"}, "event_not_used", id="an action with NUL"),
        pytest.param("issues", EVENT | {"action": 7}, "event_not_used", id="an action that is no text"),
        pytest.param("issue_comment", EVENT | {"action": "deleted"}, "event_not_used", id="a comment's end"),
        pytest.param("issues", EVENT | {"sender": BOT}, "bot", id="a bot opens"),
        pytest.param("issues", EVENT | {"sender": WREN | {"type": "Bot"}}, "bot", id="a bot by its type"),
        pytest.param(
            "issues", EVENT | {"sender": WREN | {"login": "x[bot]"}}, "bot", id="a bot by its login"
        ),
        pytest.param("issues", with_issue(performed_via_github_app={"id": 3}), "bot", id="an App opens"),
        pytest.param(
            "issue_comment", EVENT | {"action": "created", "comment": COMMENT | {"user": BOT}}, "bot",
            id="a bot's comment in a person's name",
        ),
        pytest.param(
            "issue_comment",
            EVENT | {"action": "created", "comment": COMMENT | {"performed_via_github_app": {"id": 9}}},
            "bot",
            id="an App's comment in a person's name",
        ),
        pytest.param(
            "issue_comment",
            with_issue(pull_request={"url": "u"}) | {"action": "created", "comment": COMMENT},
            "pull_request",
            id="a comment on a pull request",
        ),
        pytest.param("issue_comment", EVENT | {"action": "created"}, "unreadable", id="no comment"),
        pytest.param("issues", EVENT | {"action": "labeled"}, "unreadable", id="no label"),
        pytest.param("issues", {"action": "opened"}, "unreadable", id="nothing but an action"),
    ],
)  # fmt: skip
def test_all_else_is_ignored_for_a_reason(name: str, event: dict[str, Any], reason: str) -> None:
    assert heard(event, name) == Ignored(reason=reason)


def test_a_body_about_another_apps_installation_is_nobodys() -> None:
    with pytest.raises(ForeignApp):
        heard(EVENT | {"installation": {"id": 90, "app_id": 10}})
    assert isinstance(heard(EVENT | {"installation": {"id": 90, "app_id": 9}}), Opened)


# --- what it would never send -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        with_issue(number="42"),
        with_issue(number=-1),
        with_issue(number=4.5),
        with_issue(number=True),
        with_issue(number=2**63),
        with_issue(number=10**300),
        with_issue(title=None),
        with_issue(title=["x"]),
        with_issue(body=7),
        with_issue(created_at="yesterday"),
        with_issue(created_at=1793527200),
        with_issue(created_at="2026-02-30T10:00:00Z"),
        with_issue(created_at="2026-11-01T10:00:60Z"),
        with_issue(created_at="9999-12-31T23:59:59-12:00"),
        with_issue(created_at="0001-01-01T00:00:00+12:00"),
        with_issue(html_url=None),
        with_issue(user="wren"),
        EVENT | {"issue": None},
        EVENT | {"issue": []},
        EVENT | {"repository": REPOSITORY | {"id": "7"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "calc"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "acme/calc/issues"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "acme/calc\n"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "../.."}},
        EVENT | {"repository": REPOSITORY | {"full_name": "acme/.."}},
        EVENT | {"repository": REPOSITORY | {"full_name": "./calc"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "acme/calc?x=1"}},
        EVENT | {"repository": REPOSITORY | {"full_name": "acme/" + "x" * 101}},
        EVENT | {"sender": None},
        EVENT | {"sender": WREN | {"login": ".."}},
        EVENT | {"sender": WREN | {"login": "a/b"}},
        EVENT | {"sender": WREN | {"login": "wren\n"}},
        EVENT | {"sender": WREN | {"login": ""}},
        EVENT | {"sender": WREN | {"id": None}},
        EVENT | {"installation": 90},
        EVENT | {"installation": {"id": -90}},
    ],
)
def test_fields_of_a_wrong_kind_make_it_unreadable(event: dict[str, Any]) -> None:
    assert heard(event) == Ignored(reason="unreadable")


@pytest.mark.parametrize(
    "name", ["a.b/c", "A-1/_", "acme/.github", "acme/...", "..a/b..", "acme_corp/calc-2.0"]
)
def test_unusual_names_of_repositories_are_read(name: str) -> None:
    assert isinstance(heard(EVENT | {"repository": REPOSITORY | {"full_name": name}}), Opened)


@pytest.mark.parametrize("login", ["wren_acme", "a.b", "x" * 39, "octo-cat"])
def test_unusual_logins_are_read(login: str) -> None:
    assert isinstance(heard(EVENT | {"sender": WREN | {"login": login}}), Opened)


WHOLE = json.dumps(EVENT)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (WHOLE[:-1].encode(), "not JSON"),
        (WHOLE.encode() + b"x", "not JSON"),
        (b"\xef\xbb\xbf" + WHOLE.encode(), "not JSON"),
        (WHOLE.replace("wrongly", "\\ud800").encode(), "not JSON"),
        (WHOLE.replace("wrongly", "\\udc00\\ud800").encode(), "not JSON"),
        (WHOLE.replace("wrongly", "a\nb").encode(), "not JSON"),
        (WHOLE.replace("42", "NaN").encode(), "not JSON"),
        (WHOLE.replace("42", "042").encode(), "not JSON"),
        (b"1", "a JSON object"),
        (b"null", "a JSON object"),
        (b"[" + WHOLE.encode() + b"]", "a JSON object"),
        (WHOLE.encode("utf-16"), "not UTF-8"),
        (WHOLE.replace("wrongly", "wröngly").encode("latin-1"), "not UTF-8"),
        (WHOLE.replace("1 + 1", "@").encode().replace(b"@", b"\xed\xa0\x80"), "not UTF-8"),
        (WHOLE[:-1].encode() + b', "unread": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "a JSON object"),
        (b'{"unread":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_object_is_bad(body: bytes, why: str) -> None:
    with pytest.raises(BadPayload, match=why) as bad:
        translate(delivery(), body)
    assert "adds" not in str(bad.value)  # nothing of it is quoted


@pytest.mark.parametrize("field", ["unread", "pull_request", "performed_via_github_app", "title", "user"])
def test_depth_is_refused_or_read_but_never_fails(field: str) -> None:
    for depth in (*range(900, 1010), 5000):
        deep = json.dumps(with_issue(**{field: "@@"})).replace('"@@"', "[" * depth + "]" * depth)
        try:
            translate(delivery(), deep.encode())
        except BadPayload as bad:
            assert "nested too deeply" in str(bad)  # noqa: PT017  both outcomes are right, a third is not


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.sampled_from(["issues", "issue_comment"]),
    st.sampled_from(["opened", "labeled", "created", "closed"]),
    st.dictionaries(st.sampled_from(sorted({*EVENT, "comment", "label"} - {"action"})), JSON),
    st.dictionaries(st.sampled_from(sorted({*ISSUE, "pull_request"})), JSON),
    st.dictionaries(st.sampled_from(sorted(COMMENT)), JSON),
)
def test_any_json_in_any_field_is_understood_or_ignored(
    name: str, action: str, event: Any, issue: Any, comment: Any
) -> None:
    whole = EVENT | {"action": action, "issue": ISSUE | issue, "comment": COMMENT | comment} | event
    try:
        told = translate(delivery(name), json.dumps(whole, allow_nan=False).encode())[1]
    except (BadPayload, ForeignApp):
        return
    assert isinstance(told, Ignored) or encode_heard(told)


# --- the form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [WHOLE, '{"a":"b c+d&e=f%"}', '{"a":"ä 日本 😀"}', "", "no json"])
def test_the_json_in_a_form_comes_out_as_it_went_in(text: str) -> None:
    assert unform(urlencode({"payload": text}).encode()) == text.encode()
    assert unform(b"payload=" + quote(text, safe="").encode()) == text.encode()


def test_other_fields_of_a_form_are_passed_over() -> None:
    assert unform(b"a=1&payload=%7B%7D&b=") == b"{}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"payload=1&payload=2", "2 times"),
        (b"payload=1&PAYLOAD=2&payload=3", "2 times"),
        (b"a=1", "0 times"),
        (b"", "0 times|cannot be read"),
        (b"payload", "cannot be read"),
        (b"payload=%FF", "cannot be read"),
        (b"payload=%ED%A0%80", "cannot be read"),
        (b"payload=\xff", "cannot be read"),
        ("payload=ä".encode(), "cannot be read"),
        (WHOLE.encode(), "cannot be read|0 times"),
    ],
)
def test_a_form_with_anything_but_one_payload_is_bad(body: bytes, why: str) -> None:
    with pytest.raises(BadPayload, match=why):
        unform(body)


# --- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", ["a", '"', "\\", "\x01", "ä", "日", "😀", "\u2028", "\x7f"])
@pytest.mark.parametrize("limit", [TITLE_BYTES, TEXT_BYTES])
def test_text_is_cut_to_its_bytes_as_json(char: str, limit: int) -> None:
    cut = bounded(char * 100_000, limit)
    assert cut.endswith(CUT)
    size = len(msgspec.json.encode(cut.removesuffix(CUT)))
    assert limit - 6 <= size <= limit
    assert bounded(char * 10, limit) == char * 10


def test_text_at_the_limit_is_whole() -> None:
    assert bounded("a" * (TITLE_BYTES - 2), TITLE_BYTES) == "a" * (TITLE_BYTES - 2)
    assert bounded("a" * (TITLE_BYTES - 1), TITLE_BYTES).endswith(CUT)


@given(st.text(), st.integers(64, 400))
def test_bounded_text_is_what_was_given_or_its_beginning(text: str, limit: int) -> None:
    got = bounded(text, limit)
    clean = text.replace("\0", "\ufffd")
    assert got == clean or (got.endswith(CUT) and clean.startswith(got.removesuffix(CUT)))
    assert len(msgspec.json.encode(got.removesuffix(CUT))) <= limit


def test_nul_never_reaches_a_database() -> None:
    told = heard(with_issue(title="a\0b", body="\0"))
    assert isinstance(told, Opened)
    assert (told.issue.title, told.issue.body) == ("a\ufffdb", "\ufffd")


@pytest.mark.parametrize("char", ["a", '"', "\x01", "日", "😀"])
def test_the_largest_request_fits_into_a_fact(char: str) -> None:
    long = char * 200_000
    event = with_issue(title=long, body=long, html_url="https://" + long)
    event |= {"action": "created", "comment": COMMENT | {"body": long}}
    event["repository"] = REPOSITORY | {"default_branch": long, "full_name": "a" * 100 + "/" + "b" * 100}
    told = heard(event, "issue_comment")
    assert isinstance(told, Commented)
    trigger = f.Trigger(
        kind="comment", actor=told.actor, permission="maintain", text=told.text, comment_id=told.comment_id,
        delivery="d" * 64,
    )  # fmt: skip
    requested = f.RunRequested(
        app_id=2**63 - 1, installation_id=2**63 - 1, repository=told.repository, issue=told.issue,
        trigger=trigger,
    )  # fmt: skip
    assert len(encode_fact(requested)) < MAX_FACT_BYTES
