"""This runner's stable name on its machine, so that a restarted one finds what it left behind."""

import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLOCK = struct.Struct("@hhqqi4x")
"""``struct flock`` (fcntl(2)): type, whence, start, length (0: all), process (0 for this kind of lock)."""


@contextmanager
def slot(directory: Path) -> Iterator[str]:
    """The first name that no living runner of this directory has; free again when the process ends.

    The directory is part of the name: two Millrace homes on one machine share its Podman, and each must
    find its own containers only.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    home = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:8]
    number = 0
    while True:
        number += 1
        with (directory / f"{number}.lock").open("a+") as lock:
            try:
                fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            except (BlockingIOError, PermissionError):  # held, in the words of one or the other file system
                continue
            name = f"{socket.gethostname()}-{home}-{number}"
            lock.truncate(0)
            lock.write(name)
            lock.flush()
            yield name
            return


def living(directory: Path) -> set[str]:
    """The names of all runners of this directory whose processes live, this one's too."""
    names = set()
    for path in directory.glob("*.lock"):
        with path.open("r") as lock:  # asking takes nothing that a runner at its start might want
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind = _FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_OFD_GETLK, asked))[0]
            if kind != fcntl.F_UNLCK:
                names.add(lock.read())
    return names


@contextmanager
def vacant(directory: Path, name: str) -> Iterator[bool]:
    """Whether no runner has this name, kept so for as long as the context lasts."""
    number = name.rpartition("-")[2]
    with (directory / f"{number}.lock").open("a+") as lock:
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            yield lock.read() != name  # its holder is called otherwise: the machine was renamed
            return
        yield True
