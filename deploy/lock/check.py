"""Whether the lock files can be trusted; ``python -m deploy.lock.check`` says what is wrong with them.

They pin everything, by hash, from whatever index the machine is configured for, and follow pyproject.toml.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")

Pins = dict[str, set[str]]
"""Versions by canonical name; more than one where they depend on the platform."""


def read_lock(text: str) -> tuple[Pins, list[str]]:
    """The pins of a lock file, and what is wrong with its lines (pip's requirements file format)."""
    pins: Pins = {}
    problems = []
    for line in text.replace("\\\n", " ").splitlines():
        wanted, *options = line.split(" --")
        if not wanted.strip() and not options:
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            problems.append(f"not a pinned package: {line.strip()[:80]}")
            continue
        (version, *others) = [pin.version for pin in requirement.specifier if pin.operator == "=="] or [""]
        if requirement.url or others or not version or len(requirement.specifier) != 1:
            problems.append(f"{requirement.name} is not pinned to one version")
        if not options or not all(_HASH.fullmatch(f"--{option.strip()}") for option in options):
            problems.append(f"{requirement.name} needs SHA-256 hashes and nothing else")
        pins.setdefault(canonicalize_name(requirement.name), set()).add(version)
    return pins, problems


def wanted(project: Mapping[str, Any], *, groups: bool) -> Iterator[Requirement]:
    """What pyproject.toml asks for directly: all extras, and with ``groups`` the dependency groups too."""
    texts = list(project["project"].get("dependencies", []))
    for extra in project["project"].get("optional-dependencies", {}).values():
        texts += extra
    if groups:
        for group in project.get("dependency-groups", {}).values():
            texts += [entry for entry in group if isinstance(entry, str)]
    own = canonicalize_name(project["project"]["name"])
    for requirement in map(Requirement, texts):
        if canonicalize_name(requirement.name) != own:
            yield requirement


def problems(project: Mapping[str, Any], runtime: str, dev: str) -> list[str]:
    """Everything wrong with the two lock files of a project, in words.

    Args:
        project: pyproject.toml, parsed.
        runtime: the lock of what services need.
        dev: the lock of that and of the tools.
    """
    runtime_pins, found = read_lock(runtime)
    dev_pins, more = read_lock(dev)
    found = [f"runtime.txt: {one}" for one in found] + [f"dev.txt: {one}" for one in more]
    for name, pins, groups in (("runtime.txt", runtime_pins, False), ("dev.txt", dev_pins, True)):
        for requirement in wanted(project, groups=groups):
            versions = pins.get(canonicalize_name(requirement.name), set())
            if not versions or not all(requirement.specifier.contains(v, prereleases=True) for v in versions):
                found.append(f"{name}: no pin fits {requirement}; run `make lock`")
    for name, versions in runtime_pins.items():
        if dev_pins.get(name) != versions:
            found.append(f"dev.txt: {name} differs from runtime.txt; run `make lock`")
    return found


def main() -> int:
    """Say what is wrong, one a line; the exit code is 1 if anything is."""
    here = Path(__file__).parent
    project = tomllib.loads((here.parent.parent / "pyproject.toml").read_text())
    found = problems(project, (here / "runtime.txt").read_text(), (here / "dev.txt").read_text())
    sys.stdout.writelines(f"deploy/lock/{one}\n" for one in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
