"""What the demo shows, readable in 80 columns."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from services.cli.demo_times import TOTAL, Span
from services.cli.timeline import clean, entry

WIDEST = 100
"""Columns: longer lines are hard to read, however wide the terminal."""
_BAR = 30


class Tested(NamedTuple):
    """The tests' end on a branch that was cloned anew: its tree, their exit code, their last line."""

    branch: str
    tree: str
    exit_code: int | None
    said: str


def console() -> Console:
    """Where the demo is shown: the terminal, or plain text."""
    found = Console(highlight=False, theme=Theme({"markdown.code": "cyan"}))
    found.width = min(found.width, WIDEST)
    return found


def intro(*, live: bool) -> RenderableType:
    """What this is, and what of it is real."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold")
    rows.add_column()
    real = "gateway, vault, sandbox runner, agent, publisher, history; NATS JetStream, Podman, git, SQLite"
    rows.add_row("real", real + ("; Claude" if live else ""))
    rows.add_row("played", "GitHub (over HTTP, with real git)" + ("" if live else "; Claude (a script)"))
    words = Text("An issue becomes a pull request, on this machine, step by step.\n")
    return Panel(Group(words, rows), title="Millrace", title_align="left", border_style="cyan")


def heading(words: str) -> RenderableType:
    """Before each part."""
    return Padding(Rule(Text(words, style="bold"), align="left", style="cyan"), (1, 0, 0, 0))


def done(words: str, seconds: float | None = None) -> Text:
    """Something that worked."""
    line = Text.assemble(("✓ ", "green"), words)
    return line if seconds is None else line.append(f"  {seconds:.1f} s", style="dim")


def wrong(words: str) -> Text:
    """Something that did not."""
    return Text.assemble(("✗ ", "bold red"), clean(words))


def issue(number: int, title: str, body: str, author: str) -> RenderableType:
    """What somebody reported."""
    head = Text.assemble((clean(title), "bold"), (f"  #{number} by {clean(author)}", "dim"))
    return Group(head, Padding(Markdown(clean(body)), (1, 0, 0, 0)))


def moment(offset: float, source: str, words: str) -> RenderableType:
    """A line of the timeline that is no event of ours."""
    return entry(f"+{offset:.2f}s", source, Text(words))


def doing(event: dict[str, Any]) -> str:
    """What happens after an event, for the spinner."""
    match event["type"].removeprefix("dev.millrace.").rpartition(".v")[0]:
        case "run.requested" | "progress.posted":
            return "cloning and starting a sandbox"
        case "sandbox.ready" | "tools.ran":
            return "Claude thinks"
        case "turn.taken":
            return "the sandbox works"
        case "solution.proposed":
            return "verifying the change in a fresh sandbox"
        case "verification.finished":
            return "publishing (GitHub allows one write a second)"
        case "commit.published":
            return "opening the pull request"
    return "writing the last comment"


def pull_request(title: str, body: str, url: str) -> RenderableType:
    """The description as a terminal can show it."""
    head = Group(Text(clean(title), style="bold"), Text(url, style="dim"))
    return Group(head, Padding(Markdown(_plain(clean(body)), code_theme="ansi_dark"), (1, 0, 0, 0)))


def _plain(body: str) -> str:
    """GitHub's Markdown without the bits of HTML that a terminal cannot show."""
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<details>\s*<summary>(.*?)</summary>", r"**\1**\n", body)
    body = re.sub(r"</?details>", "\n", body)
    return re.sub(r"<sub>(.*?)</sub>", r"*\1*", body)


def diff(text: str) -> RenderableType:
    """A change, coloured."""
    return Syntax(
        clean(text).rstrip("\n"), "diff", theme="ansi_dark", background_color="default", word_wrap=True
    )


def tested(found: Sequence[Tested], command: str) -> RenderableType:
    """How the tests ended, branch by branch."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("branch", "tree", command):
        table.add_column(column)
    for one in found:
        end = "timed out" if one.exit_code is None else f"exit code {one.exit_code}"
        style = "green" if one.exit_code == 0 else "red"
        table.add_row(one.branch, one.tree[:10], Text(f"{end}: {clean(one.said)}", style))
    return table


def times(found: Sequence[Span]) -> RenderableType:
    """Each step with its place on the way."""
    length = max(span.end for span in found)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column(f"0 s{length:>{_BAR - 5}.1f} s", style="cyan", no_wrap=True)
    for span in found:
        style = "bold" if span.name == TOTAL else ""
        table.add_row(Text(span.name, style), Text(f"{span.end - span.start:.2f}", style), _bar(span, length))
    return table


def _bar(span: Span, length: float) -> Text:
    start = min(int(span.start / length * _BAR), _BAR - 1)
    end = max(round(span.end / length * _BAR), start + 1)
    return Text(" " * start + "━" * (end - start))


def places(rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Where something is to be found, and what; both short."""
    grid = Table.grid(padding=(0, 2))
    for place, what in rows:
        grid.add_row(Text(place, "bold"), Text(what, "dim"))
    return grid


def commands(rows: Sequence[tuple[str, str]]) -> RenderableType:
    """What to type, and what it shows. One below the other: both may be long."""
    return Group(*(Text.assemble((what, "dim"), "\n  ", (command, "bold")) for command, what in rows))
