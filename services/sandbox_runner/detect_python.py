"""A Python project's dependencies, from the files that usually name them (pure).

There is no one place for what tests need: dependency groups, extras, requirement files, tox and Poetry all
are in use. The first of these that names something for tests is taken, besides the project itself.
"""

import configparser
import re
import shlex
import tomllib
from collections.abc import Collection, Mapping
from typing import Any

READ = ("pyproject.toml", "setup.cfg", "tox.ini")
_PIP = "/deps/venv/bin/python -m pip install --quiet --no-cache-dir --no-input --progress-bar off"
_GROUPS = ("test", "tests", "testing", "dev", "develop", "development")
_FILES = tuple(
    pattern.format(group)
    for group in _GROUPS
    for pattern in (
        "requirements-{}.txt",
        "requirements_{}.txt",
        "{}-requirements.txt",
        "{}_requirements.txt",
        "requirements/{}.txt",
        "{}/requirements.txt",
    )
)
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ \[\]<>=!~,;'\"()*+|&-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def fits(names: Collection[str], contents: Mapping[str, str]) -> bool:
    """Whether pytest has something to run here."""
    markers = ("[tool.pytest", "[tool:pytest]", "[pytest]")
    if any(mark in contents.get(file, "") for file in READ for mark in markers):
        return True
    if {"pytest.ini", "conftest.py"} & set(names):
        return True
    tested = "tests/" in names or "test/" in names
    if tested and {"pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"} & set(names):
        return True
    return any(n.endswith(".py") and (n.startswith("test_") or n.endswith("_test.py")) for n in names)


def setup(names: Collection[str], contents: Mapping[str, str], *, scripts: bool) -> tuple[str, ...]:
    """The commands that make ``/deps/venv``; none for files without a project or requirements.

    Args:
        scripts: whether packages may be built here, which runs code of theirs while there is network;
            without it only wheels are installed. The project itself is built either way.
    """
    pyproject = _toml(contents.get("pyproject.toml"))
    installable = "setup.py" in names or bool(pyproject.get("project") or pyproject.get("build-system"))
    files = [f"-r {file}" for file in _requirement_files(names)]
    named, extra = _for_tests(pyproject, contents)
    if not (installable or files or named):
        return ()
    pip = _PIP if scripts else f"{_PIP} --only-binary :all:"
    wanted = " ".join([*files, *map(shlex.quote, ["pytest", *named])])
    commands = ["python3 -m venv /deps/venv"]
    if not installable:
        return (*commands, f"{pip} {wanted}")
    project = shlex.quote(f".[{extra}]" if extra else ".")
    # An application may have the form of a package without being one that can be built.
    without = " ".join(map(shlex.quote, _requirements(_table(pyproject, "project").get("dependencies"))))
    return (*commands, f"{pip} {wanted} -e {project} || {pip} {wanted} {without}".rstrip())


def _requirement_files(names: Collection[str]) -> list[str]:
    known = set(names)
    found = [file for file in ("requirements.txt",) if file in known]
    found += [file for file in _FILES if file in known][:1]
    return found


def _for_tests(pyproject: Mapping[str, Any], contents: Mapping[str, str]) -> tuple[list[str], str]:
    """Requirements that are named for tests, and the extra that holds them."""
    groups = _table(pyproject, "dependency-groups")
    for group in _GROUPS:
        if group in groups:
            return _group(groups, group, depth=0), ""
    extras = set(_table(_table(pyproject, "project"), "optional-dependencies"))
    extras |= set(_ini(contents.get("setup.cfg"), "options.extras_require"))
    extra = next((group for group in _GROUPS if group in extras), "")
    if extra:
        return [], extra
    return _poetry(pyproject) or _tox(contents.get("tox.ini")), ""


def _group(groups: Mapping[str, Any], name: str, depth: int) -> list[str]:
    """A dependency group with those that it includes (PEP 735)."""
    entries = groups.get(name)
    if not isinstance(entries, list) or depth > 8:
        return []
    found = _requirements(entries)
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            found += _group(groups, entry["include-group"], depth + 1)
    return found


def _poetry(pyproject: Mapping[str, Any]) -> list[str]:
    """The names only: Poetry's constraints are not pip's."""
    poetry = _table(_table(pyproject, "tool"), "poetry")
    tables = [_table(_table(_table(poetry, "group"), group), "dependencies") for group in _GROUPS]
    tables.append(_table(poetry, "dev-dependencies"))
    return [name for name in next((table for table in tables if table), {}) if _NAME.fullmatch(name)]


def _tox(text: str | None) -> list[str]:
    """What the plain environment installs; lines for some environments only are left out."""
    lines = _ini(text, "testenv").get("deps", "").splitlines()
    return _requirements([line.strip() for line in lines if ":" not in line and not line.startswith("-")])


def _requirements(entries: Any) -> list[str]:
    """Those entries that are requirements by name: no options, paths or addresses."""
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, str) and _REQUIREMENT.fullmatch(entry)]


def _table(table: Any, key: str) -> Mapping[str, Any]:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, dict) else {}


def _toml(text: str | None) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _ini(text: str | None, section: str) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text or "")
    except configparser.Error:
        return {}
    return dict(parser[section]) if parser.has_section(section) else {}
