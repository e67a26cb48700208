"""Subjects, ids and attributes: what is written is read back, and the same cause has the same name."""

import string
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import MAX_FACT_BYTES, decode_recorded, encode_fact, headers_of
from contracts.envelope import Envelope, Recorded, RunKey, derive_id, derive_run_id, identity_of
from contracts.facts import Fact, QuestionAsked, RunFailed
from contracts.registry import current_facts
from contracts.schema import every_fact
from contracts.story import ASKED, FINISHED, KEY, OPENED, READS, STORY, Said, envelope_of
from contracts.subjects import (
    dead_letter_subject,
    every_run,
    issue_subjects,
    kind_of,
    parse_subject,
    run_subjects,
    subject_of,
)
from contracts.upcast import upcast

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
numbers = st.integers(min_value=0, max_value=2**63 - 1)
ulids = st.text(CROCKFORD, min_size=26, max_size=26)
keys = st.builds(RunKey, numbers, numbers, ulids)
kinds = st.sampled_from(every_fact())
times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
visible = st.text(string.ascii_letters + string.digits + "-/.:", min_size=1, max_size=60)


def matches(pattern: str, subject: str) -> bool:
    """NATS's rules: ``*`` is one token, ``>`` the rest."""
    wanted, given_ = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given_) >= len(wanted) and all(
            w in ("*", g) for w, g in zip(wanted[:-1], given_, strict=False)
        )
    return len(wanted) == len(given_) and all(w in ("*", g) for w, g in zip(wanted, given_, strict=True))


@given(keys, kinds)
def test_a_subject_leads_back_to_its_run_and_kind(key: RunKey, fact: type[Fact]) -> None:
    subject = subject_of(key, fact)
    assert parse_subject(subject) == (key, kind_of(fact))
    assert matches(run_subjects(key), subject)
    assert matches(issue_subjects(key.repository_id, key.issue), subject)
    assert [each for each in current_facts() if matches(every_run(each), subject)] == [
        each for each in current_facts() if kind_of(each) == kind_of(fact)
    ]


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "issues.1.2.run.requested",
        f"issues.1.2.{KEY.run}",
        f"issues.1.2.{KEY.run}.>",
        f"issues.1.2.{KEY.run}.run.requested.v1",
        f"issues.1.2.{KEY.run.lower()}.run.requested",
        f"issues.1.2.{KEY.run[:-1]}I.run.requested",
        f"issues.-1.2.{KEY.run}.run.requested",
        f"issues.*.2.{KEY.run}.run.requested",
        f"issues.\u0661.2.{KEY.run}.run.requested",
        f"issues.1.2.{KEY.run}.run.requested\n",
        dead_letter_subject("agent", subject_of(KEY, FINISHED)),
    ],
)
def test_other_subjects_are_no_subjects_of_the_log(subject: str) -> None:
    with pytest.raises(ValueError, match="not a subject of the log"):
        parse_subject(subject)


@given(times, st.lists(visible, min_size=1, max_size=4))
def test_a_run_id_is_a_ulid_that_carries_the_time(at: datetime, cause: list[str]) -> None:
    run = derive_run_id(at, *cause)
    assert len(run) == 26
    assert set(run) <= set(CROCKFORD)
    assert run[0] <= "7"  # 26 digits of 5 bits hold 130; a ULID has 128
    milliseconds = sum(CROCKFORD.index(digit) << (5 * (9 - place)) for place, digit in enumerate(run[:10]))
    assert milliseconds == int(at.timestamp() * 1000)


@given(times, visible)
def test_the_same_cause_names_the_same_run_wherever_the_clock_stands(at: datetime, cause: str) -> None:
    elsewhere = at.astimezone(timezone(timedelta(hours=9)))
    assert derive_run_id(at, cause, 7) == derive_run_id(elsewhere, cause, "7")


@given(st.lists(st.lists(visible, min_size=1, max_size=3), min_size=2, max_size=20, unique_by=tuple))
def test_different_causes_name_different_runs_and_facts(causes: list[list[str]]) -> None:
    assert len({derive_run_id(OPENED, *cause) for cause in causes}) == len(causes)
    assert len({derive_id(*cause) for cause in causes}) == len(causes)


def test_parts_of_a_cause_do_not_run_together() -> None:
    assert derive_id("a", "bc") != derive_id("ab", "c")
    assert derive_run_id(OPENED, 1, 11) != derive_run_id(OPENED, 11, 1)


def test_later_runs_sort_after_earlier_ones() -> None:
    moments = [OPENED + timedelta(milliseconds=3**n) for n in range(15)]
    runs = [derive_run_id(moment, "x") for moment in moments]
    assert runs == sorted(runs)


def test_two_questions_of_one_turn_are_two_facts() -> None:
    other = QuestionAsked(turn=ASKED.turn, tool_use_id="toolu_other", question=ASKED.question)
    assert identity_of(other) != identity_of(ASKED)


def test_the_words_of_a_fact_do_not_make_it_another_fact() -> None:
    first = RunFailed(stage="agent", kind="budget_cost", why="one")
    assert identity_of(first) == identity_of(RunFailed(stage="agent", kind="budget_time", why="two"))
    assert identity_of(first) != identity_of(RunFailed(stage="publication", kind="budget_cost", why="one"))


@given(
    said=st.sampled_from(STORY),
    key=keys,
    time=times,
    identity=visible,
    source=visible,
    cause=visible,
    trace=st.sampled_from(["", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
    sequence=numbers,
)
def test_what_is_stored_is_read_back(  # one argument per attribute
    said: Said, key: RunKey, time: datetime, identity: str, source: str, cause: str, trace: str, sequence: int
) -> None:
    envelope = Envelope(id=identity, key=key, source=source, time=time, cause=cause, traceparent=trace)
    headers = headers_of(envelope, said.fact)
    assert all(value.isascii() and "\n" not in value for value in headers.values())
    subject = headers["ce-subject"]
    read = decode_recorded(subject, sequence, headers, encode_fact(upcast(said.fact)))
    assert read == Recorded(sequence=sequence, envelope=envelope, fact=upcast(said.fact))
    assert read.key == key


def test_the_attributes_are_cloudevents() -> None:
    assert headers_of(envelope_of(STORY[0]), STORY[0].fact) == {
        "ce-specversion": "1.0",
        "ce-id": envelope_of(STORY[0]).id,
        "ce-type": "dev.millrace.run.requested.v1",
        "ce-source": "/millrace/gateway",
        "ce-subject": f"issues.1296269.42.{KEY.run}.run.requested",
        "ce-time": "2026-03-02T09:14:07.318000Z",
        "ce-cause": "8f1c2c80-1616-11f1-9d3e-0c6f4ab2d7e5",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("missing", ["ce-id", "ce-source", "ce-time"])
def test_a_message_without_an_attribute_is_not_ours(missing: str) -> None:
    headers = headers_of(envelope_of(STORY[-1]), FINISHED)
    del headers[missing]
    with pytest.raises(KeyError, match=missing):
        decode_recorded(subject_of(KEY, FINISHED), 1, headers, encode_fact(FINISHED))


def test_a_message_without_headers_or_with_a_broken_time_is_not_ours() -> None:
    body, subject = encode_fact(FINISHED), subject_of(KEY, FINISHED)
    with pytest.raises(KeyError):
        decode_recorded(subject, 1, None, body)
    headers = headers_of(envelope_of(STORY[-1]), FINISHED) | {"ce-time": "yesterday"}
    with pytest.raises(ValueError, match="yesterday"):
        decode_recorded(subject, 1, headers, body)


def test_a_fact_of_256_kib_passes_and_one_byte_more_does_not() -> None:
    def of(size: int) -> RunFailed:
        return RunFailed(stage="agent", kind="k", why="x" * size)

    room = MAX_FACT_BYTES - len(encode_fact(of(0)))
    assert len(encode_fact(of(room))) == MAX_FACT_BYTES == 262_144
    with pytest.raises(ValueError, match=r"a run\.failed\.v1 of 262145 bytes is over the limit of 262144"):
        encode_fact(of(room + 1))


def test_equal_facts_have_equal_bytes_whatever_the_order_of_their_keys() -> None:
    blocks = tuple(dict(reversed(block.items())) for block in READS.content)
    assert encode_fact(msgspec.structs.replace(READS, content=blocks)) == encode_fact(READS)
