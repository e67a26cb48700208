"""What the Claude double plays in the demo: how the bug of ``demo_repository`` is found and mended."""

from services.cli.demo_repository import FORMAT, TEST_COMMAND, TEST_FORMAT
from tests.doubles.model import Say, Use
from tests.doubles.model.script import Script
from tests.doubles.model.sessions import EDITOR, submit

_OLD = """\
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
"""
_NEW = """\
    left = round(seconds)  # first: later it could not carry into the next unit
    if left < 0:
        return "-" + format_duration(-left, parts=parts)
    words = []
    for unit in UNITS[:-1]:
        count, left = divmod(left, unit.seconds)
        if count:
            words.append(f"{count}{unit.symbol}")
    if left or not words:
        words.append(f"{left}s")
"""
_AFTER = "def test_more_parts_show_more():\n"
_TEST = """\
def test_what_rounds_to_nothing_has_no_sign():
    assert format_duration(-0.4) == "0s"


"""
_HEADING = "## Unreleased\n"
_ENTRY = """
- `format_duration` rounds before it divides: 59.6 s are `1m`, not `60s`, and
  -0.4 s are `0s`, not `-0s`.
"""
_SUMMARY = """\
`format_duration` divided first and rounded what was left, so a fraction that rounds up to a full unit had \
nowhere to carry: 59.6 s became `60s`, 3599.7 s became `59m 60s`.

It now rounds to whole seconds before anything else. The sign is decided after rounding for the same \
reason: -0.4 s used to be `-0s`.

- `src/tempo/format.py`: round first
- `tests/test_format.py`: one more test, for the sign
- `CHANGELOG.md`: a line under Unreleased, as AGENTS.md asks
"""


def session() -> Script:
    """Looks, reproduces, mends, tests, records, submits."""
    return (
        (
            Say("I look at the layout, and at the code that writes durations."),
            Use("bash", {"command": "git ls-files"}),
            Use(EDITOR, {"command": "view", "path": f"/workspace/{FORMAT}"}),
        ),
        (
            Say("It divides first and rounds what is left. I want to see the failure before I change it."),
            Use("bash", {"command": f"{TEST_COMMAND} --tb=no"}),
        ),
        (
            Say("As the issue says. Rounding has to come first; the sign has the same flaw (-0.4 is `-0s`)."),
            _replace(FORMAT, _OLD, _NEW),
            _replace(TEST_FORMAT, _AFTER, _TEST + _AFTER),
            _replace("CHANGELOG.md", _HEADING, _HEADING + _ENTRY),
        ),
        (
            Say("Now all of the tests, and what differs."),
            Use("bash", {"command": f"{TEST_COMMAND} && git diff --stat"}),
        ),
        (
            Say("Everything passes. I hand it in."),
            submit(
                "Round durations before dividing them into units",
                _SUMMARY,
                f"`{TEST_COMMAND}`: 4 tests fail before the change, none after it",
            ),
        ),
    )


def _replace(path: str, old: str, new: str) -> Use:
    given = {"command": "str_replace", "path": f"/workspace/{path}", "old_str": old, "new_str": new}
    return Use(EDITOR, given)
