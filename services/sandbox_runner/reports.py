"""What test runners say about single tests, read from their reports and compared (pure).

Reports are written by the code under test: they are bounded, never trusted for more than names, and a
verdict never rests on them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Literal
from xml.parsers import expat

from contracts.facts import Comparison, NamedTests, TestCounts

Outcome = Literal["passed", "failed", "skipped"]
Tests = dict[str, Outcome]
"""Every test by its name."""

_MOST = 50_000
_NAMES = 50
_NAME = 300
_TAP = re.compile(r"^( *)(not )?ok\b(?: +\d+)?(?: +-)? ?(.*)$")
_CARGO = re.compile(r"^test (.+?) \.\.\. (ok|FAILED|ignored)\b")
_CARGO_SUITE = re.compile(r"^\s+(?:Running|Doc-tests) (.+?)(?: \(.*\))?$")


def read_reports(files: Iterable[tuple[str, str]], output: str) -> Tests:
    """The tests that a command's reports list, or else its output; empty if neither can be read.

    Args:
        files: names and texts of what the command wrote: JUnit XML, TAP, or the JSON lines of ``go test``.
        output: what it wrote to the terminal: TAP, or what ``cargo test`` says.
    """
    tests: Tests = {}
    for name, text in files:
        if name.endswith(".xml"):
            _merge(tests, _junit(text))
        elif name.endswith(".tap"):
            _merge(tests, _tap(text))
        elif name.endswith(".json"):
            _merge(tests, _go(text))
    if not tests and re.search(r"^TAP version 1[34]", output, re.MULTILINE):
        _merge(tests, _tap(output))
    return tests or _cargo(output)


def count(tests: Mapping[str, Outcome]) -> TestCounts | None:
    """How many of each; None if there are none."""
    if not tests:
        return None
    outcomes = list(tests.values())
    return TestCounts(
        passed=outcomes.count("passed"), failed=outcomes.count("failed"), skipped=outcomes.count("skipped")
    )


def compare(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> Comparison | None:
    """The tests of the final tree beside those of the base; None if either has no report."""
    if not before or not after:
        return None
    failed = {name for name, outcome in after.items() if outcome == "failed"}
    failed_before = {name for name, outcome in before.items() if outcome == "failed"}
    passed = {name for name, outcome in after.items() if outcome == "passed"}
    passed_before = {name for name, outcome in before.items() if outcome == "passed"}
    return Comparison(
        newly_failing=_named(failed - failed_before),
        newly_passing=_named(passed - passed_before),
        still_failing=_named(failed & failed_before),
        gone=_named((passed_before | failed_before) - passed - failed),
    )


def _named(names: set[str]) -> NamedTests:
    return NamedTests(count=len(names), names=tuple(sorted(names)[:_NAMES]))


def _merge(tests: Tests, more: Tests) -> None:
    for name, outcome in more.items():
        _add(tests, name, outcome)


def _add(tests: Tests, name: str, outcome: Outcome) -> None:
    """One more result; of several with one name a failure stands."""
    name = "".join(char if char.isprintable() else "?" for char in name.strip()[:_NAME])
    if len(tests) < _MOST and (name not in tests or outcome == "failed"):
        tests[name] = outcome


class _Hostile(Exception):  # noqa: N818  a document that no test runner writes
    pass


def _junit(text: str) -> Tests:
    """JUnit XML as pytest, Surefire and Gradle write it; nothing of a document that declares entities."""
    tests: Tests = {}
    case: list[str] = []
    outcome: list[Outcome] = ["passed"]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "testcase":
            group = attributes.get("classname") or attributes.get("file") or ""
            name = attributes.get("name", "")
            case.append(f"{group}::{name}" if group and name else name or group)
            outcome[0] = "passed"
        elif tag in ("failure", "error"):
            outcome[0] = "failed"
        elif tag == "skipped" and outcome[0] == "passed":
            outcome[0] = "skipped"

    def end(tag: str) -> None:
        if tag == "testcase" and case:
            _add(tests, case.pop(), outcome[0])

    def forbid(*_: object) -> None:
        raise _Hostile

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = forbid
    parser.EntityDeclHandler = forbid
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, _Hostile, ValueError):
        return {}  # a report that was cut off says nothing about the tests that it lacks
    return tests


def _go(text: str) -> Tests:
    """The JSON lines of ``go test -json`` (test2json)."""
    tests: Tests = {}
    words: dict[str, Outcome] = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    parents: set[str] = set()
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(event, dict):
            continue
        outcome = words.get(str(event.get("Action")))
        package, test = str(event.get("Package", "")), event.get("Test")
        if outcome is None or (test is None and outcome != "failed"):
            continue
        name = f"{package}.{test}" if test is not None else package
        _add(tests, name, outcome)
        if isinstance(test, str) and "/" in test:
            parents.add(f"{package}.{test.rpartition('/')[0]}")
        if test is not None:
            parents.add(package)  # a package fails because of its tests
    return {name: outcome for name, outcome in tests.items() if name not in parents}


def _tap(text: str) -> Tests:
    """TAP 13 and 14; of nested tests the innermost, under the names of all that they are in."""
    found: list[tuple[int, str, Outcome]] = []
    for line in text.splitlines():
        match = _TAP.match(line)
        if match is None:
            continue
        depth, name = len(match[1]) // 4, match[3]
        title, _, directive = name.partition(" # ")
        outcome: Outcome = "failed" if match[2] else "passed"
        if directive.upper().startswith(("SKIP", "TODO")):
            outcome = "skipped"
        inner = 0
        while inner < len(found) and found[-1 - inner][0] > depth:
            inner += 1
        if inner:  # a line that sums up those before it
            below = found[-inner:]
            own = outcome == "failed" and all(each[2] != "failed" for each in below)
            found[-inner:] = [(depth, f"{title} > {name}", result) for _, name, result in below]
            if own:
                found.append((depth, title, outcome))
        else:
            found.append((depth, title, outcome))
        if len(found) > _MOST:
            break
    tests: Tests = {}
    for _, name, outcome in found:
        _add(tests, name, outcome)
    return tests


def _cargo(output: str) -> Tests:
    """What ``cargo test`` says, test by test (libtest's plain format)."""
    tests: Tests = {}
    words: dict[str, Outcome] = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    suite = ""
    for line in output.splitlines():
        if running := _CARGO_SUITE.match(line):
            suite = f"{running[1]}: "
        elif match := _CARGO.match(line):
            _add(tests, suite + match[1], words[match[2]])
    return tests
