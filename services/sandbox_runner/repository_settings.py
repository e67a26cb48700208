"""``.millrace.toml``: what a repository says about how it is set up, tested and protected (pure).

Only the file on the base branch counts; the agent's change cannot alter its own examination. What is
wrong in it is named, key by key, in sentences for the people who wrote it (docs/repository-settings.md).
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import msgspec

FILE = ".millrace.toml"
DEFAULT_HOSTS = "default"
"""In ``setup.hosts``: the hosts that the operator lets every setup reach."""

_MAX_COMMANDS = 20
_MAX_COMMAND = 4000
_MAX_LIST = 100
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# Where a variable could turn the sandbox's own tools against what they report
_RESERVED = re.compile(r"MILLRACE_.*|LD_.*|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PS4|IFS")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository settles. None means: not said, so detected or the operator's default.

    ``setup`` and ``test`` are for bash at the repository's root. ``hosts`` are exact names, port 443.
    ``inputs`` are globs of files whose contents the setup depends on, besides the known lock files.
    ``files`` and ``size`` bound the change (paths; bytes); they can only be narrower than the operator's.
    ``protected`` are globs of paths that a change must not touch, besides those that are always protected.
    """

    image: str | None = None
    setup: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    install_scripts: bool = False
    inputs: tuple[str, ...] = ()
    test: str | None = None
    test_minutes: float | None = None
    environment: dict[str, str] = {}
    files: int | None = None
    size: int | None = None
    protected: tuple[str, ...] = ()


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and what is to be said about them.

    ``wrong`` names what cannot be followed: then nothing of the file may be guessed. ``unknown`` names
    keys that mean nothing here and are passed over.
    """

    settings: RepositorySettings = RepositorySettings()
    wrong: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class _Wrong(Exception):  # noqa: N818  a sentence about one value
    pass


def read_settings(text: str | None) -> Read:
    """What the file says; a repository without one says nothing."""
    if text is None:
        return Read()
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return Read(wrong=(f"{FILE} is not valid TOML ({str(error)[:200]}).",))
    values: dict[str, Any] = {}
    wrong: list[str] = []
    unknown: list[str] = []
    for section, content in table.items():
        if section not in _KEYS:
            unknown.append(_unknown(section, section, _KEYS))
        elif not isinstance(content, dict):
            wrong.append(f"{FILE}: {section} is a table: write [{section}].")
        else:
            _read_section(section, content, values, wrong, unknown)
    return Read(settings=RepositorySettings(**values), wrong=tuple(wrong), unknown=tuple(unknown))


def _read_section(
    section: str, content: dict[str, Any], values: dict[str, Any], wrong: list[str], unknown: list[str]
) -> None:
    known = _KEYS[section]
    if isinstance(known, tuple):  # a table of the repository's own names
        field, check = known
        content = {field: content}
        known = {field: (field, check)}
    for key, value in content.items():
        if key not in known:
            unknown.append(_unknown(f"{section}.{key}", key, known))
            continue
        field, check = known[key]
        try:
            values[field] = check(value)
        except _Wrong as error:
            name = section if key == section else f"{section}.{key}"
            wrong.append(f"{FILE}: {name} {error}.")


def _unknown(name: str, key: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}."
    return f"{FILE}: there is no key {_shown(name)}; {hint}"


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:80])


def _command(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > _MAX_COMMAND:
        raise _Wrong(f"is not a text of at most {_MAX_COMMAND:,} characters")
    return value.strip()


def _commands(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_COMMANDS:
        raise _Wrong(f"is not a list of at most {_MAX_COMMANDS} commands")
    return tuple(_command(each) for each in value)


def _hosts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise _Wrong(f"is not a list of at most {_MAX_LIST} hosts")
    for host in value:
        if not isinstance(host, str) or not (host == DEFAULT_HOSTS or _HOST.fullmatch(host)):
            raise _Wrong(
                f"holds {_shown(str(host))}, which is not an exact host name in small letters"
                f' (no scheme, port, address or *) nor "{DEFAULT_HOSTS}"'
            )
    return tuple(value)


def _globs(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise _Wrong(f"is not a list of at most {_MAX_LIST} patterns")
    for pattern in value:
        if not isinstance(pattern, str) or not pattern.strip("/") or len(pattern) > 500:
            raise _Wrong("holds something that is not a pattern such as deploy/**")
    return tuple(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("is neither true nor false")
    return value


def _image(value: Any) -> str:
    if not isinstance(value, str) or not _IMAGE.fullmatch(value):
        raise _Wrong("is not the name of an image")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Wrong("is not a whole number above 0")
    return value


def _minutes(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 24 * 60:
        raise _Wrong("is not a number of minutes above 0")
    return float(value)


def _environment(value: Any) -> dict[str, str]:
    if len(value) > _MAX_LIST:
        raise _Wrong(f"has more than {_MAX_LIST} variables")
    for name, content in value.items():
        if not _VARIABLE.fullmatch(name) or _RESERVED.fullmatch(name):
            raise _Wrong(f"holds {_shown(name)}, which cannot be set")
        if not isinstance(content, str) or "\0" in content or len(content) > _MAX_COMMAND:
            raise _Wrong(f"holds {name}, whose value is not a text")
    return dict(value)


_Check = Callable[[Any], Any]
_KEYS: dict[str, Any] = {
    "sandbox": {"image": ("image", _image)},
    "setup": {
        "commands": ("setup", _commands),
        "hosts": ("hosts", _hosts),
        "install-scripts": ("install_scripts", _flag),
        "inputs": ("inputs", _globs),
    },
    "test": {"command": ("test", _command), "minutes": ("test_minutes", _minutes)},
    "environment": ("environment", _environment),
    "limits": {"files": ("files", _count), "bytes": ("size", _count)},
    "policy": {"protected": ("protected", _globs)},
}
"""Section, key → field and check; a section that is a pair itself holds the repository's own names."""


def matches(pattern: str, path: str) -> bool:
    """Whether a glob names this path or a directory above it.

    ``*``, ``?`` and ``[…]`` stay within a part, ``**`` spans parts. A pattern without a slash matches the
    name at any depth; one that ends in a slash only what is below.
    """
    parts = pattern.strip("/").split("/")
    if "/" not in pattern.rstrip("/"):
        parts.insert(0, "**")
    if pattern.endswith("/"):
        parts.append("*")
    # Positions in the pattern that the path so far can have reached: linear, whatever the pattern is.
    reached = _skipped({0}, parts)
    for part in path.split("/"):
        step = {at for at in reached if parts[at] == "**"}
        step |= {at + 1 for at in reached if parts[at] != "**" and fnmatchcase(part, parts[at])}
        reached = _skipped(step, parts)
        if len(parts) in reached:
            return True
    return False


def _skipped(reached: set[int], parts: list[str]) -> set[int]:
    """The positions with those behind a ``**``, which may stand for nothing; at the end it stands for all."""
    for at in range(len(parts)):
        if at in reached and parts[at] == "**":
            reached.add(at + 1)
    return reached
