"""From what a sandbox says has changed to a ``Change`` that the host can vouch for.

Only bytes are taken from the sandbox. Policy is checked per path, blob ids are computed from the bytes,
and the tree is built here by git's plumbing on the host's own objects; if it is not the tree that the
sandbox named, something was dropped or forged and the change is refused.
"""

import binascii
import hashlib
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec

from contracts.change import Change, Written
from services.kit.errors import Refused
from services.sandbox_runner.git import run_git
from services.sandbox_runner.paths import wrong_link, wrong_path

_MODES = ("100644", "100755", "120000")


class ChangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The largest change that is taken: paths, bytes of one file, bytes of all."""

    files: int = 300
    file_size: int = 10_000_000
    size: int = 20_000_000


DEFAULT_LIMITS = ChangeLimits()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox says: its tree, new contents, deletions; each path already within policy."""

    tree: str
    written: tuple[Written, ...]
    deleted: tuple[bytes, ...]


class _Raw(msgspec.Struct, frozen=True):
    tree: str
    files: int
    size: int
    largest: int
    written: list[tuple[str, str, int]]
    deleted: list[str]
    too_large: bool = False


def read_manifest(fields: dict[str, Any], contents: bytes, limits: ChangeLimits) -> Manifest:
    """The manifest, if policy allows every path of it (pure).

    Args:
        fields: the sandbox's answer: entries as mode, path (base64), size; deleted paths (base64).
        contents: what was written, one after another in the order of the entries.

    Raises:
        Refused: ``change_too_large`` or ``change_not_allowed``, naming path and rule.
    """
    try:
        raw = msgspec.convert(fields, _Raw)
        paths = [b64decode(path, validate=True) for _, path, _ in raw.written]
        deleted = tuple(b64decode(path, validate=True) for path in raw.deleted)
    except (msgspec.ValidationError, binascii.Error, ValueError) as error:
        raise Refused(f"the sandbox sent a malformed manifest: {error}", kind="manifest_malformed") from error
    if raw.too_large or len(paths) + len(deleted) > limits.files or len(contents) > limits.size:
        raise Refused(
            f"the change has {raw.files} files and {raw.size:,} bytes; at most {limits.files} files and"
            f" {limits.size:,} bytes are taken. Is a directory missing from .gitignore?",
            kind="change_too_large",
        )
    written, at = [], 0
    for (mode, _, size), path in zip(raw.written, paths, strict=True):
        if size < 0 or at + size > len(contents):
            raise Refused("the sandbox sent a malformed manifest: sizes", kind="manifest_malformed")
        content = contents[at : at + size]
        at += size
        written.append(_entry(mode, path, content, limits))
    for path in deleted:
        _refuse(path, wrong_path(path))
    names = [*deleted, *paths]
    if at != len(contents) or len(set(names)) != len(names):
        raise Refused("the sandbox sent a malformed manifest: paths", kind="manifest_malformed")
    written.sort(key=lambda entry: entry.path)
    return Manifest(tree=raw.tree, written=tuple(written), deleted=tuple(sorted(deleted)))


def _entry(mode: str, path: bytes, content: bytes, limits: ChangeLimits) -> Written:
    _refuse(path, wrong_path(path))
    if mode == "160000":
        _refuse(path, "is a repository inside the repository; remove its .git")
    if mode not in _MODES:
        _refuse(path, f"has mode {mode[:10]}")
    if len(content) > limits.file_size:
        _refuse(path, f"has {len(content):,} bytes, more than {limits.file_size:,}", kind="change_too_large")
    if mode == "120000":
        _refuse(path, wrong_link(path, content))
    return Written(path=path, mode=mode, blob=blob_id(content), content=content)  # type: ignore[arg-type]


def blob_id(content: bytes) -> str:
    """git's id of a file's content (SHA-1 over header and content)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _refuse(path: bytes, why: str | None, *, kind: str = "change_not_allowed") -> None:
    if why is not None:
        raise Refused(f"{readable(path)} {why}", kind=kind)


def readable(path: bytes) -> str:
    """A path as text: what is not printable is escaped, what is long is cut."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:300])


def _scratch(place: Path | None) -> "tempfile.TemporaryDirectory[str]":
    if place is not None:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="millrace-tree-", dir=place)


async def build_change(
    repository: Path, base: str, manifest: Manifest, *, scratch: Path | None = None
) -> Change:
    """The change as the host sees it, computed on the host's objects.

    Args:
        repository: a bare repository of the host that holds ``base``; nothing is written to it.
        scratch: where temporary files go; what a killed process leaves there, its successor removes.

    Raises:
        Refused: the result is not the tree that the sandbox named, or lacks a path.
    """
    with _scratch(scratch) as directory:
        env = {
            "GIT_INDEX_FILE": f"{directory}/index",
            "GIT_OBJECT_DIRECTORY": directory,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository / "objects"),
        }
        await run_git(["read-tree", base], git_dir=repository, env=env)
        lines = [f"0 {'0' * 40}\t".encode() + path for path in manifest.deleted]
        lines += [f"{e.mode} {e.blob}\t".encode() + e.path for e in manifest.written]
        feed = b"".join(line + b"\0" for line in lines)
        await run_git(["update-index", "-z", "--index-info"], git_dir=repository, env=env, feed=feed)
        tree = (await run_git(["write-tree", "--missing-ok"], git_dir=repository, env=env)).decode().strip()
        changed = await run_git(
            ["diff-index", "--cached", "-r", "-z", "--no-renames", "--name-only", base],
            git_dir=repository,
            env=env,
        )
    named = {entry.path for entry in manifest.written} | set(manifest.deleted)
    if set(changed.split(b"\0")[:-1]) != named:
        raise Refused("the sandbox's change does not hold what it lists", kind="tree_mismatch")
    if tree != manifest.tree:
        raise Refused(
            f"the sandbox named tree {manifest.tree[:40]}, its files give {tree}", kind="tree_mismatch"
        )
    return Change(base=base, tree=tree, written=manifest.written, deleted=manifest.deleted)
