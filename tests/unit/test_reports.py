"""Reports of test runners, honest and hostile, and what changed between two of them."""

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.facts import Comparison, NamedTests, TestCounts
from services.sandbox_runner.reports import Tests, compare, count, read_reports
from services.sandbox_runner.wrapping import objected, unpack, wrapped

PYTEST = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.test_a" name="test_one" time="0.1"/>
<testcase classname="tests.test_a" name="test_two[x-&lt;y&gt;]"><failure message="no">E</failure></testcase>
<testcase classname="tests.test_a" name="test_three"><skipped message="later"/></testcase>
<testcase classname="" name="tests.test_b"><error message="collection failure">E</error></testcase>
</testsuite></testsuites>"""

NODE = """TAP version 13
# Subtest: adds
ok 1 - adds
  ---
  duration_ms: 1
  ...
# Subtest: outer
    # Subtest: inner
    ok 1 - inner
    # Subtest: other
    not ok 2 - other
    1..2
not ok 2 - outer
  ---
  error: '1 subtest failed'
  ...
ok 3 - later # SKIP
ok 4 - some day # TODO
1..4
"""

GO = """{"Action":"start","Package":"x/y"}
{"Action":"output","Package":"x/y","Test":"TestA","Output":"--- FAIL"}
{"Action":"pass","Package":"x/y","Test":"TestA/one"}
{"Action":"fail","Package":"x/y","Test":"TestA/two"}
{"Action":"fail","Package":"x/y","Test":"TestA"}
{"Action":"skip","Package":"x/y","Test":"TestB"}
{"Action":"fail","Package":"x/y"}
not json
{"Action":"fail","Package":"x/broken"}
{"Action":"pass","Package":"x/fine"}
"""

CARGO = """running 3 tests
test tests::adds ... ok
test tests::fails ... FAILED
test tests::later ... ignored
test src/lib.rs - add (line 3) ... ok
test result: FAILED. 2 passed; 1 failed; 1 ignored
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param(
            "report.xml",
            PYTEST,
            {
                "tests.test_a::test_one": "passed",
                "tests.test_a::test_two[x-<y>]": "failed",
                "tests.test_a::test_three": "skipped",
                "tests.test_b": "failed",
            },
            id="pytest",
        ),
        pytest.param(
            "report.tap",
            NODE,
            {
                "adds": "passed",
                "outer > inner": "passed",
                "outer > other": "failed",
                "later": "skipped",
                "some day": "skipped",
            },
            id="node",
        ),
        pytest.param(
            "report.json",
            GO,
            {
                "x/y.TestA/one": "passed",
                "x/y.TestA/two": "failed",
                "x/y.TestB": "skipped",
                "x/broken": "failed",
            },
            id="go",
        ),
    ],
)
def test_reports_are_read(name: str, text: str, expected: Tests) -> None:
    assert read_reports([(name, text)], "") == expected


def test_the_terminals_words_count_where_there_is_no_report() -> None:
    assert read_reports([], NODE)["outer > other"] == "failed"
    assert read_reports([], CARGO) == {
        "tests::adds": "passed",
        "tests::fails": "failed",
        "tests::later": "skipped",
        "src/lib.rs - add (line 3)": "passed",
    }
    assert read_reports([], "ok 1 - not TAP without its first line") == {}


def test_a_group_that_fails_by_itself_is_a_failure() -> None:
    text = "TAP version 13\n    ok 1 - inner\nnot ok 1 - outer\n"
    assert read_reports([("r.tap", text)], "") == {"outer > inner": "passed", "outer": "failed"}


def test_tests_with_one_name_fail_together() -> None:
    text = "TAP version 13\nok 1 - same\nnot ok 2 - same\nok 3 - same\n"
    assert read_reports([("r.tap", text)], "") == {"same": "failed"}


BOMB = "<!DOCTYPE a [" + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 20)) + "]>"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB + "<a>&e19;</a>", id="entities that multiply"),
        pytest.param('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', id="a document from outside"),
        pytest.param(PYTEST[:300], id="cut off"),
        pytest.param("<testcase" * 100_000, id="no XML"),
        pytest.param("<a>" * 200_000, id="depth"),
    ],
)
def test_a_hostile_document_says_nothing(text: str) -> None:
    assert read_reports([("report.xml", text)], "") == {}


def test_names_are_bounded_and_printable() -> None:
    text = f'<s><testcase name="a\u202e{"b" * 5000}"/></s>'
    (name,) = read_reports([("report.xml", text)], "")
    assert name.startswith("a?b")
    assert len(name) == 300


@given(st.text(), st.sampled_from(["r.xml", "r.tap", "r.json"]))
def test_no_text_breaks_the_reading(text: str, name: str) -> None:
    read_reports([(name, text)], text)


def test_what_changed_is_told_test_by_test() -> None:
    before: Tests = {
        "a": "passed",
        "b": "failed",
        "c": "failed",
        "d": "passed",
        "e": "passed",
        "s": "skipped",
    }
    after: Tests = {"a": "failed", "b": "passed", "c": "failed", "d": "passed", "n": "passed", "s": "passed"}
    assert compare(before, after) == Comparison(
        newly_failing=NamedTests(count=1, names=("a",)),
        newly_passing=NamedTests(count=3, names=("b", "n", "s")),
        still_failing=NamedTests(count=1, names=("c",)),
        gone=NamedTests(count=1, names=("e",)),
    )
    assert count(after) == TestCounts(passed=4, failed=2)


def test_without_two_reports_nothing_is_compared() -> None:
    assert compare({}, {"a": "passed"}) is None
    assert compare({"a": "passed"}, {}) is None
    assert count({}) is None
    assert count({"a": "passed", "b": "failed", "c": "skipped"}) == TestCounts(passed=1, failed=1, skipped=1)


def test_many_names_are_counted_and_some_are_told() -> None:
    after: Tests = {f"t{number:04}": "failed" for number in range(1000)}
    seen = compare({"x": "passed"}, after)
    assert seen is not None
    assert seen.newly_failing.count == 1000
    assert seen.newly_failing.names[:2] == ("t0000", "t0001")
    assert len(seen.newly_failing.names) == 50


def test_packed_reports_come_back() -> None:
    packed = base64.b64encode(zlib.compress(json.dumps([["a.xml", "<a/>"]]).encode())).decode()
    assert unpack(packed) == (("a.xml", "<a/>"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        "AAAA",
        base64.b64encode(zlib.compress(b"{")).decode(),
        base64.b64encode(zlib.compress(b"[1]")).decode(),
        base64.b64encode(zlib.compress(b" " * 100_000_000)).decode(),
    ],
)
def test_packed_nonsense_is_nothing(text: str) -> None:
    assert unpack(text) == ()


def test_a_runner_that_objects_to_the_report_is_recognised() -> None:
    assert objected(4, "error: unrecognized arguments: --junitxml=/tmp/x")
    assert objected(9, "node: --test-reporter= is not allowed in NODE_OPTIONS")
    assert not objected(1, "unrecognized arguments")
    assert not objected(0, "")
    assert wrapped("make test").endswith("\nmake test")
