"""The repository inside: checked out from a pack, listed as a manifest, brought to a stored change.

All of it happens in a git directory of its own beside the workspace, so that nothing the agent does to
``.git`` breaks a checkpoint. It is convenience, not protection: the host believes only the bytes.
"""

from __future__ import annotations

import os
import zlib
from binascii import a2b_base64, b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .processes import Children

    Answer = tuple[dict[str, Any], bytes]
    Entry = tuple[str, str, int, str]
    """Mode, path (base64), size and blob id of one written path."""

# git's own conversions would make the tree inside differ from the bytes in the repository
_ATTRIBUTES = "* -text -filter -ident !working-tree-encoding !eol\n"
# what tools leave behind and nobody wants published; tracked paths are unaffected
_EXCLUDE = "__pycache__/\n*.pyc\n.pytest_cache/\n.mypy_cache/\n.ruff_cache/\n.venv/\n.tox/\nnode_modules/\n"
_CONFIG = (
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
    "\tloosecompression = 1\n\tuntrackedcache = false\n\tfsmonitor = false\n[gc]\n\tauto = 0\n"
    "[advice]\n\taddEmbeddedRepo = false\n"
)


class SnapshotError(Exception):
    """git inside the sandbox could not do it; ``str()`` is its last words."""


class Repository:
    """The workspace and the hidden git directory that remembers its base.

    Its methods wait for git, so one thread calls them, one after the other; not the one that reaps.
    """

    def __init__(self, children: Children, workspace: str, private: str) -> None:
        self._children = children
        self._workspace = workspace
        self._git_dir = f"{private}/git"

    def checkout(self, base: str, pack: int) -> Answer:
        """Lay out commit ``base`` from a pack that holds it and everything it names.

        Args:
            pack: a descriptor of the pack.
        """
        _lay_out(self._git_dir, base)
        self._git(["index-pack", "--stdin", "--keep=base"], stdin=pack)
        self._git(["read-tree", "-m", "-u", base])
        visible = f"{self._workspace}/.git"
        _lay_out(visible, base)
        _write(f"{visible}/objects/info/alternates", f"{self._git_dir}/objects\n")
        with open(f"{self._git_dir}/index", "rb") as source, open(f"{visible}/index", "wb") as target:
            os.sendfile(target.fileno(), source.fileno(), 0, os.fstat(source.fileno()).st_size)
        return {"tree": self._git(["rev-parse", f"{base}^{{tree}}"]).decode().strip()}, b""

    def manifest(self, base: str, *, files: int, size: int) -> Answer:
        """What differs from ``base``: the tree, entries and deletions, and the contents one after another.

        Args:
            files: more changed paths than this are counted, not sent.
            size: more bytes of content than this are counted, not sent.
        """
        self._git(["add", "--all", "."])
        tree = self._git(["write-tree"]).decode().strip()
        raw = self._git(["diff-tree", "-r", "-z", "--no-renames", base, tree])
        fields = raw.split(b"\0")[:-1]
        written: list[tuple[str, str, bytes]] = []
        deleted: list[bytes] = []
        for line, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, blob, status = line[1:].decode().split(" ")
            if status == "D":
                deleted.append(path)
            else:
                written.append((mode, blob, path))
        blobs = [blob for mode, blob, _ in written if mode != "160000"]
        sizes = self._sizes(blobs)
        total = sum(sizes.get(blob, 0) for _, blob, _ in written)
        answer: dict[str, Any] = {
            "tree": tree,
            "files": len(written) + len(deleted),
            "size": total,
            "largest": max(sizes.values(), default=0),
        }
        if len(written) + len(deleted) > files or total > size:
            return answer | {"written": [], "deleted": [], "too_large": True}, b""
        answer["deleted"] = [_base64(path) for path in deleted]
        answer["written"] = [[m, _base64(p), sizes.get(b, 0)] for m, b, p in written]
        return answer, self._contents(blobs)

    def apply(self, base: str, written: Sequence[Entry], deleted: Sequence[str], contents: bytes) -> Answer:
        """Bring a fresh checkout of ``base`` to a stored change; answers with the resulting tree."""
        lines, at = [f"0 {'0' * 40}\t".encode() + a2b_base64(path) for path in deleted], 0
        for mode, path, size, blob in written:
            _store(f"{self._git_dir}/objects", blob, contents[at : at + size])
            at += size
            lines.append(f"{mode} {blob}\t".encode() + a2b_base64(path))
        scratch = {"GIT_INDEX_FILE": f"{self._git_dir}/apply.index"}
        self._git(["read-tree", base], extra=scratch)
        listing = b"".join(line + b"\0" for line in lines)
        self._git(["update-index", "-z", "--index-info"], extra=scratch, feed=listing)
        tree = self._git(["write-tree"], extra=scratch).decode().strip()
        self._git(["read-tree", "--reset", "-u", tree])
        self._git(["add", "--all", "."])
        return {"tree": self._git(["write-tree"]).decode().strip()}, b""

    def _sizes(self, blobs: Sequence[str]) -> dict[str, int]:
        if not blobs:
            return {}
        lines = self._git(["cat-file", "--batch-check"], feed=_lines(blobs)).decode().splitlines()
        return {name: int(size) for name, _, size in (line.split(" ") for line in lines)}

    def _contents(self, blobs: Sequence[str]) -> bytes:
        if not blobs:
            return b""
        raw = self._git(["cat-file", "--batch"], feed=_lines(blobs))
        parts, at = [], 0
        for _ in blobs:
            end = raw.index(b"\n", at)
            size = int(raw[at:end].rsplit(b" ", 1)[1])
            parts.append(raw[end + 1 : end + 1 + size])
            at = end + size + 2
        return b"".join(parts)

    def _git(
        self,
        arguments: Sequence[str],
        *,
        stdin: int | None = None,
        feed: bytes = b"",
        extra: Mapping[str, str] | None = None,
    ) -> bytes:
        env = {
            "PATH": os.defpath,
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_DIR": self._git_dir,
            "GIT_WORK_TREE": self._workspace,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            **(extra or {}),
        }
        opened = [os.memfd_create(name) for name in ("output", "errors", "input")]
        output, errors, source = opened
        try:
            if feed:
                with open(source, "wb", closefd=False) as file:
                    file.write(feed)
                os.lseek(source, 0, os.SEEK_SET)
            code = self._children.run(
                ["git", "-C", self._workspace, *arguments],
                env,
                stdin=source if stdin is None else stdin,
                stdout=output,
                stderr=errors,
            )
            if code:
                words = os.pread(errors, 2000, 0).decode("utf-8", "replace").strip()
                raise SnapshotError(f"git {arguments[0]} ended with {code}: {words}")
            return os.pread(output, os.fstat(output).st_size, 0)
        finally:
            for descriptor in opened:
                os.close(descriptor)


def _lay_out(git_dir: str, base: str) -> None:
    """A git directory without templates whose branch stands at a commit of which only itself is known."""
    for name in ("objects/info", "objects/pack", "refs/heads", "info"):
        os.makedirs(f"{git_dir}/{name}", exist_ok=True)
    _write(f"{git_dir}/HEAD", "ref: refs/heads/main\n")
    _write(f"{git_dir}/refs/heads/main", base + "\n")
    _write(f"{git_dir}/shallow", base + "\n")
    _write(f"{git_dir}/config", _CONFIG)
    _write(f"{git_dir}/info/attributes", _ATTRIBUTES)
    _write(f"{git_dir}/info/exclude", _EXCLUDE)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _store(objects: str, blob: str, content: bytes) -> None:
    """Write a loose blob under its id (gitformat-loose)."""
    path = f"{objects}/{blob[:2]}/{blob[2:]}"
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(zlib.compress(b"blob %d\0" % len(content) + content, 1))


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _lines(names: Sequence[str]) -> bytes:
    return "\n".join(names).encode() + b"\n"
