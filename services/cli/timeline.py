"""An issue's events as a timeline for the terminal: one short entry per event, readable in 80 columns."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from contracts.codec import TYPE_PREFIX, decode_fact
from contracts.subjects import kind_of

_COLOURS = {
    "gateway": "cyan",
    "sandbox_runner": "magenta",
    "agent": "yellow",
    "publisher": "green",
}
_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    r"|[\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_LINES = 6


def clean(text: Any) -> str:
    """A stranger's text without anything that a terminal would obey."""
    return _CONTROL.sub("", str(text).replace("\r\n", "\n"))


def render(event: dict[str, Any], start: datetime | None = None) -> RenderableType:
    """One event.

    Args:
        event: as the history gives it (``sequence``, ``type``, ``time``, ``source``, ``data``).
        start: when the run began; offsets count from there.
    """
    source = clean(event["source"]).rpartition("/")[2]
    return entry(_offset(event, start), source, *_lines(event))


def entry(offset: str, source: str, *lines: Text) -> RenderableType:
    """When, who, and beside it what: lines that wrap keep to their column."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=8, justify="right", style="dim")
    grid.add_column(width=14, style=_COLOURS.get(source, "blue"))
    grid.add_column(overflow="fold")
    for number, line in enumerate(lines or (Text(""),)):
        grid.add_row(*(("", "") if number else (offset, source)), line)
    return grid


def _offset(event: dict[str, Any], start: datetime | None) -> str:
    """Seconds at first, then a clock, then days: at most 8 characters."""
    time = datetime.fromisoformat(event["time"])
    if start is None:
        return time.strftime("%H:%M:%S")
    since = (time - start).total_seconds()
    if since < 100:
        return f"+{since:.2f}s"
    minutes, seconds = divmod(int(since), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 10:
        return f"+{hours // 24}d {hours % 24}h"
    return f"+{hours}:{minutes:02}:{seconds:02}"


def _lines(event: dict[str, Any]) -> list[Text]:
    """What is said of the fact in its current version; of one that a newer Millrace wrote, its kind."""
    try:
        fact = decode_fact(msgspec.json.encode(event["data"]))
    except msgspec.DecodeError:
        return [Text(clean(event["type"].removeprefix(TYPE_PREFIX)))]
    return list(_describe(kind_of(fact), _cleaned(msgspec.to_builtins(fact))))


def _cleaned(data: Any) -> Any:
    """The same data with every text clean."""
    match data:
        case str():
            return clean(data)
        case dict():
            return {key: _cleaned(value) for key, value in data.items()}
        case list() | tuple():
            return [_cleaned(value) for value in data]
        case _:
            return data


def _describe(kind: str, data: dict[str, Any]) -> Iterator[Text]:  # noqa: C901  one case per kind of fact
    match kind:
        case "run.requested":
            issue, trigger = data["issue"], data["trigger"]
            yield Text(f"#{issue['number']} {issue['title']}", style="bold")
            yield Text(f"{trigger['kind']} by {trigger['actor']['login']}", style="dim")
        case "progress.posted":
            yield Text("says on the issue that work has begun")
        case "sandbox.ready":
            yield Text(f"sandbox {data['generation']} ready at {data['base'][:10]}")
            if data.get("about"):
                yield Text(data["about"], style="dim")
        case "turn.taken":
            yield from _turn(data)
        case "tools.ran":
            yield from _results(data)
        case "sandbox.lost":
            yield Text(f"sandbox {data['generation']} lost: {data['why']}", style="yellow")
        case "question.asked":
            yield Text("asks: " + data["question"], style="bold yellow")
        case "question.answered":
            yield Text(f"{data['by']['login']} answers: {data['answer']}")
        case "answer.given":
            yield Text(data["text"])
        case "solution.proposed":
            yield Text(f"proposes: {data['title']}", style="bold")
            yield Text(f"{_many(data['change']['files'], 'file')}, {_tree(data['change'])}", style="dim")
        case "verification.finished":
            yield from _verification(data)
        case "commit.published":
            yield Text(f"commit {data['commit'][:10]} on {data['branch']}")
        case "pull_request.opened":
            yield Text(f"pull request {data['number']}", style="bold green")
            yield Text(data["url"], style="green")
        case "run.failed":
            yield Text(f"failed ({data['kind']}): {data['why']}", style="bold red")
        case "run.cancelled":
            yield Text(f"cancelled by {data['by']['login']}: {data['why']}", style="yellow")
        case "run.finished":
            yield Text(f"finished: {data['outcome'].replace('_', ' ')}", style="bold")
        case _:
            yield Text(kind)


def _turn(data: dict[str, Any]) -> Iterator[Text]:
    usage = data["usage"]
    read = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    cached = round(100 * usage["cache_read_input_tokens"] / read) if read else 0
    yield Text(
        f"turn {data['turn']}  {read:,} in ({cached} % cached), {usage['output_tokens']:,} out, "
        f"${data['cost'] / 1_000_000:.4f}",
        style="dim",
    )
    for block in data["content"]:
        if block["type"] == "text":
            yield Text(block["text"].strip())
        elif block["type"] == "tool_use":
            yield Text(_use(block), style="bold")


def _use(block: dict[str, Any]) -> str:
    given = block.get("input") or {}
    match block["name"]:
        case "bash":
            return f"$ {given.get('command', '(restart)')}"
        case "str_replace_based_edit_tool":
            verb = {"view": "reads", "create": "writes"}.get(str(given.get("command")), "edits")
            return f"{verb} {given.get('path')}"
        case "Read" | "Edit" | "Write" as name:
            verb = {"Read": "reads", "Edit": "edits", "Write": "writes"}[name]
            return f"{verb} {clean(given.get('file_path'))}"
        case "submit":
            return "hands its change in"
        case name:
            return f"calls {name}"


def _results(data: dict[str, Any]) -> Iterator[Text]:
    results = data["results"]
    if not results:
        yield Text(_tree(data["checkpoint"]), style="dim")
        return
    seconds = sum(result["seconds"] for result in results)
    calls = _many(len(results), "tool call")
    yield Text(f"{calls} in {seconds:.2f} s, {_tree(data['checkpoint'])}", style="dim")
    for result in results:
        failed = result["is_error"] or result.get("exit_code") not in (None, 0)
        if result["name"] in ("bash", "Bash") or failed:
            yield from _output(result["content"], "red" if failed else "dim")


def _verification(data: dict[str, Any]) -> Iterator[Text]:
    good = data["verdict"] in ("passed", "untested", "unchanged")
    reason = f" ({data['reason']})" if data["reason"] else ""
    yield Text(f"verified: {data['verdict']}{reason}", style="green" if good else "red")
    for check in data["checks"]:
        end = "timed out" if check["exit_code"] is None else f"exit {check['exit_code']}"
        yield Text(f"$ {check['command']}  ({end}, {check['seconds']:.1f} s)", style="bold")
        yield from _output(check["output"], "dim")


def _output(text: str, style: str) -> Iterator[Text]:
    """The end of a command's output: there stands how it went. Long lines are cut at the edge."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > _LINES:
        yield Text(f"… {len(lines) - _LINES} lines before", style=style)
    for line in lines[-_LINES:]:
        yield Text(line.expandtabs(), style=style, no_wrap=True, overflow="ellipsis")


def _tree(change: dict[str, Any]) -> str:
    return f"tree {change['tree'][:10]}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
