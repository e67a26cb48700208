"""An issue's events as a timeline for the terminal: one short entry per event, readable in 80 columns."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

_COLOURS = {
    "gateway": "cyan",
    "sandbox_runner": "magenta",
    "agent": "yellow",
    "publisher": "green",
}
_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
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
    source = event["source"].rpartition("/")[2]
    kind = event["type"].removeprefix("dev.millrace.").rpartition(".v")[0]
    head = Text()
    head.append(f"{_offset(event, start):>8} ", style="dim")
    head.append(f"{source:<15}", style=_COLOURS.get(source, "blue"))
    lines = list(_describe(kind, event["data"]))
    head.append_text(lines[0] if lines else Text(kind))
    return Group(head, *(Padding(line, (0, 0, 0, 24)) for line in lines[1:]))


def _offset(event: dict[str, Any], start: datetime | None) -> str:
    time = datetime.fromisoformat(event["time"])
    return f"+{(time - start).total_seconds():.2f}s" if start else time.strftime("%H:%M:%S")


def _describe(kind: str, data: dict[str, Any]) -> Iterator[Text]:  # noqa: C901  one case per kind of fact
    match kind:
        case "run.requested":
            issue, trigger = data["issue"], data["trigger"]
            yield Text(f"#{issue['number']} {clean(issue['title'])}", style="bold")
            yield Text(f"{trigger['kind']} by {clean(trigger['actor']['login'])}", style="dim")
        case "progress.posted":
            yield Text("says on the issue that work has begun")
        case "sandbox.ready":
            yield Text(f"sandbox {data['generation']} ready at {data['base'][:10]}")
            yield Text(clean(data.get("about", "")), style="dim")
        case "turn.taken":
            yield from _turn(data)
        case "tools.ran":
            yield from _results(data)
        case "sandbox.lost":
            yield Text(f"sandbox {data['generation']} lost: {clean(data['why'])}", style="yellow")
        case "question.asked":
            yield Text("asks: " + clean(data["question"]), style="bold yellow")
        case "question.answered":
            yield Text(f"{clean(data['by']['login'])} answers: {clean(data['answer'])}")
        case "answer.given":
            yield Text(clean(data["text"]))
        case "solution.proposed":
            yield Text(f"proposes: {clean(data['title'])}", style="bold")
            yield Text(f"{data['change']['files']} files, tree {data['change']['tree'][:10]}", style="dim")
        case "verification.finished":
            yield from _verification(data)
        case "commit.published":
            yield Text(f"commit {data['commit'][:10]} on {data['branch']}")
        case "pull_request.opened":
            yield Text(f"pull request {data['number']}: {data['url']}", style="bold green")
        case "run.failed":
            yield Text(f"failed ({data['kind']}): {clean(data['why'])}", style="bold red")
        case "run.cancelled":
            yield Text(f"cancelled by {clean(data['by']['login'])}: {clean(data['why'])}", style="yellow")
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
            yield Text(clean(block["text"]).strip())
        elif block["type"] == "tool_use":
            yield Text(_use(block), style="bold")


def _use(block: dict[str, Any]) -> str:
    given = block.get("input") or {}
    match block["name"]:
        case "bash":
            return "$ " + clean(given.get("command", "(restart)"))
        case "str_replace_based_edit_tool":
            return f"{clean(given.get('command'))} {clean(given.get('path'))}"
        case name:
            return f"[{clean(name)}]"


def _results(data: dict[str, Any]) -> Iterator[Text]:
    results = data["results"]
    seconds = sum(result["seconds"] for result in results)
    yield Text(
        f"{len(results)} calls in {seconds:.2f} s, tree {data['checkpoint']['tree'][:10]}", style="dim"
    )
    for result in results:
        failed = result["is_error"] or result.get("exit_code") not in (None, 0)
        for line in _short(result["content"]):
            yield Text(line, style="red" if failed else "dim")


def _verification(data: dict[str, Any]) -> Iterator[Text]:
    good = data["verdict"] in ("passed", "untested", "unchanged")
    yield Text(
        f"verified: {data['verdict']} {clean(data.get('reason', ''))}", style="green" if good else "red"
    )
    for check in data["checks"]:
        end = "timed out" if check["exit_code"] is None else f"exit {check['exit_code']}"
        yield Text(f"$ {clean(check['command'])}  ({end}, {check['seconds']:.1f} s)", style="bold")
        for line in _short(check["output"], last=True):
            yield Text(line, style="dim")


def _short(text: str, *, last: bool = False) -> list[str]:
    lines = [line for line in clean(text).splitlines() if line.strip()]
    if len(lines) <= _LINES:
        return lines
    more = f"… {len(lines) - _LINES} more lines"
    return [more, *lines[-_LINES:]] if last else [*lines[:_LINES], more]
