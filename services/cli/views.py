"""``millrace issues`` and ``millrace history``."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.api import Api
from services.cli.timeline import clean, render
from services.kit.errors import Refused

_ISSUE = re.compile(r"([A-Za-z0-9_.-]+)/([A-Za-z0-9_.-]+)#(\d{1,18})")


def issues(limit: int) -> None:
    """A table of the newest runs."""
    rows = Api().request("GET", f"/api/issues?limit={limit}")
    console = Console()
    if not rows:
        console.print("No run yet: open an issue, or see the README.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("issue", "state", "title", "updated", "pull request"):
        table.add_column(column, overflow="fold")
    for row in rows:
        state = row.get("outcome") or row["state"]
        table.add_row(
            f"{row['full_name']}#{row['number']}",
            Text(clean(state).replace("_", " ")),
            Text(clean(row["title"])),
            _ago(row["updated_at"]),
            clean(row["pull_request_url"]),
        )
    console.print(table)


def history(issue: str, *, as_json: bool, follow: bool) -> None:
    """Everything about one issue; with ``follow``, until Ctrl-C."""
    match = _ISSUE.fullmatch(issue)
    if match is None:
        raise Refused(f"{issue!r} names no issue: write OWNER/REPO#NUMBER (quote the #)")
    api, path = Api(), f"/api/issues/{match[1]}/{match[2]}/{match[3]}/events"
    console = Console()
    events = api.events(path) if follow else iter(api.request("GET", path)["events"])
    start: datetime | None = None
    try:
        for event in events:
            if as_json:
                print(msgspec.json.encode(event).decode(), flush=True)  # noqa: T201  for other programs
                continue
            start = _show(console, event, start)
    except KeyboardInterrupt:
        return


def _show(console: Console, event: dict[str, Any], start: datetime | None) -> datetime:
    if start is None or event["type"].startswith("dev.millrace.run.requested."):
        start = datetime.fromisoformat(event["time"])
        console.rule(Text(f"run {event['run']}  {start:%Y-%m-%d %H:%M:%S} UTC", style="dim"))
    console.print(render(event, start))
    return start


def _ago(time: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
