"""The host's copies of repositories: bare, shallow, one per repository id, fetched only as far as needed.

No working tree, no submodules, no LFS, no hooks, no configuration but ours. The token is handed to git in
its environment and is nowhere else: not in an address, an argument or a file.
"""

import asyncio
import fcntl
import os
import re
import shutil
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from services.kit.errors import Later, Refused
from services.sandbox_runner.absent import absent
from services.sandbox_runner.clone_errors import clone_error, empty_repository, too_large
from services.sandbox_runner.git import GitError, run_git
from services.sandbox_runner.mirror_bounds import (
    DEFAULT_BOUNDS,
    Bounds,
    evict,
    forget,
    forget_if_unused,
    mark_used,
    try_lock,
)

_SHA = re.compile(r"[0-9a-f]{40}")
_SAFE_REF = re.compile(r"(?!-)(?!.*(\.\.|@\{|//|\.lock(/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![./])")
_REMOTE = {
    "http.followRedirects": "false",  # the token must not follow to another host
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "fetch.unpackLimit": "1",  # always one pack, so that its size can be watched
}
_LOOK_SECONDS = 0.25
_MANY_PACKS = 40
_READABLE = 10_000_000
_ATTRIBUTES, _ATTRIBUTE_BYTES = 20, 100_000
"""How many ``.gitattributes`` are read for what they say about LFS, and how much of each."""
_KEPT = 8
"""Packs and base commits that a repository keeps in any case; others for ``_KEPT_SECONDS``."""
_KEPT_SECONDS = 24 * 3600.0


class TreeEntry(msgspec.Struct, frozen=True):
    """One path of a commit: git's mode, the path's bytes, the content's size (0 for directories), its id."""

    mode: str
    path: bytes
    size: int
    blob: str = ""


class Mirror:
    """All mirrored repositories of a runner; several processes may share ``directory``.

    Args:
        max_size: bytes that one fetch may add.
        seconds: the longest that one fetch may take.
        protocols: the transports that git may use, separated by colons.
        bounds: how much is kept of repositories that nobody works on.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_size: int = 2_000_000_000,
        seconds: float = 600.0,
        protocols: str = "http:https",
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._directory = directory
        self._max_size = max_size
        self._seconds = seconds
        self._protocols = protocols
        self._bounds = bounds

    def path(self, repository_id: int) -> Path:
        """The bare repository; it exists after the first ``fetch``."""
        return self._directory / f"{repository_id:d}.git"

    async def fetch(self, repository_id: int, url: str, token: str | None, ref: str) -> str:
        """Bring a branch or commit here and say its commit's id.

        Args:
            url: the repository's web address, without credentials.
            token: an installation token that may read it.
            ref: a branch's name, a full ref, or a commit's 40 hex digits.

        Raises:
            Refused: it will not work however often it is tried (the text says why).
            Later: it may work another time.
        """
        parts = urlsplit(url)
        allowed = parts.scheme in self._protocols.split(":") and "@" not in parts.netloc
        if not allowed or not _SAFE_REF.fullmatch(ref):
            raise Refused("The repository's address or branch is not usable.", kind="clone_forbidden")
        git_dir = self.path(repository_id)
        async with self._locked(repository_id):
            await self._lay_out(git_dir)
            mark_used(git_dir)
            if _SHA.fullmatch(ref) and await self._has(git_dir, ref):
                return ref
            wanted = ref if _SHA.fullmatch(ref) or ref.startswith("refs/") else f"refs/heads/{ref}"
            await self._fetch(git_dir, url, token, wanted)
            sha = (await run_git(["rev-parse", "FETCH_HEAD^{commit}"], git_dir=git_dir)).decode().strip()
            await run_git(["update-ref", f"refs/millrace/{sha}", sha], git_dir=git_dir)
            if len(list((git_dir / "objects/pack").glob("*.pack"))) > _MANY_PACKS:
                await self._slim(git_dir, sha)
            return sha

    async def _slim(self, git_dir: Path, newest: str) -> None:
        """Forget base commits that no run can be at work on any more, and make one pack of the rest."""
        refs = sorted(
            (git_dir / "refs/millrace").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True
        )
        for path in refs[_KEPT:]:
            if path.name != newest and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink(missing_ok=True)
        await run_git(["repack", "-a", "-d", "-q"], git_dir=git_dir, seconds=self._seconds)
        await run_git(["prune", "--expire=now"], git_dir=git_dir, seconds=self._seconds)

    async def _fetch(self, git_dir: Path, url: str, token: str | None, wanted: str) -> None:
        remote = {**_REMOTE, **_authorization(url, token)}
        arguments = ["fetch", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"]
        arguments += ["--no-write-commit-graph", "--quiet", "--", url, wanted]
        before = _size(git_dir)
        fetching = asyncio.create_task(
            run_git(
                arguments,
                git_dir=git_dir,
                settings=remote,
                seconds=self._seconds,
                protocols=self._protocols,
            )
        )
        try:
            done = False
            while not done:
                done = bool((await asyncio.wait([fetching], timeout=_LOOK_SECONDS))[0])
                if _size(git_dir) - before > self._max_size:
                    raise too_large(self._max_size)
            await fetching
        except GitError as error:
            if "couldn't find remote ref" in error.words and await self._is_empty(git_dir, url, remote):
                raise empty_repository() from None
            raise clone_error(error.words) from None
        except Refused:
            await _stop(fetching)
            forget_if_unused(git_dir)  # the next fetch starts with the operator's next limit
            raise
        except Later as error:
            if error.kind == "git_timeout":
                raise clone_error("timed out") from error
            raise
        finally:
            await _stop(fetching)
            _discard_partial(git_dir)

    async def _is_empty(self, git_dir: Path, url: str, settings: Mapping[str, str]) -> bool:
        try:
            refs = await run_git(
                ["ls-remote", "--heads", "--", url],
                git_dir=git_dir,
                settings=settings,
                seconds=60,
                protocols=self._protocols,
            )
        except GitError as error:
            raise clone_error(error.words) from None
        return not refs.strip()

    async def shallow_pack(self, repository_id: int, sha: str) -> Path:
        """A pack of the commit with all its files and nothing before it; made once per commit."""
        git_dir = self.path(repository_id)
        target = git_dir / "millrace-packs" / f"{sha}.pack"
        async with self._locked(repository_id):
            if not target.exists():
                names = await run_git(["rev-list", "--objects", "--no-walk", sha], git_dir=git_dir)
                target.parent.mkdir(exist_ok=True)
                part = target.with_suffix(".part")
                with part.open("wb") as file:
                    await run_git(
                        ["pack-objects", "--stdout", "-q", "--delta-base-offset"],
                        git_dir=git_dir,
                        feed=names,
                        output=file.fileno(),
                        seconds=self._seconds,
                    )
                part.rename(target)
                _forget_packs(target.parent, target)
            os.utime(target)
        return target

    async def read_file(self, repository_id: int, sha: str, path: str, limit: int) -> bytes | None:
        """The first ``limit`` bytes of a file of the commit; None if there is no such file.

        A file above 10 MB counts as not there: nobody reads settings of that size.
        """
        git_dir = self.path(repository_id)
        found = await run_git(["ls-tree", "-z", "-l", "--full-tree", sha, "--", path], git_dir=git_dir)
        for line in found.split(b"\0")[:-1]:
            head, name = line.split(b"\t", 1)
            mode, kind, blob, size = head.decode().split()
            if name == os.fsencode(path) and kind == "blob" and mode != "120000" and int(size) <= _READABLE:
                return (await run_git(["cat-file", "blob", blob], git_dir=git_dir))[:limit]
        return None

    async def list_tree(self, repository_id: int, sha: str, *, recursive: bool = False) -> list[TreeEntry]:
        """The paths of a commit: those at the root, or all of them."""
        arguments = ["ls-tree", "-z", "-l", "--full-tree", *(["-r"] if recursive else []), sha]
        entries = []
        for line in (await run_git(arguments, git_dir=self.path(repository_id))).split(b"\0")[:-1]:
            head, path = line.split(b"\t", 1)
            mode, _, blob, size = head.decode().split()
            entries.append(TreeEntry(mode, path, int(size) if size.isdigit() else 0, blob))
        return entries

    async def absent(self, repository_id: int, sha: str) -> str:
        """What a checkout of the commit will lack, in words; empty if nothing."""
        entries = await self.list_tree(repository_id, sha, recursive=True)
        attributes: dict[bytes, bytes] = {}
        for entry in entries:
            named = entry.path == b".gitattributes" or entry.path.endswith(b"/.gitattributes")
            if named and len(attributes) < _ATTRIBUTES:
                content = await self.read_file(repository_id, sha, os.fsdecode(entry.path), _ATTRIBUTE_BYTES)
                attributes[entry.path] = content or b""
        return absent([entry.path for entry in entries if entry.mode == "160000"], attributes)

    async def has(self, repository_id: int, sha: str) -> bool:
        """Whether this commit is here."""
        return self.path(repository_id).is_dir() and await self._has(self.path(repository_id), sha)

    async def tidy(self) -> None:
        """Remove what fetches left that were killed; repositories that somebody reads now are passed over."""
        for git_dir in self._directory.glob("*.git"):
            with try_lock(git_dir.with_suffix(".lock")) as ours:
                if ours:
                    _discard_partial(git_dir)
        for gone in self._directory.glob("*.gone"):
            shutil.rmtree(gone, ignore_errors=True)

    async def evict(self) -> list[int]:
        """Remove repositories until size and age are within bounds; says which. Those in use stay."""
        return await asyncio.to_thread(evict, self._directory, self._bounds, time.time())

    async def remove(self, repository_id: int) -> None:
        """Forget a repository."""
        async with self._locked(repository_id):
            await asyncio.to_thread(forget, self.path(repository_id))

    async def _has(self, git_dir: Path, sha: str) -> bool:
        try:
            await run_git(["rev-parse", "--verify", "--quiet", f"refs/millrace/{sha}"], git_dir=git_dir)
        except GitError:
            return False
        return True

    async def _lay_out(self, git_dir: Path) -> None:
        if not (git_dir / "HEAD").exists():
            await run_git(["init", "--quiet", "--bare", "--template="], git_dir=git_dir)
        for lock in ("shallow.lock", "packed-refs.lock", "FETCH_HEAD.lock"):  # left by one that was killed
            (git_dir / lock).unlink(missing_ok=True)
        _discard_partial(git_dir)

    @asynccontextmanager
    async def _locked(self, repository_id: int) -> AsyncIterator[None]:
        """Only one process works on a repository; the lock ends with the process that holds it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._directory / f"{repository_id:d}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            await _take(handle, self._seconds * 2)
            yield
        finally:
            os.close(handle)


async def _take(handle: int, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise Later(
            "Another process has been reading the repository for too long.", kind="mirror_busy"
        ) from error


async def _stop(fetching: "asyncio.Task[bytes]") -> None:
    if not fetching.done():
        fetching.cancel()
        with suppress(asyncio.CancelledError):
            await fetching


def _authorization(url: str, token: str | None) -> dict[str, str]:
    """The header for this repository's server only (git-config, ``http.<url>.*``)."""
    if token is None:
        return {}
    parts = urlsplit(url)
    credentials = b64encode(f"x-access-token:{token}".encode()).decode()
    return {f"http.{parts.scheme}://{parts.netloc}/.extraHeader": f"Authorization: Basic {credentials}"}


def _discard_partial(git_dir: Path) -> None:
    for name in ("objects/pack/tmp_*", "objects/tmp_*", "objects/pack/*.keep", "millrace-packs/*.part"):
        for path in git_dir.glob(name):
            path.unlink(missing_ok=True)


def _size(git_dir: Path) -> int:
    total = 0
    for path in (git_dir / "objects/pack").glob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _forget_packs(directory: Path, newest: Path) -> None:
    packs = sorted(directory.glob("*.pack"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in [path for path in packs if path != newest][_KEPT:]:
        path.unlink(missing_ok=True)
