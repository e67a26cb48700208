"""The documents tell the truth where a machine can check it: links, commands, paths, settings, excerpts."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr

from contracts.registry import HISTORY, SERVICES, heard_by
from contracts.subjects import kind_of
from services.cli.__main__ import app
from services.gateway import web
from services.kit import settings

ROOT = Path(__file__).parents[2]
OURS = ("contracts", "services", "deploy", "docs", "tests", "bench", ".ci")
"""Folders whose paths are checked wherever a document names one."""

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_MAKE = re.compile(r"(?:^|\s)make ([a-z][a-z-]*)")
_MILLRACE = re.compile(r"(?:^|\s|bin/)millrace +([a-z][^|;&>]*)")
_ROUTE = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[^\s`]*)")
_VARIABLE = re.compile(r"\b(?:MILLRACE|ANTHROPIC)_[A-Z_]*[A-Z]\b")
_ROW = re.compile(r"^\| `((?:MILLRACE|ANTHROPIC)_\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)
_LINE = re.compile(r"^#?((?:MILLRACE|ANTHROPIC)_\w+)=(.*)$", re.MULTILINE)
_CHOSEN_AT_START = {"MILLRACE_INSTANCE": "host name and process id"}


def _pages() -> list[str]:
    """Every Markdown file that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return sorted(path for path in set(listed.stdout.splitlines()) if (ROOT / path).exists())


PAGES = pytest.mark.parametrize("page", _pages())


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(text: str) -> str:
    """A document without its code blocks."""
    return _FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """What stands in a document as code: lines of blocks, continued ones joined, and spans."""
    for _, block in _FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from _SPAN.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The fragments that GitHub makes of a document's headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


def dead_links(page: str, text: str) -> list[str]:
    """The relative links of a document that lead nowhere."""
    dead = []
    for target in _LINK.findall(_SPAN.sub("", prose(text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        aimed = text if not path else file.read_text() if file.suffix == ".md" and file.is_file() else ""
        if not file.exists() or (fragment and fragment not in anchors(aimed)):
            dead.append(target)
    return dead


def wrong_commands(text: str) -> list[str]:
    """The millrace commands and options in a document that do not exist."""
    wrong = []
    for line in code(text):
        for match in _MILLRACE.findall(line.replace("[", " ").replace("]", " ")):
            command: Any = typer.main.get_command(app)
            words = match.split()
            while words and hasattr(command, "commands"):
                command = command.commands.get(words.pop(0))
            options = {option for parameter in getattr(command, "params", ()) for option in parameter.opts}
            given = {word for word in words if word.startswith("-")} - {"--help"}
            if command is None or hasattr(command, "commands") or given - options:
                wrong.append(match.strip())
    return wrong


def missing_paths(text: str) -> list[str]:
    """The paths of this repository that a document names and that do not exist; <name> stands for any."""
    named = (span.strip() for span in _SPAN.findall(prose(text)))
    paths = (path for path in named if re.fullmatch(r"[\w.<>*-]+(?:/[\w.<>*-]+)+/?", path))
    ours = (path for path in paths if path.split("/")[0] in OURS)
    return [path for path in ours if not any(ROOT.glob(re.sub(r"<[^>]*>", "*", path.rstrip("/"))))]


def variables() -> dict[str, str]:
    """Every setting with its default as the documents write it: empty where there is none."""
    found = {}
    for field, info in settings.Settings.model_fields.items():
        name = settings._variable(field)
        value = None if name in _CHOSEN_AT_START else info.get_default()
        found[name] = "" if value is None else str(value)
    return found


# --- every document --------------------------------------------------------------------------------------


@PAGES
def test_links_lead_somewhere(page: str) -> None:
    assert dead_links(page, text_of(page)) == []


@PAGES
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for line in code(text_of(page)) for name in _MAKE.findall(line)} <= targets


@PAGES
def test_commands_and_their_options_exist(page: str) -> None:
    assert wrong_commands(text_of(page)) == []


def test_the_readme_lists_the_routes_of_the_gateway() -> None:
    served = {
        (method, re.sub(r":\w+}", "}", path))
        for route in web._ROUTES
        for path in route.paths
        for method in route.http_methods
    }
    assert set(_ROUTE.findall(text_of("README.md"))) == served | {("GET", "/schema")}


@PAGES
def test_paths_exist(page: str) -> None:
    assert missing_paths(text_of(page)) == []


@PAGES
def test_variables_are_settings(page: str) -> None:
    named = set(_VARIABLE.findall(text_of(page)))
    files = {f"{settings._variable(field)}_FILE" for field in settings._SECRETS}
    assert named - set(variables()) - files == set()


@PAGES
def test_excerpts_are_what_the_code_says(page: str) -> None:
    for language, block in _FENCE.findall(text_of(page)):
        first, _, excerpt = block.partition("\n")
        if language == "python":
            file = ROOT / first.removeprefix("# ")
            assert file.is_file(), f"an excerpt begins with a comment that names its file, not {first!r}"
            assert excerpt in file.read_text()


# --- settings --------------------------------------------------------------------------------------------


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = dict(_ROW.findall(text_of("docs/configuration.md")))
    wanted = {
        name: _CHOSEN_AT_START.get(name, f"`{default}`" if default else "not set")
        for name, default in variables().items()
    }
    assert rows == wanted


def test_the_example_lists_every_setting_with_its_default_in_the_order_of_the_page() -> None:
    lines = _LINE.findall((ROOT / ".env.example").read_text())
    assert dict(lines) == variables()
    assert [name for name, _ in lines] == [name for name, _ in _ROW.findall(text_of("docs/configuration.md"))]


def test_taking_the_comment_signs_out_of_the_example_changes_nothing() -> None:
    given = {name: value for name, value in _LINE.findall((ROOT / ".env.example").read_text()) if value}
    fixed = {"instance": "one"}
    assert settings.load(given, **fixed) == settings.load({}, **fixed)


def test_secrets_can_be_files() -> None:
    secret = {name for name, info in settings.Settings.model_fields.items() if SecretStr in _inside(info)}
    assert secret == set(settings._SECRETS)
    listed = text_of("docs/configuration.md").partition("## Secrets")[2].partition("as a file instead")[0]
    assert set(_VARIABLE.findall(listed)) == {settings._variable(name) for name in settings._SECRETS}


def _inside(info: Any) -> tuple[Any, ...]:
    return getattr(info.annotation, "__args__", (info.annotation,))


# --- the services' table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_the_architecture_page_says_what_a_service_hears(service: str) -> None:
    table = text_of("docs/architecture.md").partition("## The services")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| `{service}` \| (.+?) \|", table, re.MULTILINE)
    kinds = {kind_of(fact) for fact in heard_by(service)}
    assert row == "every fact" if service == HISTORY else kinds == set(re.findall(r"`(\w+\.\w+)`", row))


def test_decision_records_are_numbered_without_gaps_and_listed() -> None:
    records = sorted(file.name for file in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    listed = re.findall(r"^- \[(.+)\]\((\d{4}-[\w-]+\.md)\)$", text_of("docs/adr/README.md"), re.MULTILINE)
    assert [name for _, name in listed] == records
    for title, name in listed:
        assert text_of(f"docs/adr/{name}").startswith(f"# {title}\n")


# --- the checks themselves -------------------------------------------------------------------------------


def test_a_dead_link_is_found() -> None:
    links = "[x](#a-b-c) [x](#gone) [x](Makefile) [x](gone.md) `[x](y)` [x](docs/nats.md#replay)"
    assert dead_links("README.md", f"# A `b`, c\n\n{links}\n") == ["#gone", "gone.md"]


def test_a_wrong_command_is_found() -> None:
    good = "`millrace up`, `millrace history A/B#1 [--json]`, `cd x && .venv/bin/millrace config show`"
    bad = "`millrace upp`, `millrace up --now`, `millrace config`, `millrace config gone | cat`"
    comments = "`@millrace`, `/millrace stop`"
    assert wrong_commands(f"{good} {comments} {bad}") == ["upp", "up --now", "config", "config gone"]


def test_a_missing_path_is_found() -> None:
    page = "`services/<name>/decide.py`, `services/gone.py`, `a/b`, `tests/unit/`, `deploy/gone/`"
    assert missing_paths(page) == ["services/gone.py", "deploy/gone/"]
