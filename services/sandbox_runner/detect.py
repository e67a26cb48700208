"""How a repository is tested, from the names at its root and a few files (pure)."""

import json
import tomllib
from collections.abc import Collection, Mapping

import msgspec

SETTINGS = ".millrace.toml"
READ = (SETTINGS, "package.json", "Makefile", "pyproject.toml", "setup.cfg", "tox.ini")
"""The files whose contents ``detect`` wants."""

_NO_NPM_TEST = "no test specified"  # what `npm init` writes


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``test_command`` is for bash at the root, None if no way to test was found.

    ``about`` is a sentence for the agent; ``problem`` says what is wrong with the repository's own settings.
    """

    test_command: str | None
    about: str
    problem: str = ""


def detect(names: Collection[str], contents: Mapping[str, str]) -> Project:
    """What the root of a repository tells.

    Args:
        names: the names at the root, directories with a slash at the end.
        contents: the texts of those files of ``READ`` that exist.
    """
    own, problem = _own_command(contents.get(SETTINGS))
    if own is not None:
        about = f"The repository's {SETTINGS} says how to test it: {own}"
        return Project(test_command=own, about=about)
    for kind, command in _candidates(names, contents):
        about = f"This looks like a {kind}; its tests run with: {command}"
        return Project(test_command=command, about=about, problem=problem)
    about = "No way to run tests was recognised; say in your summary how you checked the change."
    return Project(test_command=None, about=about, problem=problem)


def _own_command(text: str | None) -> tuple[str | None, str]:
    if text is None:
        return None, ""
    try:
        table = tomllib.loads(text).get("test", {})
    except tomllib.TOMLDecodeError as error:
        return None, f"{SETTINGS} is not valid TOML ({error}); it was ignored."
    command = table.get("command") if isinstance(table, dict) else None
    if command is None:
        return None, ""
    if not isinstance(command, str) or not command.strip() or "\0" in command:
        return None, f"{SETTINGS}: test.command is not a text; it was ignored."
    return command.strip(), ""


def _candidates(names: Collection[str], contents: Mapping[str, str]) -> list[tuple[str, str]]:
    """What fits, most telling first."""
    found = []
    if _is_python(names, contents):
        found.append(("Python project", "python3 -m pytest -q"))
    if _has_npm_test(contents.get("package.json")):
        found.append(("Node project", "npm test --silent"))
    if "go.mod" in names:
        found.append(("Go module", "go test ./..."))
    if "Cargo.toml" in names:
        found.append(("Rust package", "cargo test --quiet"))
    if _has_make_test(contents.get("Makefile")):
        found.append(("project with a Makefile", "make test"))
    return found


def _is_python(names: Collection[str], contents: Mapping[str, str]) -> bool:
    markers = ("[tool.pytest", "[tool:pytest]", "[pytest]")
    if any(mark in contents.get(file, "") for file in READ for mark in markers):
        return True
    if {"pytest.ini", "conftest.py"} & set(names):
        return True
    tested = "tests/" in names or "test/" in names
    if tested and {"pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"} & set(names):
        return True
    return any(n.endswith(".py") and (n.startswith("test_") or n.endswith("_test.py")) for n in names)


def _has_npm_test(text: str | None) -> bool:
    try:
        package = json.loads(text or "")
        script = package["scripts"]["test"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(script, str) and bool(script.strip()) and _NO_NPM_TEST not in script


def _has_make_test(text: str | None) -> bool:
    return any(line.split("#")[0].startswith(("test:", "test :")) for line in (text or "").splitlines())
