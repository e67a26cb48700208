"""The repository of the demo: a small package with a history, a bug, and the test that shows it."""

from datetime import timedelta
from typing import NamedTuple

FULL_NAME = "harbour/tempo"
MAINTAINER, CONTRIBUTOR = "mara", "jonas"
TEST_COMMAND = "python3 -m pytest -q"
"""What Millrace finds out by itself from the files below."""


class Step(NamedTuple):
    """One commit: who, how long ago, why, and the files it wrote."""

    author: str
    ago: timedelta
    message: str
    files: dict[str, str]


class Report(NamedTuple):
    """The issue."""

    title: str
    body: str


REPORT = Report(
    "Durations just below a full unit come out as `60s`",
    """\
`tempo 59.6` prints `60s`, and `tempo 3599.7` prints `59m 60s`. I expected `1m` and `1h`: \
there is no sixtieth second on a clock.

It happens whenever the fraction rounds up into the next unit. \
`test_rounding_carries_into_the_next_unit` shows it and fails on `main` since we added it.
""",
)

_README = """\
# tempo

Durations for people: `5400` seconds are `1h 30m`, and `1h 30m` are `5400` seconds.

    >>> from tempo import format_duration, parse_duration
    >>> format_duration(5400)
    '1h 30m'
    >>> parse_duration("2d 4h")
    187200

On the command line: `python -m tempo 5400`. See `docs/usage.md`.
"""
_AGENTS = """\
# For agents and newcomers

- Run the tests with `python3 -m pytest -q`; they take a second.
- A fix comes with a test and with a line under "Unreleased" in `CHANGELOG.md`.
- No dependencies, Python 3.9 and newer.
"""
_PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "tempo"
version = "1.2.0"
description = "Durations for people"
requires-python = ">=3.9"

[tool.pytest.ini_options]
pythonpath = ["src"]
testpaths = ["tests"]
"""
_CHANGELOG = """\
# Changelog

## Unreleased

## 1.2.0

- `format_duration` takes `parts`, the largest number of units to show.

## 1.1.0

- Weeks.
"""
_INIT = '''\
"""Durations for people."""

from tempo.format import format_duration
from tempo.parse import parse_duration

__all__ = ["format_duration", "parse_duration"]
'''
_MAIN = '''\
"""``python -m tempo``: seconds in, words out, and the other way round."""

import sys

from tempo import format_duration, parse_duration


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tempo SECONDS | DURATION", file=sys.stderr)
        return 2
    try:
        print(format_duration(float(arguments[0])))
    except ValueError:
        print(parse_duration(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''
_UNITS = '''\
"""The units, largest first."""

from typing import NamedTuple


class Unit(NamedTuple):
    symbol: str
    seconds: int


UNITS = (Unit("w", 604800), Unit("d", 86400), Unit("h", 3600), Unit("m", 60), Unit("s", 1))
'''
_PARSE = '''\
"""Words to seconds."""

import re

from tempo.units import UNITS

_SECONDS = {unit.symbol: unit.seconds for unit in UNITS}
_PART = re.compile(r"(\\d+)\\s*([wdhms])")


def parse_duration(text: str) -> int:
    """``1h 30m`` is 5400; a ValueError says what could not be read."""
    left = text.strip()
    sign = -1 if left.startswith("-") else 1
    left = left.removeprefix("-")
    total = 0
    while left:
        part = _PART.match(left)
        if part is None:
            raise ValueError(f"not a duration: {text!r}")
        total += int(part[1]) * _SECONDS[part[2]]
        left = left[part.end():].lstrip(" ,")
    return sign * total
'''
FORMAT = "src/tempo/format.py"
_FORMAT = '''\
"""Seconds to words."""

from tempo.units import UNITS


def format_duration(seconds: float, *, parts: int = 2) -> str:
    """At most ``parts`` units, the largest first: ``1h 30m``, ``0s``."""
    if seconds < 0:
        return "-" + format_duration(-seconds, parts=parts)
    words = []
    left = seconds
    for unit in UNITS[:-1]:
        count, left = divmod(left, unit.seconds)
        if count:
            words.append(f"{count:.0f}{unit.symbol}")
    rest = round(left)
    if rest or not words:
        words.append(f"{rest}s")
    return " ".join(words[:parts])
'''
_TEST_PARSE = """\
import pytest

from tempo import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("1h 30m", 5400), ("2d, 4h", 187200), ("1w", 604800), ("-5m", -300)]
)
def test_a_duration_is_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "1h thirty", "5 parsecs"])
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
"""
TEST_FORMAT = "tests/test_format.py"
_TEST_FORMAT = """\
import pytest

from tempo import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (45, "45s"), (5400, "1h 30m"), (90061, "1d 1h"), (-300, "-5m")]
)
def test_the_largest_units_come_first(seconds, text):
    assert format_duration(seconds) == text


def test_more_parts_show_more():
    assert format_duration(90061, parts=4) == "1d 1h 1m 1s"


@pytest.mark.parametrize("seconds", [1, 59, 60, 3600, 86400])
def test_what_was_written_can_be_read(seconds):
    assert parse_duration(format_duration(seconds)) == seconds
"""
_TEST_MAIN = """\
import subprocess
import sys


def test_the_command_goes_both_ways():
    for given, printed in (("5400", "1h 30m"), ("1h 30m", "5400")):
        done = subprocess.run(
            [sys.executable, "-m", "tempo", given], capture_output=True, text=True, env={"PYTHONPATH": "src"}
        )
        assert (done.returncode, done.stdout.strip()) == (0, printed)
"""
_TEST_OF_THE_BUG = """

@pytest.mark.parametrize(
    ("seconds", "text"), [(59.6, "1m"), (3599.7, "1h"), (86399.5, "1d"), (119.9, "2m")]
)
def test_rounding_carries_into_the_next_unit(seconds, text):
    assert format_duration(seconds) == text
"""
_USAGE = """\
# Usage

`format_duration(seconds, parts=2)` shows the largest units only; seconds are rounded to whole ones.
`parse_duration(text)` takes weeks, days, hours, minutes and seconds in any order.
"""

HISTORY = (
    Step(
        MAINTAINER,
        timedelta(days=211),
        "Durations for people",
        {
            ".gitignore": "__pycache__/\n*.egg-info/\n",
            "README.md": _README,
            "pyproject.toml": _PYPROJECT.replace("1.2.0", "1.0.0"),
            "src/tempo/__init__.py": _INIT,
            "src/tempo/units.py": _UNITS,
            "src/tempo/parse.py": _PARSE,
            "tests/test_parse.py": _TEST_PARSE,
            FORMAT: _FORMAT,
            TEST_FORMAT: _TEST_FORMAT,
        },
    ),
    Step(
        MAINTAINER,
        timedelta(days=173),
        "A command: python -m tempo",
        {"src/tempo/__main__.py": _MAIN, "tests/test_main.py": _TEST_MAIN, "docs/usage.md": _USAGE},
    ),
    Step(
        CONTRIBUTOR,
        timedelta(days=98),
        "Release 1.2.0",
        {"CHANGELOG.md": _CHANGELOG, "pyproject.toml": _PYPROJECT},
    ),
    Step(MAINTAINER, timedelta(days=40), "Say how we work, for agents too", {"AGENTS.md": _AGENTS}),
    Step(
        CONTRIBUTOR,
        timedelta(days=2),
        "A test for rounding at the edge of a unit, which fails",
        {TEST_FORMAT: _TEST_FORMAT + _TEST_OF_THE_BUG},
    ),
)
FILES = len({path for step in HISTORY for path in step.files})
