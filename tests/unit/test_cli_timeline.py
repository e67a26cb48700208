"""An issue's events in the terminal."""

import unicodedata
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given as each
from hypothesis import strategies as st
from inline_snapshot import snapshot
from rich.console import Console

from contracts import facts as f
from contracts import story
from contracts.codec import headers_of
from contracts.schema import example_of
from contracts.story import OTHERWISE, STORY, Said, envelope_of
from services.cli.timeline import clean, render


def event_of(said: Said, **other: Any) -> dict[str, Any]:
    """As the history gives it."""
    envelope = envelope_of(said)
    headers = headers_of(envelope, said.fact)
    event = {
        "sequence": 1,
        "id": envelope.id,
        "type": headers["ce-type"],
        "time": headers["ce-time"],
        "source": headers["ce-source"],
        "cause": envelope.cause,
        "run": envelope.key.run,
        "data": example_of(said),
    }
    return event | other


def printed(*events: dict[str, Any], width: int = 80) -> str:
    """What a terminal of this width gets, without colours and trailing blanks."""
    console = Console(width=width, color_system=None, force_terminal=True, legacy_windows=False)
    with console.capture() as capture:
        for event in events:
            console.print(render(event, story.OPENED))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_the_whole_story_in_80_columns() -> None:
    assert printed(*map(event_of, STORY)) == snapshot("""\
  +0.32s gateway        #42 Durations just under a minute are printed as `60 s`
                        opened by mara-lindqvist
  +0.94s publisher      says on the issue that work has begun
  +1.70s sandbox_runner sandbox 1 ready at e1e5eed0ab
                        This looks like a Python project; its tests run with:
                        python3 -m pytest -q
  +6.52s agent          turn 1  2,875 in (0 % cached), 214 out, $0.0093
                        I will look at the function and see what its tests say
                        today.
                        reads /workspace/src/tidetable/durations.py
                        $ python3 -m pytest -q
  +6.97s agent          2 tool calls in 0.42 s, tree c123f01344
                        ..                                                     …
                        2 passed in 0.01s
 +10.95s agent          turn 2  3,514 in (82 % cached), 171 out, $0.0036
                        calls ask
 +41.02s agent          sandbox 1 lost: nobody answers for the sandbox (its
                        runner was restarted)
 +42.38s sandbox_runner sandbox 2 ready at e1e5eed0ab
                        This looks like a Python project; its tests run with:
                        python3 -m pytest -q
 +42.41s agent          tree c123f01344
 +42.42s agent          asks: `humanise(3590)` gives `60 min` for the same
                        reason. Should it become `1 h` as well?
+1:25:23 gateway        osei-b answers: Yes please, `1 h`.
+1:25:24 sandbox_runner sandbox 3 ready at e1e5eed0ab
                        This looks like a Python project; its tests run with:
                        python3 -m pytest -q
+1:25:31 agent          turn 3  3,902 in (90 % cached), 538 out, $0.0067
                        The units are chosen before rounding; choosing them
                        after it mends both cases.
                        edits /workspace/src/tidetable/durations.py
                        writes /workspace/tests/test_durations.py
                        $ python3 -m pytest -q tests/test_durations.py
+1:25:32 agent          3 tool calls in 0.41 s, tree 85ca5c56e8
                        ..                                                     …
                        2 passed in 0.01s
+1:25:36 agent          turn 4  4,613 in (85 % cached), 176 out, $0.0039
                        hands its change in
+1:25:36 agent          tree 85ca5c56e8
+1:25:36 agent          proposes: Carry rounded durations into the next unit
                        2 files, tree 85ca5c56e8
+1:25:38 sandbox_runner verified: failed
                        $ python3 -m pytest -q  (exit 1, 0.7 s)
                        … 4 lines before
                        >       assert row("high water", 3590) == "high water  …
                        E       AssertionError: assert 'high water  in 1 h' == …
                        tests/test_table.py:5: AssertionError
                        =========================== short test summary info ===…
                        FAILED tests/test_table.py::test_last_tide_of_the_day -…
                        1 failed, 2 passed in 0.02s
+1:25:44 agent          turn 5  5,568 in (83 % cached), 247 out, $0.0053
                        The table's test pins the old text; the people on the
                        issue want `1 h` there too.
                        edits /workspace/tests/test_table.py
                        $ python3 -m pytest -q
+1:25:44 agent          2 tool calls in 0.41 s, tree 2d129c9cb3
                        ...                                                    …
                        3 passed in 0.01s
+1:25:48 agent          turn 6  5,970 in (93 % cached), 188 out, $0.0034
                        hands its change in
+1:25:48 agent          tree 2d129c9cb3
+1:25:48 agent          proposes: Carry rounded durations into the next unit
                        3 files, tree 2d129c9cb3
+1:25:50 sandbox_runner verified: passed
                        $ python3 -m pytest -q  (exit 0, 0.7 s)
                        ...                                                    …
                        3 passed in 0.01s
+1:25:52 publisher      commit 79f0e417f1 on millrace/issue-42
+1:25:54 publisher      pull request 43
                        https://github.com/lighthouse/tidetable/pull/43
+1:25:55 publisher      finished: pull request\
""")


def test_the_ends_that_it_did_not_take() -> None:
    assert printed(*map(event_of, OTHERWISE)) == snapshot("""\
 +11.20s agent          `humanise` rounds after choosing the unit; that is why
                        59.7 s is printed as `60 s`.
+1:25:49 sandbox_runner verified: refused (it touches protected files:
                        .github/workflows/test.yml)
+1:25:50 sandbox_runner verified: passed
                        $ python3 -m pytest -q  (exit 0, 0.7 s)
                        ...                                                    …
                        3 passed in 0.01s
 +12.00s agent          failed (budget_cost): The work ended at a limit without
                        a change: $0.02.
 +30.50s gateway        cancelled by mara-lindqvist: the issue was closed
 +31.60s publisher      finished: cancelled\
""")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = printed(*map(event_of, (*STORY, *OTHERWISE)), width=width)
    assert max(len(line) for line in text.splitlines()) <= width


def test_a_word_longer_than_the_terminal_is_folded_not_lost() -> None:
    long = "x" * 300
    answer = Said(at=1, by="agent", because="", fact=f.AnswerGiven(turn=1, text=long))
    text = printed(event_of(answer))
    assert text.count("x") == 300
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "+0.00s"),
        (99.99, "+99.99s"),
        (100, "+0:01:40"),
        (5123, "+1:25:23"),
        (35999, "+9:59:59"),
        (36000, "+0d 10h"),
        (3 * 86400 + 7200, "+3d 2h"),
    ],
)
def test_times_count_from_the_beginning_of_the_run(seconds: float, shown: str) -> None:
    said = msgspec.structs.replace(STORY[-1], at=seconds)
    assert printed(event_of(said)).split("publisher")[0].strip() == shown
    assert len(shown) <= 8


def test_without_a_beginning_the_clock_is_shown() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(render(event_of(STORY[0])))
    assert capture.get().startswith("09:14:07 gateway")


# --- text by strangers --------------------------------------------------------------------------------------

ESCAPE = "\x1b"
NASTY = [
    f"{ESCAPE}[2J{ESCAPE}[31mred",
    f"{ESCAPE}]8;;https://trap.example{ESCAPE}\\click{ESCAPE}]8;;{ESCAPE}\\",
    f"{ESCAPE}]0;title\x07",
    f"{ESCAPE}]52;c;AAAA",
    f"{ESCAPE}c{ESCAPE}(0",
    "\x9b31m\x9d0;t\x9c",
    "back\x08\x08\x08\rover",
    "bell\x07 null\x00 delete\x7f",
    "safe\u202egpj.exe\u2066\u200b\ufeff\u2028",
    f"cut{ESCAPE}",
]


@pytest.mark.parametrize("text", NASTY)
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    said = clean(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Zl") for c in said), repr(said)


@each(st.text())
def test_clean_text_obeys_and_hides_nothing(text: str) -> None:
    said = clean(text)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in said)
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in said)


def _poisoned(node: Any, text: str) -> Any:
    """The same data with the text in every field that is one, types and choices aside."""
    if isinstance(node, dict):
        return {
            k: v
            if k in ("type", "verdict", "outcome", "kind", "stage", "status", "time")
            else _poisoned(v, text)
            for k, v in node.items()
        }
    if isinstance(node, list):
        return [_poisoned(each_, text) for each_ in node]
    return text if isinstance(node, str) else node


@pytest.mark.parametrize("said", [*STORY, *OTHERWISE], ids=lambda said: said.title)
@pytest.mark.parametrize("text", NASTY)
def test_no_field_of_any_fact_steers_the_terminal(said: Said, text: str) -> None:
    shown = printed(event_of(said, data=_poisoned(example_of(said), text)))
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in shown), repr(shown)
    assert "\u202e" not in shown


def test_markup_of_the_terminal_library_is_only_text() -> None:
    answer = Said(
        at=1, by="agent", because="", fact=f.AnswerGiven(turn=1, text="[bold]x[/bold] [link=h://t]y")
    )
    assert "[bold]x[/bold] [link=h://t]y" in printed(event_of(answer))


# --- facts of other times -----------------------------------------------------------------------------------


def test_a_fact_without_the_fields_that_came_later_is_shown() -> None:
    for said in (*STORY, *OTHERWISE):
        required = {
            field.encode_name for field in msgspec.structs.fields(type(said.fact)) if field.required
        } | {"type"}
        first_form = {key: value for key, value in example_of(said).items() if key in required}
        assert printed(event_of(said, data=first_form))


def test_a_fact_of_a_newer_version_is_named() -> None:
    event = event_of(STORY[-1], type="dev.millrace.run.archived.v9", data={"type": "run.archived.v9"})
    assert "run.archived.v9" in printed(event)
    named = f"dev.millrace.{ESCAPE}[31mx.v1"
    assert ESCAPE not in printed(event_of(STORY[-1], type=named, data={"type": "x.v1"}))


def test_a_time_of_another_zone_counts_the_same() -> None:
    time = (
        (story.OPENED + timedelta(seconds=7)).isoformat().replace("09:", "11:", 1).replace("+00:00", "+02:00")
    )
    assert printed(event_of(STORY[-1], time=time)).startswith("  +7.00s")
