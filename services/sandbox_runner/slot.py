"""This runner's stable name on its machine, so that a restarted one finds what it left behind."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        with (directory / f"{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield f"{socket.gethostname()}-{home}-{number}"
            return
