"""After a setup: sends what it left behind through a unix socket, entry by entry.

Argument: the socket. An entry is a kind (``d``, ``f``, ``l``), a mode, a time, the length of a path, the
length of the content, then path and content. A directory comes before what is in it; ``e`` ends it all.
What a setup made in the workspace is gathered first: ``node_modules`` directories move to ``linked/``,
where links lead back to the rest of the workspace; small generated text files are copied to ``copied/``.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys

DEPS, WORKSPACE = "/deps", "/workspace"
ENTRY = struct.Struct(">cHqHQ")
SMALL, MANY, TOGETHER = 1024 * 1024, 2000, 16 * 1024 * 1024
LEFT_OUT = {
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".git",
    ".gradle",
    ".cache",
    ".venv",
}


def untracked() -> list[str]:
    """Files of the workspace that are not the repository's, ignored ones included."""
    listing = ["git", "-C", WORKSPACE, "ls-files", "-z", "--others"]
    found = subprocess.run(listing, capture_output=True, check=True).stdout
    return [os.fsdecode(path) for path in found.split(b"\0")[:-1]]


def move_modules() -> None:
    """Every outermost ``node_modules`` to ``linked/N/…``, with its place in ``linked/N.place``."""
    number = 0
    for root, directories, _ in os.walk(WORKSPACE):
        directories[:] = [name for name in directories if name != ".git"]
        if "node_modules" not in directories:
            continue
        directories.remove("node_modules")
        place = os.path.relpath(root, WORKSPACE)
        base = os.path.join(DEPS, "linked", str(number))
        target = surround(base, place)
        shutil.move(os.path.join(root, "node_modules"), os.path.join(target, "node_modules"))
        with open(f"{base}.place", "w") as file:
            file.write(place)
        number += 1


def surround(base: str, place: str) -> str:
    """The place below ``base``, in surroundings that look like the workspace: links may lead out of it."""
    here = ""
    for part in ["", *(part for part in place.split("/") if part != ".")]:
        here = os.path.join(here, part)
        target = os.path.join(base, here)
        if os.path.islink(target):
            os.unlink(target)
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(os.path.join(WORKSPACE, here)):
            if name not in ("node_modules", ".git"):
                os.symlink(os.path.join(WORKSPACE, here, name), os.path.join(target, name))
    return os.path.join(base, here)


def copy_generated() -> None:
    """Generated text, such as a version file or a package's metadata; objects of compilers are left out."""
    together = 0
    taken = 0
    for path in untracked():
        parts = path.split("/")
        source = os.path.join(WORKSPACE, path)
        if LEFT_OUT & set(parts) or "node_modules" in parts or os.path.islink(source):
            continue
        size = os.lstat(source).st_size
        if size > SMALL or taken >= MANY or together + size > TOGETHER:
            continue
        with open(source, "rb") as file:
            content = file.read()
        if b"\0" in content:
            continue
        together, taken = together + size, taken + 1
        target = os.path.join(DEPS, "copied", path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)
        shutil.copymode(source, target)


def send(connection: socket.socket, path: str, relative: str) -> None:
    status = os.lstat(path)
    name = os.fsencode(relative)
    if os.path.islink(path):
        target = os.fsencode(os.readlink(path))
        connection.sendall(ENTRY.pack(b"l", 0o777, 0, len(name), len(target)) + name + target)
    elif os.path.isdir(path):
        connection.sendall(ENTRY.pack(b"d", 0o755, 0, len(name), 0) + name)
    elif os.path.isfile(path):
        mode = 0o755 if status.st_mode & 0o111 else 0o644
        with open(path, "rb") as file:
            head = ENTRY.pack(b"f", mode, int(status.st_mtime), len(name), status.st_size)
            connection.sendall(head + name)
            if connection.sendfile(file, 0, status.st_size or None) != status.st_size:
                raise OSError(f"{relative} changed while it was sent")


def main() -> None:
    move_modules()
    copy_generated()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        for root, directories, files in os.walk(DEPS):
            directories.sort()
            for name in sorted(directories + files):
                path = os.path.join(root, name)
                send(connection, path, os.path.relpath(path, DEPS))
        connection.sendall(ENTRY.pack(b"e", 0, 0, 0, 0))
        connection.shutdown(socket.SHUT_WR)
        sys.stdout.write(connection.recv(4096).decode("utf-8", "replace"))


main()
