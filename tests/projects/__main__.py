"""``python -m tests.projects [NAME …]``: the table, one real project a line. It takes some minutes."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.integration.setup_kit import yard
from tests.projects.fetch import PROJECTS
from tests.projects.run import Result, Seen, run

_HEAD = ("project", "kind", "set up", "MB", "offline, hardened", "outside", "same")


def _line(result: Result) -> tuple[str, ...]:
    setup = result.ground.setup
    took = "nothing" if setup is None else f"{setup.seconds:.1f} s" if setup.ok else "FAILED"
    size = "" if setup is None else f"{setup.size / 1e6:.0f}"
    same = "yes" if result.same else "NO"
    project = result.project
    return (project.name, project.kind, took, size, _told(result.inside), _told(result.outside), same)


def _told(seen: Seen) -> str:
    counts = seen.counts
    numbers = f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped"
    return f"exit {seen.exit_code}, {numbers if seen.tests else 'no report'}, {seen.seconds:.1f} s"


def _differences(result: Result) -> list[str]:
    inside, outside = result.inside.tests, result.outside.tests
    names = sorted(name for name in inside.keys() | outside.keys() if inside.get(name) != outside.get(name))
    return [f"  {name}: {inside.get(name)} inside, {outside.get(name)} outside" for name in names[:20]]


async def main(names: list[str]) -> int:
    """Print the table; 0 if all results are the same."""
    lines: list[tuple[str, ...]] = [_HEAD]
    alike = True
    with tempfile.TemporaryDirectory(prefix="millrace-projects-") as place:
        async with yard(Path(place)) as made:
            for project in PROJECTS:
                if names and project.name not in names:
                    continue
                result = await run(made, project, Path(place, project.name))
                alike = alike and result.same
                lines.append(_line(result))
                print(" | ".join(lines[-1]), flush=True)
                setup = result.ground.setup
                if setup is not None and not setup.ok:
                    print(setup.output[-3000:])
                if not result.same:
                    print("\n".join(_differences(result)) or result.inside.output[-2000:], flush=True)
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
