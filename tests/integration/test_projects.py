"""Two real projects, one Python and one Node, set up through the proxy and tested offline as outside.

All five: ``python -m tests.projects``.
"""

from pathlib import Path

import pytest

from tests.integration.setup_kit import yard
from tests.projects.fetch import Real, npm, sdist
from tests.projects.run import run

SAMPLE = (
    Real("itsdangerous", "Python", sdist("itsdangerous")),
    Real("side-channel", "Node", npm("side-channel"), '[test]\ncommand = "npm run --silent tests-only"\n'),
)


@pytest.mark.timeout(600)
async def test_real_projects_give_the_same_results_in_the_sandbox_as_outside(tmp_path: Path) -> None:
    async with yard(tmp_path / "yard") as made:
        for project in SAMPLE:
            seen = await run(made, project, tmp_path / project.name)
            assert seen.ground.setup is not None
            assert seen.ground.setup.ok, seen.ground.setup.output
            assert seen.inside.exit_code == 0, seen.inside.output
            assert seen.inside.counts.passed > 5
            assert seen.same
