"""``millrace doctor``: what this machine has, what it lacks, and how to mend it."""

import asyncio

import typer
from rich.console import Console
from rich.table import Table

from services.kit.embedded import find_nats_server
from services.kit.errors import Misconfigured
from services.kit.settings import load
from services.sandbox_runner.checks import Finding, check_machine


def doctor() -> None:
    """Print the findings; exit code 1 when something that is needed is missing."""
    findings = _own()
    if all(finding.ok for finding in findings):
        settings = load()
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        findings += asyncio.run(check_machine(settings.home.absolute(), settings.sandbox_runtime))
    table = Table(title="This machine", title_justify="left", show_lines=False, expand=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]missing[/]"
        table.add_row(mark, finding.name, finding.detail, "" if finding.ok else finding.fix)
    Console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _own() -> list[Finding]:
    findings = []
    try:
        load()
        findings.append(Finding(name="settings", ok=True, detail="understood", fix=""))
    except Misconfigured as error:
        findings.append(Finding(name="settings", ok=False, detail=str(error), fix="correct these variables"))
    try:
        findings.append(Finding(name="nats-server", ok=True, detail=find_nats_server(), fix=""))
    except Misconfigured as error:
        findings.append(Finding(name="nats-server", ok=False, detail="not found", fix=str(error)))
    return findings
