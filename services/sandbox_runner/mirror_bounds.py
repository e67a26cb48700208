"""How much is kept of repositories that nobody works on, and how those in use are known.

Beside each repository ``N.git`` lie two files: ``N.lock``, which is locked by whoever writes to it, and
``N.use``, which every sandbox of the repository locks together with the others; its time is the last use.
Both locks end with the process that holds them (flock(2)).
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

FRESH_SECONDS = 600.0
"""A repository that was fetched just now may be about to be used."""

logger = structlog.get_logger(__name__)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of all repositories together, and seconds since the last use of one."""

    size: int = 20_000_000_000
    age: float = 30 * 24 * 3600.0


DEFAULT_BOUNDS = Bounds()


class Lease:
    """While it is open, its repository is not evicted."""

    def __init__(self, git_dir: Path) -> None:
        self._handle = os.open(git_dir.with_suffix(".use"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_SH)
        os.utime(self._handle)

    def close(self) -> None:
        """Nobody of ours needs it any more; closing twice is fine."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def mark_used(git_dir: Path) -> None:
    """Note that a repository is used now."""
    git_dir.with_suffix(".use").touch(mode=0o600)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Lock a file if nobody else has; yields whether that worked."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def evict(directory: Path, bounds: Bounds, now: float) -> list[int]:
    """Remove the repositories that were not used for longest until the rest is within bounds; says which."""
    found = []
    for git_dir in directory.glob("*.git"):
        use = git_dir.with_suffix(".use")
        used = use.stat().st_mtime if use.exists() else git_dir.stat().st_mtime
        found.append((used, git_dir, _size_of(git_dir)))
    total, removed = sum(size for _, _, size in found), []
    for used, git_dir, size in sorted(found, key=lambda row: row[0]):
        old, idle = now - used > bounds.age, now - used > FRESH_SECONDS
        if not (old or (total > bounds.size and idle)):
            continue
        with (
            try_lock(git_dir.with_suffix(".lock")) as unread,
            try_lock(git_dir.with_suffix(".use")) as unused,
        ):
            if unread and unused:
                forget(git_dir)
                total -= size
                removed.append(int(git_dir.stem))
    if removed:
        logger.info("mirrors evicted", repositories=removed, left=total)
    return removed


def forget(git_dir: Path) -> None:
    """Remove a repository; one whose removal is interrupted is none any more."""
    gone = git_dir.with_suffix(f".{time.monotonic_ns()}.gone")
    with suppress(FileNotFoundError):
        git_dir.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def forget_if_unused(git_dir: Path) -> None:
    """Remove a repository unless a sandbox needs it."""
    with try_lock(git_dir.with_suffix(".use")) as unused:
        if unused:
            forget(git_dir)


def _size_of(git_dir: Path) -> int:
    total = 0
    for directory, _, files in os.walk(git_dir):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118  many files
    return total
