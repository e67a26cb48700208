"""The acts of the demo, one after the other."""

import asyncio
import contextlib
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from services.cli import demo_repository as example
from services.cli import demo_stage, demo_view
from services.cli.demo_check import problems, test_again, the_pull_request
from services.cli.demo_stage import Opened, Stage
from services.cli.demo_times import spans
from services.cli.timeline import render
from services.kit.embedded import READER, READER_INBOX
from services.kit.errors import Later

SECONDS = 120.0
"""How long a played session may take; the real model has its run's own budget, and this beyond it."""

_NEXT = (
    (".venv/bin/millrace demo --keep", "the same, left running to look around in"),
    ("docs/architecture.md", "the path that you just saw, as a diagram"),
    ("docs/events.md", "every event of it, field by field"),
    ("make up", "for repositories of your own; README.md says how"),
)

T = TypeVar("T")


async def play(console: Console, home: Path, *, live: bool, keep: bool) -> bool:
    """Everything, from an empty directory to the verdict: whether the demo kept what Millrace promises."""
    async with AsyncExitStack() as stack:
        made = demo_stage.github()
        what = f"GitHub with {example.FULL_NAME}: {example.FILES} files, {len(example.HISTORY)} commits"
        github, repo, maintainer = await _entered(console, stack, made, what)
        world = demo_stage.millrace(home, github, repo, maintainer, live=live)
        stage = await _entered(console, stack, world, "Millrace, all services, with credentials in its vault")
        opened, events = await _watch(console, stage, live=live)
        good = await _judge(console, stage, opened, events)
        if keep:
            console.print(demo_view.heading("Everything stays up until Ctrl-C"))
            console.print(demo_view.commands(_kept(stage, opened)), soft_wrap=True)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    return good


async def _entered(
    console: Console, stack: AsyncExitStack, part: AbstractAsyncContextManager[T], what: str
) -> T:
    began = time.monotonic()
    with console.status(f"{what} …"):
        value = await stack.enter_async_context(part)
    console.print(demo_view.done(what, time.monotonic() - began))
    return value


async def _watch(console: Console, stage: Stage, *, live: bool) -> tuple[Opened, list[dict[str, Any]]]:
    """From the issue to the run's end, shown as it happens."""
    settings = stage.settings
    seconds = SECONDS + (settings.max_minutes * 60 if live else 0)
    opened = await stage.open_issue()
    console.print(demo_view.heading(f"An issue is opened at {stage.repo.full_name}"))
    report = example.REPORT
    console.print(
        demo_view.issue(opened.issue.number, report.title, report.body, stage.maintainer.login),
    )
    console.print(demo_view.heading("What happens"))
    offset = (opened.accepted - opened.sent).total_seconds()
    console.print(demo_view.moment(offset, "github", "the signed webhook was answered with 202"))
    events: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(seconds), contextlib.aclosing(stage.events(opened.issue)) as coming:
            with console.status("asking GitHub who opened it") as status:
                async for event in coming:
                    events.append(event)
                    console.print(render(event, opened.sent))
                    status.update(demo_view.doing(event))
                    if event["type"].startswith("dev.millrace.run.finished."):
                        break
    except TimeoutError:
        raise Later(f"the run did not end within {seconds:.0f} s") from None
    return opened, events


async def _judge(console: Console, stage: Stage, opened: Opened, events: list[dict[str, Any]]) -> bool:
    """The result, and whether it is what it says it is."""
    pull = the_pull_request(stage)
    url = f"{stage.github.url}/{stage.repo.full_name}/pull/{pull.number}"
    console.print(demo_view.heading(f"Draft pull request #{pull.number}"))
    console.print(demo_view.pull_request(pull.title, pull.body or "", url))
    console.print(demo_view.heading("Its diff"))
    changed = stage.repo.git.run("diff", pull.base_sha, pull.head_sha).decode(errors="replace")
    console.print(demo_view.diff(changed))
    console.print(demo_view.heading("Is it true?"))
    with console.status("running the tests on both branches, cloned anew into fresh sandboxes"):
        before, after = await test_again(stage, (pull.base, pull.head))
    found = problems(stage, pull, before, after, events)
    console.print(demo_view.tested((before, after), example.TEST_COMMAND))
    if not found:
        console.print(demo_view.done("the pull request's tree is exactly the one that Millrace verified"))
        console.print(demo_view.done("every request kept to GitHub's and Anthropic's descriptions"))
    for why in found:
        console.print(demo_view.wrong(why))
    console.print(demo_view.heading("Where the time went"))
    console.print(demo_view.times(spans(opened.sent, opened.accepted, events)))
    console.print(demo_view.heading("Where to look next"))
    console.print(demo_view.places(_NEXT))
    return not found


def _kept(stage: Stage, opened: Opened) -> list[tuple[str, str]]:
    settings = stage.settings
    home, url = settings.home.absolute(), f"http://{settings.listen}"
    name = f"{stage.repo.full_name}#{opened.issue.number}"
    path = f"/api/issues/{stage.repo.full_name}/{opened.issue.number}/events"
    nats = f"nats://{READER}:$(cat {home}/nats/{READER}.password)@{stage.nats_address}"
    here = f"MILLRACE_HOME={home} MILLRACE_LISTEN={settings.listen}"
    return [
        (f"{here} .venv/bin/millrace history '{name}'", "the timeline once more, from the archive"),
        (f'curl -s -H "Authorization: Bearer $(cat {home}/admin-token)" {url}{path}', "the same as JSON"),
        (f"nats -s {nats} --inbox-prefix {READER_INBOX} stream view ISSUES", "the same with NATS' own tool"),
        (f"{stage.github.url}/{stage.repo.full_name}/pull/{opened.issue.number + 1}", "the pull request"),
    ]
