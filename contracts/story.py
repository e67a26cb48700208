"""One run of one issue, told in facts: the examples of the catalogue, top to bottom.

A person asks for a fix; a sandbox is lost, a question is asked and answered, the first proposal fails its
verification and the second becomes a pull request. ``OTHERWISE`` holds the endings that this run did not
take, and the forms that facts had before. The trees, blobs and digests are those of a real repository.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from contracts import facts as f
from contracts.change import Change, ChangeRef, Written, reference
from contracts.envelope import Envelope, Recorded, RunKey, derive_id, derive_run_id, identity_of
from contracts.registry import AGENT, GATEWAY, PUBLISHER, RUNNER
from contracts.subjects import kind_of, tag_of
from contracts.upcast import upcast


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One example: a fact, who said it when (seconds since the issue was opened), and because of what.

    ``because`` is the fact that was heard, or the id of GitHub's delivery. ``name`` tells the example from
    others of its kind; the first of a kind has none.
    """

    at: float
    by: str
    fact: f.Fact
    because: f.Fact | str
    name: str = ""

    @property
    def title(self) -> str:
        """The name of its file, without the ending: ``turn.taken.v1.asks``."""
        return ".".join(part for part in (tag_of(self.fact), self.name) if part)


OPENED = datetime(2026, 3, 2, 9, 14, 7, tzinfo=UTC)
DELIVERY, LATER_DELIVERY = "8f1c2c80-1616-11f1-9d3e-0c6f4ab2d7e5", "7d0b6a1e-1622-11f1-8e55-2f9b0c1d4a77"
MODEL = "claude-sonnet-5-5"
PROMPT = "6f0f6a3b1c52d9e4"
TEST = "python3 -m pytest -q"

REPOSITORY = f.Repository(id=1296269, full_name="lighthouse/tidetable")
MARA = f.Person(id=583231, login="mara-lindqvist")
OSEI = f.Person(id=1024025, login="osei-b")

KEY = RunKey(REPOSITORY.id, 42, derive_run_id(OPENED, "opened", REPOSITORY.id, 42))
BOX = KEY.run.lower()

# --- the repository: what the agent finds and what it makes of it --------------------------------------

BASE, BASE_TREE = "e1e5eed0ab0ce89a4f70c2e20dc9d60f052d71c2", "c123f0134434d9a2800d11458ba054641df57652"
FIRST_TREE, SECOND_TREE = (
    "85ca5c56e809dbd94b919aa6c9c60d662be62810",
    "2d129c9cb344caabb848d37ac61aa47208cdbcf5",
)
COMMIT = "79f0e417f1f0eca4a0764d6275e9d4c3f93d719b"

_OLD = '''\
    """``45 s``, ``3 min``, ``2 h``: the largest unit that fits."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
'''
_NEW = '''\
    """``45 s``, ``3 min``, ``2 h``: the largest unit in which the rounded number stays small."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds / 60) < 60:
'''
BEFORE = f'''\
"""Durations as people say them."""


def humanise(seconds: float) -> str:
{_OLD}\
        return f"{{seconds / 60:.0f}} min"
    return f"{{seconds / 3600:.0f}} h"
'''
AFTER = BEFORE.replace(_OLD, _NEW)
_TESTED = """\
from tidetable.durations import humanise


def test_whole_units() -> None:
    assert [humanise(s) for s in (45, 180, 7200)] == ["45 s", "3 min", "2 h"]


def test_rounding_carries_into_the_next_unit() -> None:
    assert [humanise(s) for s in (59.7, 3590)] == ["1 min", "1 h"]
"""
_TABLE = """\
from tidetable.table import row


def test_last_tide_of_the_day() -> None:
    assert row("high water", 3590) == "high water  in 1 h"
"""
_FAILURE = """\
..F                                                                      [100%]
=================================== FAILURES ===================================
__________________________ test_last_tide_of_the_day ___________________________

    def test_last_tide_of_the_day() -> None:
>       assert row("high water", 3590) == "high water  in 60 min"
E       AssertionError: assert 'high water  in 1 h' == 'high water  in 60 min'

tests/test_table.py:5: AssertionError
=========================== short test summary info ============================
FAILED tests/test_table.py::test_last_tide_of_the_day - AssertionError: asser...
1 failed, 2 passed in 0.02s
"""
_TWO_GREEN = (
    "..                                                                       [100%]\n2 passed in 0.01s\n"
)
_THREE_GREEN = (
    "...                                                                      [100%]\n3 passed in 0.01s\n"
)


def _file(path: str, blob: str, content: str) -> Written:
    return Written(path=path.encode(), mode="100644", blob=blob, content=content.encode())


_FIX = _file("src/tidetable/durations.py", "e9996d1c3b10ce86b35fa296707bcdc28916495d", AFTER)
_FIX_TEST = _file("tests/test_durations.py", "7c3127f31f64806e0aae0c0ac3398737cbc4533c", _TESTED)
_TABLE_TEST = _file("tests/test_table.py", "19a883c266ffffd12ddd25c0baae80e96f8abc20", _TABLE)

NOTHING = Change(base=BASE, tree=BASE_TREE)
FIRST = Change(base=BASE, tree=FIRST_TREE, written=(_FIX, _FIX_TEST))
SECOND = Change(base=BASE, tree=SECOND_TREE, written=(_FIX, _FIX_TEST, _TABLE_TEST))
"""The changes that the run's references name: what it began with, what failed, what was published."""

# --- the facts ------------------------------------------------------------------------------------------


def _turn(
    turn: int, usage: f.Usage, cost: int, seconds: float, *content: dict[str, object], stop: str = "tool_use"
) -> f.TurnTaken:
    return f.TurnTaken(
        turn=turn,
        content=content,
        stop_reason=stop,
        usage=usage,
        model=MODEL,
        cost=cost,
        seconds=seconds,
        prompt=PROMPT,
        request_id=f"req_011CYd{turn}hQkN8wFz4LmT2vXbR",
    )


def _use(number: int, name: str, **given: object) -> dict[str, object]:
    return {"type": "tool_use", "id": f"toolu_01Tide{number:02}", "name": name, "input": given}


def _says(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _usage(read: int, written: int, fresh: int, cached: int) -> f.Usage:
    return f.Usage(
        input_tokens=read,
        output_tokens=written,
        cache_creation_input_tokens=fresh,
        cache_read_input_tokens=cached,
    )


def _ran(number: int, name: str, content: str, seconds: float, exit_code: int | None = None) -> f.ToolOutcome:
    return f.ToolOutcome(
        tool_use_id=f"toolu_01Tide{number:02}",
        name=name,
        content=content,
        seconds=seconds,
        exit_code=exit_code,
    )


def _ready(generation: int, runner: str, tree: str = BASE_TREE) -> f.SandboxReady:
    return f.SandboxReady(
        sandbox_id=f"{BOX}-{generation}",
        runner=runner,
        generation=generation,
        base=BASE,
        base_ref="main",
        tree=tree,
        image="localhost/millrace-sandbox:3f1d5c0a97b2e846",
        test_command=TEST,
        about=f"This looks like a Python project; its tests run with: {TEST}",
        instructions=(
            f.Document(
                path="AGENTS.md", text="Keep functions pure and short. Every fix comes with a test.\n"
            ),
        ),
        setup=f.Setup(
            commands=(
                "python3 -m venv /deps/venv",
                "/deps/venv/bin/python -m pip install pytest -e '.[test]'",
            ),
            ok=True,
            seconds=11.204,
            cached=generation > 1,
            size=35_375_067,
            reached=("files.example.org", "index.example.org"),
            blocked=(f.BlockedHost(target="stats.example.com", why="the host is not on the list", times=2),),
        ),
    )


def _check(
    tree: str, exit_code: int, output: str, seconds: float, *, passed: int, failed: int = 0
) -> f.Check:
    return f.Check(
        command=TEST,
        tree=tree,
        exit_code=exit_code,
        seconds=seconds,
        output=output,
        tests=f.TestCounts(passed=passed, failed=failed),
    )


EDITOR, BASH = "str_replace_based_edit_tool", "bash"
_EDITED = "The file {} has been edited successfully."
_UNCHANGED = reference(NOTHING)
_FIRST, _SECOND = reference(FIRST), reference(SECOND)
_BEGUN = ChangeRef(digest=_FIRST.digest, tree=FIRST_TREE, files=2, size=_FIRST.size)

REQUESTED = f.RunRequested(
    app_id=421337,
    installation_id=50117,
    repository=REPOSITORY,
    issue=f.Issue(
        number=42,
        title="Durations just under a minute are printed as `60 s`",
        body="`humanise(59.7)` gives `60 s`; I expected `1 min`.\n\nThe table shows it every evening.",
        author=MARA,
        url="https://github.com/lighthouse/tidetable/issues/42",
    ),
    trigger=f.Trigger(kind="opened", actor=MARA, permission="write", delivery=DELIVERY),
)
POSTED = f.ProgressPosted(
    comment_id=2780011541, url="https://github.com/lighthouse/tidetable/issues/42#issuecomment-2780011541"
)
READY = _ready(1, "harbour-1")
READS = _turn(
    1,
    _usage(4, 214, 2871, 0),
    9326,
    4.812,
    _says("I will look at the function and see what its tests say today."),
    _use(1, EDITOR, command="view", path="/workspace/src/tidetable/durations.py"),
    _use(2, BASH, command=TEST),
)
READ = f.ToolsRan(
    turn=1,
    results=(_ran(1, EDITOR, BEFORE, 0.004), _ran(2, BASH, _TWO_GREEN, 0.412, 0)),
    checkpoint=_UNCHANGED,
)
ASKS = _turn(
    2,
    _usage(3, 171, 640, 2871),
    3603,
    3.977,
    _use(
        3,
        "ask",
        question="`humanise(3590)` gives `60 min` for the same reason. Should it become `1 h` as well?",
    ),
)
LOST = f.SandboxLost(
    sandbox_id=READY.sandbox_id, generation=1, why="nobody answers for the sandbox (its runner was restarted)"
)
READY_AGAIN = _ready(2, "harbour-2")
ASKED_TOOLS = f.ToolsRan(turn=2, results=(), checkpoint=_UNCHANGED)
ASKED = f.QuestionAsked(
    turn=2,
    tool_use_id="toolu_01Tide03",
    question="`humanise(3590)` gives `60 min` for the same reason. Should it become `1 h` as well?",
)
ANSWERED = f.QuestionAnswered(answer="Yes please, `1 h`.", by=OSEI, comment_id=2780014903)
READY_TO_GO_ON = _ready(3, "harbour-2")
EDITS = _turn(
    3,
    _usage(3, 538, 388, 3511),
    6707,
    7.304,
    _says("The units are chosen before rounding; choosing them after it mends both cases."),
    _use(
        4,
        EDITOR,
        command="str_replace",
        path="/workspace/src/tidetable/durations.py",
        old_str=_OLD,
        new_str=_NEW,
    ),
    _use(5, EDITOR, command="create", path="/workspace/tests/test_durations.py", file_text=_TESTED),
    _use(6, BASH, command=f"{TEST} tests/test_durations.py"),
)
EDITED = f.ToolsRan(
    turn=3,
    results=(
        _ran(4, EDITOR, _EDITED.format("/workspace/src/tidetable/durations.py"), 0.006),
        _ran(5, EDITOR, "File created successfully at: /workspace/tests/test_durations.py", 0.005),
        _ran(6, BASH, _TWO_GREEN, 0.398, 0),
    ),
    checkpoint=_BEGUN,
)
_TITLE = "Carry rounded durations into the next unit"
_SUMMARY = (
    "The unit was chosen before rounding, so 59.7 s became `60 s` and 3590 s became `60 min`. "
    "It is now chosen by the rounded number."
)
SUBMITS = _turn(
    4,
    _usage(3, 176, 711, 3899),
    3933,
    4.155,
    _use(7, "submit", title=_TITLE, summary=_SUMMARY, verified=["tests/test_durations.py passes"]),
)
SUBMITTED_TOOLS = f.ToolsRan(turn=4, results=(), checkpoint=_FIRST)
PROPOSED = f.SolutionProposed(
    turn=4,
    attempt=1,
    last=False,
    title=_TITLE,
    summary=_SUMMARY,
    claims=("tests/test_durations.py passes",),
    change=_FIRST,
)
_FILES = tuple(
    f.ChangedFile(path=entry.path.decode(), status="modified") for entry in (_FIX, _FIX_TEST, _TABLE_TEST)
)
FAILED = f.VerificationFinished(
    attempt=1,
    verdict="failed",
    change=_FIRST,
    files=_FILES[:2],
    checks=(_check(FIRST_TREE, 1, _FAILURE, 0.731, passed=2, failed=1),),
    base_checks=(_check(BASE_TREE, 0, _TWO_GREEN, 0.702, passed=2),),
    comparison=f.Comparison(
        newly_failing=f.NamedTests(count=1, names=("tests.test_table::test_row",)),
        newly_passing=f.NamedTests(count=1, names=("tests.test_durations::test_one_hour",)),
    ),
)
MENDS = _turn(
    5,
    _usage(3, 247, 955, 4610),
    5324,
    5.21,
    _says("The table's test pins the old text; the people on the issue want `1 h` there too."),
    _use(
        8,
        EDITOR,
        command="str_replace",
        path="/workspace/tests/test_table.py",
        old_str="in 60 min",
        new_str="in 1 h",
    ),
    _use(9, BASH, command=TEST),
)
MENDED = f.ToolsRan(
    turn=5,
    results=(
        _ran(8, EDITOR, _EDITED.format("/workspace/tests/test_table.py"), 0.005),
        _ran(9, BASH, _THREE_GREEN, 0.407, 0),
    ),
    checkpoint=_SECOND,
)
SUBMITS_AGAIN = _turn(
    6,
    _usage(3, 188, 402, 5565),
    3448,
    4.02,
    _use(
        10, "submit", title=_TITLE, summary=_SUMMARY, verified=["all tests pass", "`humanise(3590)` is `1 h`"]
    ),
)
SUBMITTED_AGAIN_TOOLS = f.ToolsRan(turn=6, results=(), checkpoint=_SECOND)
PROPOSED_AGAIN = f.SolutionProposed(
    turn=6,
    attempt=2,
    last=False,
    title=_TITLE,
    summary=_SUMMARY,
    claims=("all tests pass", "`humanise(3590)` is `1 h`"),
    change=_SECOND,
)
PASSED = f.VerificationFinished(
    attempt=2,
    verdict="passed",
    change=_SECOND,
    files=_FILES,
    checks=(_check(SECOND_TREE, 0, _THREE_GREEN, 0.718, passed=3),),
    base_checks=(_check(BASE_TREE, 0, _TWO_GREEN, 0.702, passed=2),),
    comparison=f.Comparison(
        newly_passing=f.NamedTests(count=1, names=("tests.test_durations::test_one_hour",))
    ),
)
PUBLISHED = f.CommitPublished(branch="millrace/issue-42", commit=COMMIT, tree=SECOND_TREE)
PULL_REQUEST = f.PullRequestOpened(
    number=43,
    url="https://github.com/lighthouse/tidetable/pull/43",
    branch=PUBLISHED.branch,
    commit=COMMIT,
    draft=True,
)
FINISHED = f.RunFinished(outcome="pull_request", comment_url=POSTED.url, pull_request_url=PULL_REQUEST.url)

CANCELLED = f.RunCancelled(by=MARA, why="the issue was closed")

_QUIET = 5123.0
"""Seconds until somebody answered the question; the run cost nothing meanwhile."""

STORY: tuple[Said, ...] = (
    Said(at=0.318, by=GATEWAY, fact=REQUESTED, because=DELIVERY),
    Said(at=0.941, by=PUBLISHER, fact=POSTED, because=REQUESTED),
    Said(at=1.702, by=RUNNER, fact=READY, because=REQUESTED),
    Said(at=6.521, by=AGENT, fact=READS, because=READY),
    Said(at=6.97, by=AGENT, fact=READ, because=READY),
    Said(at=10.953, by=AGENT, fact=ASKS, because=READY, name="asks"),
    Said(at=41.02, by=AGENT, fact=LOST, because=READY),
    Said(at=42.377, by=RUNNER, fact=READY_AGAIN, because=LOST, name="again"),
    Said(at=42.409, by=AGENT, fact=ASKED_TOOLS, because=READY_AGAIN, name="asks"),
    Said(at=42.416, by=AGENT, fact=ASKED, because=READY_AGAIN),
    Said(at=_QUIET, by=GATEWAY, fact=ANSWERED, because=LATER_DELIVERY),
    Said(at=_QUIET + 1.288, by=RUNNER, fact=READY_TO_GO_ON, because=ANSWERED, name="to-go-on"),
    Said(at=_QUIET + 8.6, by=AGENT, fact=EDITS, because=READY_TO_GO_ON, name="edits"),
    Said(at=_QUIET + 9.03, by=AGENT, fact=EDITED, because=READY_TO_GO_ON, name="edits"),
    Said(at=_QUIET + 13.2, by=AGENT, fact=SUBMITS, because=READY_TO_GO_ON, name="submits"),
    Said(at=_QUIET + 13.232, by=AGENT, fact=SUBMITTED_TOOLS, because=READY_TO_GO_ON, name="submits"),
    Said(at=_QUIET + 13.24, by=AGENT, fact=PROPOSED, because=READY_TO_GO_ON),
    Said(at=_QUIET + 15.913, by=RUNNER, fact=FAILED, because=PROPOSED),
    Said(at=_QUIET + 21.13, by=AGENT, fact=MENDS, because=FAILED, name="mends"),
    Said(at=_QUIET + 21.57, by=AGENT, fact=MENDED, because=FAILED, name="mends"),
    Said(at=_QUIET + 25.604, by=AGENT, fact=SUBMITS_AGAIN, because=FAILED, name="submits-again"),
    Said(at=_QUIET + 25.63, by=AGENT, fact=SUBMITTED_AGAIN_TOOLS, because=FAILED, name="submits-again"),
    Said(at=_QUIET + 25.638, by=AGENT, fact=PROPOSED_AGAIN, because=FAILED, name="again"),
    Said(at=_QUIET + 27.444, by=RUNNER, fact=PASSED, because=PROPOSED_AGAIN, name="passed"),
    Said(at=_QUIET + 29.871, by=PUBLISHER, fact=PUBLISHED, because=PASSED),
    Said(at=_QUIET + 31.06, by=PUBLISHER, fact=PULL_REQUEST, because=PASSED),
    Said(at=_QUIET + 32.155, by=PUBLISHER, fact=FINISHED, because=PASSED),
)
"""The run as the log holds it."""

OTHERWISE: tuple[Said, ...] = (
    Said(
        at=11.2,
        by=AGENT,
        because=READY,
        fact=f.AnswerGiven(
            turn=2, text="`humanise` rounds after choosing the unit; that is why 59.7 s is printed as `60 s`."
        ),
    ),
    Said(
        at=_QUIET + 26.1,
        by=RUNNER,
        because=PROPOSED_AGAIN,
        name="refused",
        fact=f.VerificationFinished(
            attempt=2,
            verdict="refused",
            change=_SECOND,
            reason="it touches protected files: .github/workflows/test.yml",
        ),
    ),
    Said(
        at=_QUIET + 27.4,
        by=RUNNER,
        because=PROPOSED_AGAIN,
        fact=f.VerificationFinishedV1(
            attempt=2,
            passed=True,
            command=TEST,
            exit_code=0,
            tree=SECOND_TREE,
            change=_SECOND,
            output=_THREE_GREEN,
            seconds=0.718,
        ),
    ),
    Said(
        at=12.0,
        by=AGENT,
        because=READY,
        fact=f.RunFailed(
            stage="agent",
            kind="budget_cost",
            why="The work ended at a limit without a change: $0.02.",
        ),
    ),
    Said(at=30.5, by=GATEWAY, because=LATER_DELIVERY, fact=CANCELLED),
    Said(
        at=31.6,
        by=PUBLISHER,
        because=CANCELLED,
        name="cancelled",
        fact=f.RunFinished(outcome="cancelled", why="the issue was closed", comment_url=POSTED.url),
    ),
)
"""Ways this run did not go, and a form that facts no longer have."""


def envelope_of(said: Said) -> Envelope:
    """The attributes that the fact has in the log."""
    because = said.because
    return Envelope(
        id=_id(said.fact),
        key=KEY,
        source=f"/millrace/{said.by}",
        time=OPENED + timedelta(seconds=said.at),
        cause=because if isinstance(because, str) else _id(because),
    )


def _id(fact: f.Fact) -> str:
    return derive_id(KEY.run, kind_of(fact), identity_of(fact))


def recorded() -> Iterator[Recorded]:
    """The story as a reader of the log gets it, sequences from 1."""
    for sequence, said in enumerate(STORY, start=1):
        yield Recorded(sequence=sequence, envelope=envelope_of(said), fact=upcast(said.fact))
