"""Two runs of two Apps' installations, on issues with the same number, at the same time."""

import asyncio
import json

from contracts import facts as f
from tests.doubles.github.state import Issue
from tests.doubles.model.script import Script, first_user_text
from tests.doubles.model.sessions import fix_bug
from tests.e2e.harness import END_TO_END, Project, Scene, only

pytestmark = END_TO_END


def _signed(name: str) -> Script:
    """A fix that leaves a name in the code and in all that is said about it."""
    return fix_bug(
        path="calc.py",
        old="return a - b",
        new=f"return a + b  # {name} was here",
        test_command="python -m pytest -q",
        title=f"Add, says {name}",
        summary=f"{name} found that `add` subtracted.",
    )


async def test_they_do_not_mix(scene: Scene) -> None:
    github = scene.github
    second = github.create_app(2002, slug="millrace-two", webhook_url=scene.app.webhook_url)
    await scene.configure(second)
    projects = {"acme": scene.project("acme/calc"), "globex": scene.project("globex/calc", app=second)}

    async def work(name: str, project: Project) -> Issue:
        scene.play(_signed(name), at=project)
        body = f"{name} wants 3."
        issue = await github.open_issue(project.repo, "add() subtracts", body, by=project.maintainer)
        await scene.finished(issue)
        return issue

    issues = await asyncio.gather(*(work(name, project) for name, project in projects.items()))
    assert {issue.number for issue in issues} == {1}

    for (name, project), issue in zip(projects.items(), issues, strict=True):
        (stranger,) = projects.keys() - {name}
        run = await scene.finished(issue)
        assert only(run, f.RunRequested).installation_id == project.installation.id
        (pull,) = github.pull_requests(project.repo)
        assert github.file_at(project.repo, pull.head, "calc.py") == (
            f"def add(a, b):\n    return a + b  # {name} was here\n".encode()
        )
        (comment,) = github.comments(issue)
        assert comment.app is project.app
        for text in (pull.title, pull.body or "", comment.body, *map(repr, run)):
            assert stranger not in text
        for request in scene.claude.requests:
            if project.repo.full_name in first_user_text(request):
                assert stranger not in json.dumps(request)
        asked = [one for one in github.exchanges if f"/{project.repo.full_name}" in one.path]
        assert {one.who for one in asked} == {f"installation:{project.installation.id}"}
