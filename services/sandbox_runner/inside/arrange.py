"""In each later sandbox, before anybody works in it: puts what the setup left in its places.

``/deps`` is read-only and stays where it is; the workspace gets links to its ``node_modules`` and copies
of the generated files. None of that is ever part of a change: the paths are excluded in git.
"""

import os
import shutil
from collections.abc import Iterator

DEPS, WORKSPACE, HOME = "/deps", "/workspace", os.path.expanduser("~")
EXCLUDES = (f"{WORKSPACE}/.git/info/exclude", "/run/millrace/git/info/exclude")
M2 = f"<settings><localRepository>{DEPS}/m2</localRepository><offline>true</offline></settings>\n"


def pattern(path: str) -> str:
    """A line for git's exclude file that means exactly this path (gitignore)."""
    escaped = "".join("\\" + char if char in "*?[]\\ !#" else char for char in path)
    return f"/{escaped}"


def link_modules() -> Iterator[str]:
    linked = os.path.join(DEPS, "linked")
    for name in sorted(os.listdir(linked) if os.path.isdir(linked) else []):
        if not name.endswith(".place"):
            continue
        with open(os.path.join(linked, name)) as file:
            place = os.path.normpath(file.read())
        source = os.path.join(linked, name.removesuffix(".place"), place, "node_modules")
        target = os.path.join(WORKSPACE, place, "node_modules")
        if os.path.isdir(os.path.dirname(target)) and not os.path.lexists(target):
            os.symlink(source, target)
            yield os.path.normpath(os.path.join(place, "node_modules"))


def copy_generated() -> Iterator[str]:
    copied = os.path.join(DEPS, "copied")
    for root, _, files in os.walk(copied):
        for name in files:
            source = os.path.join(root, name)
            path = os.path.relpath(source, copied)
            target = os.path.join(WORKSPACE, path)
            if not os.path.lexists(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy2(source, target)
                yield path


def main() -> None:
    paths = [*link_modules(), *copy_generated()]
    lines = "".join(pattern(path) + "\n" for path in paths if "\n" not in path)
    for exclude in EXCLUDES:
        with open(exclude, "a") as file:
            file.write(lines)
    if os.path.isdir(f"{DEPS}/m2"):
        os.makedirs(f"{HOME}/.m2", exist_ok=True)
        with open(f"{HOME}/.m2/settings.xml", "w") as file:
            file.write(M2)
    if os.path.isdir(f"{DEPS}/gradle"):  # Gradle takes locks in it even when it only reads
        shutil.copytree(f"{DEPS}/gradle", f"{HOME}/.gradle", symlinks=True)


main()
