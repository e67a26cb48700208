"""The web pages a person would open: a pull request, an issue. Plain HTML."""

from html import escape

from tests.doubles.github.http import Answer
from tests.doubles.github.repository import FileChange
from tests.doubles.github.state import Issue, Repository


def _page(title: str, inside: str) -> Answer:
    head = f"<meta charset=utf-8><title>{escape(title)}</title>"
    text = f"<!doctype html><html lang=en>{head}<body>{inside}</body></html>"
    return Answer(200, text.encode(), {"content-type": "text/html; charset=utf-8"})


def _files(changed: list[FileChange]) -> str:
    rows = "".join(f"<li>{escape(one.path)} +{one.additions} -{one.deletions}</li>" for one in changed)
    return f"<h2>Files changed</h2><ul>{rows}</ul>"


def issue(repo: Repository, it: Issue) -> Answer:
    """An issue or a pull request, with what was said."""
    title = f"{it.title} · {repo.full_name}#{it.number}"
    inside = f"<h1>{escape(it.title)} <small>#{it.number}</small></h1><p class=state>{it.state}</p>"
    pull = repo.pulls.get(it.number)
    if pull is not None:
        draft = "draft, " if pull.draft else ""
        inside += f"<p>{draft}{escape(pull.head)} into {escape(pull.base)}</p>"
        inside += _files(repo.git.changed_files(pull.base_sha, pull.head_sha))
    inside += f"<article><b>{escape(it.user.login)}</b><pre>{escape(it.body or '')}</pre></article>"
    for one in it.comments:
        said = f"<b>{escape(one.user.login)}</b><pre>{escape(one.body)}</pre>"
        inside += f'<article id="issuecomment-{one.id}">{said}</article>'
    return _page(title, inside)


def serve(repo: Repository | None, kind: str, number: str) -> Answer:
    """``/owner/repo/pull/N`` or ``/owner/repo/issues/N``."""
    found = repo.issues.get(int(number)) if repo and number.isdigit() else None
    if repo is None or found is None or found.deleted or (kind == "pull") != (found.number in repo.pulls):
        return Answer(404, b"Not Found", {"content-type": "text/plain"})
    return issue(repo, found)
