"""What setups left behind: taken entry by entry from a sandbox, kept per repository, never changed.

The stream says less than an archive could: files, directories and links by relative path, nothing else.
Each entry is checked before anything is made of it, and made relative to open directories without ever
following a link. Nothing here reads or walks what was stored; sandboxes see it read-only.
"""

import errno
import fcntl
import os
import re
import shutil
import socket
import stat
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from contracts.facts import Setup
from services.kit.errors import Later, Refused

ENTRY = struct.Struct(">cHqHQ")
"""Kind, mode, time, length of the path, length of the content: as in ``inside/pack.py``."""

_CHUNK = 1024 * 1024
_PART = re.compile(rb"[^\x00-\x1f\x7f/]{1,255}")
_KEY = re.compile(r"[0-9a-f]{16,64}")
_FAILED_SECONDS = 600.0
"""For so long a setup that failed is not tried again: the same commands on the same files."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one setup may leave behind, and that a repository and a runner keep."""

    entries: int = 300_000
    size: int = 2 * 1024**3
    depth: int = 60
    path: int = 4096
    kept: int = 4
    total: int = 20 * 1024**3
    free: int = 1024**3


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream held: the names at its top, entries, bytes of content."""

    top: tuple[str, ...]
    entries: int
    size: int


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A finished setup on disk. ``tree`` is what sandboxes see as ``/deps``, None if it failed."""

    report: Setup
    top: tuple[str, ...] = ()
    tree: Path | None = None


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    report: Setup
    top: tuple[str, ...] = ()
    at: float = 0.0


def receive(connection: socket.socket, target: Path, room: Room) -> Received:
    """Make of a stream what it says, below a new directory; blocks until its end.

    Raises:
        Refused: an entry is not allowed, there is too much, or it broke off; the text names the first that
            was wrong.
        Later: the disk is full.
    """
    target.mkdir(mode=0o755)
    root = os.open(target, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return _Unpacking(connection, root, target, room).run()
    finally:
        os.close(root)


class _Unpacking:
    def __init__(self, connection: socket.socket, root: int, target: Path, room: Room) -> None:
        self._connection = connection
        self._root = root
        self._target = target
        self._room = room
        self._size = 0
        self._entries = 0
        self._top: list[str] = []

    def run(self) -> Received:
        while True:
            kind, mode, seconds, length, size = ENTRY.unpack(self._read(ENTRY.size))
            if kind == b"e":
                return Received(top=tuple(self._top), entries=self._entries, size=self._size)
            self._count(size)
            if not 0 < length <= self._room.path:
                raise _wrong(b"", f"has a path of {length} bytes")
            self._entry(kind, mode, seconds, self._read(length), size)

    def _count(self, size: int) -> None:
        self._entries += 1
        self._size += size
        if self._entries > self._room.entries or self._size > self._room.size:
            raise Refused(
                f"the setup left more than {self._room.entries:,} files or {self._room.size:,} bytes",
                kind="setup_too_large",
            )

    def _entry(self, kind: bytes, mode: int, seconds: int, path: bytes, size: int) -> None:
        parts = path.split(b"/")
        if len(parts) > self._room.depth or any(
            part in (b".", b"..") or not _PART.fullmatch(part) for part in parts
        ):
            raise _wrong(path, "is not a plain relative path")
        if len(parts) == 1:
            self._top.append(os.fsdecode(path))
        parent = self._open(parts[:-1], path)
        try:
            match kind:
                case b"d" if size == 0:
                    os.mkdir(parts[-1], 0o755, dir_fd=parent)
                case b"l" if 0 < size <= self._room.path:
                    link = self._read(size)
                    if b"\0" in link:
                        raise _wrong(path, "is a link without a usable target")
                    os.symlink(link, parts[-1], dir_fd=parent)
                case b"f":
                    self._file(parts[-1], mode, seconds, size, parent)
                case _:
                    raise _wrong(path, "is neither file, directory nor link")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Later("the runner's disk is full", kind="disk_full") from error
            raise _wrong(path, f"cannot be made ({error.strerror})") from error
        finally:
            if parent != self._root:
                os.close(parent)

    def _open(self, parts: list[bytes], path: bytes) -> int:
        """The directory that these parts name; no part of the way may be a link."""
        here = self._root
        for part in parts:
            try:
                below = os.open(part, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH, dir_fd=here)
            except OSError as error:
                raise _wrong(path, "lies in no directory that came before it") from error
            finally:
                if here != self._root:
                    os.close(here)
            here = below
        return here

    def _file(self, name: bytes, mode: int, seconds: int, size: int, parent: int) -> None:
        self._check_disk(size)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        handle = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            left = size
            while left:
                data = self._connection.recv(min(left, _CHUNK))
                if not data:
                    raise _broken()
                left -= len(data)
                while data:
                    data = data[os.write(handle, data) :]
            os.fchmod(handle, 0o755 if mode & 0o111 else 0o644)
            # Python believes its compiled files by the time of their source.
            moment = min(max(seconds, 0), 2**32 - 1)
            os.utime(handle, (moment, moment))
        finally:
            os.close(handle)

    def _check_disk(self, size: int) -> None:
        if self._entries % 1000 == 1 or size > _CHUNK:
            found = os.fstatvfs(self._root)
            if found.f_bavail * found.f_frsize < self._room.free + size:
                raise Later("the runner's disk is nearly full", kind="disk_full")

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise _broken()
            data += part
        return bytes(data)


def _wrong(path: bytes, why: str) -> Refused:
    shown = "".join(char if char.isprintable() else "?" for char in path[:200].decode("utf-8", "replace"))
    return Refused(f"what the setup left behind is not taken: {shown} {why}", kind="setup_not_allowed")


def _broken() -> Refused:
    return Refused("what the setup left behind broke off while it was read", kind="setup_broken")


class Store:
    """The results of setups, by repository and key; several processes may share ``directory``.

    A result that some sandbox uses is locked (``using``) and not evicted.
    """

    def __init__(self, directory: Path, room: Room | None = None) -> None:
        self._directory = directory
        self.room = room or Room()

    def find(self, repository_id: int, key: str) -> Stored | None:
        """The result under this key; a failure counts for some minutes only."""
        place = self._place(repository_id, key)
        try:
            meta = msgspec.json.decode((place / "meta.json").read_bytes(), type=_Meta)
        except (OSError, msgspec.DecodeError):
            return None
        if not meta.report.ok:
            fresh = 0 <= time.time() - meta.at < _FAILED_SECONDS
            return Stored(report=meta.report) if fresh else None
        with suppress(OSError):
            os.utime(place / "meta.json")
        return Stored(report=meta.report, top=meta.top, tree=place / "tree")

    def begin(self, repository_id: int) -> Path:
        """A name for a result that is being received; ``keep`` or ``discard`` it."""
        parent = self._directory / f"{repository_id:d}"
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        return parent / f"part-{uuid.uuid4().hex}"

    def keep(self, repository_id: int, key: str, part: Path, report: Setup, top: tuple[str, ...]) -> Stored:
        """A received tree, or a failure without one, under its key."""
        place = self._place(repository_id, key)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        if part.exists():
            part.rename(place / "tree")
        meta = _Meta(report=report, top=top, at=time.time())
        (place / "meta.part").write_bytes(msgspec.json.encode(meta))
        (place / "meta.part").rename(place / "meta.json")
        self.evict()
        return Stored(report=report, top=top, tree=place / "tree" if report.ok else None)

    def discard(self, part: Path) -> None:
        """Forget what was received so far."""
        shutil.rmtree(part, ignore_errors=True)

    def evict(self) -> None:
        """Remove what is oldest until bounds hold; what is used stays, and so does the newest of all."""
        found = []
        for meta in self._directory.glob("*/*/meta.json"):
            with suppress(OSError, msgspec.DecodeError):
                size = msgspec.json.decode(meta.read_bytes(), type=_Meta).report.size
                found.append((meta.stat().st_mtime, size, meta.parent))
        found.sort(reverse=True)
        total, counts = 0, dict[Path, int]()
        for number, (_, size, place) in enumerate(found):
            counts[place.parent] = counts.get(place.parent, 0) + 1
            total += size
            if number and (counts[place.parent] > self.room.kept or total > self.room.total):
                total -= size if self._remove(place) else 0

    def sweep(self) -> None:
        """Remove what killed runners left half received."""
        for part in self._directory.glob("*/part-*"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > 2 * 3600:
                    shutil.rmtree(part, ignore_errors=True)

    def _remove(self, place: Path) -> bool:
        with suppress(OSError), _locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB):
            gone = place.with_name(f"part-{uuid.uuid4().hex}")
            place.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return True
        return False

    def _place(self, repository_id: int, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key")
        return self._directory / f"{repository_id:d}" / key


def hold(tree: Path) -> Callable[[], None]:
    """Keep a result from being evicted until the returned function is called or the process ends.

    Raises:
        Later: it was evicted in the meantime.
    """
    try:
        handle = _lock(tree.parent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise Later("what the setup left was just evicted", kind="deps_evicted") from error
    return lambda: os.close(handle)


@contextmanager
def _locked(place: Path, how: int) -> Iterator[None]:
    handle = _lock(place, how)
    try:
        yield
    finally:
        os.close(handle)


def _lock(place: Path, how: int) -> int:
    handle = os.open(place / "meta.json", os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        if os.fstat(handle).st_nlink == 0 or not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileNotFoundError(place)
    except OSError:
        os.close(handle)
        raise
    return handle
