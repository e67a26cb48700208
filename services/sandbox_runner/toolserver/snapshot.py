"""The repository inside: checked out from a pack, listed as a manifest, brought to a stored change.

All of it happens in a git directory of its own beside the workspace, so that nothing the agent does to
``.git`` breaks a checkpoint. It is convenience, not protection: the host believes only the bytes.
"""

import hashlib
import os
import shutil
import threading
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .processes import Processes

Entry = tuple[str, str, int]
"""Mode, path (base64) and size of one written path."""

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
    """The workspace and the hidden git directory that remembers its base."""

    def __init__(self, processes: Processes, workspace: Path, private: Path) -> None:
        self._processes = processes
        self._workspace = workspace
        self._git_dir = private / "git"
        self._lock = threading.Lock()

    def checkout(self, base: str, chunks: Callable[[], bytes]) -> dict[str, Any]:
        """Lay out commit ``base`` from a pack that holds it and everything it names.

        Args:
            chunks: the next part of the pack; empty at its end.
        """
        with self._lock:
            _lay_out(self._git_dir, base)
            self._git(["index-pack", "--stdin", "--keep=base"], feed=chunks)
            self._git(["read-tree", "-m", "-u", base])
            visible = self._workspace / ".git"
            _lay_out(visible, base)
            (visible / "objects/info/alternates").write_text(f"{self._git_dir}/objects\n")
            shutil.copyfile(self._git_dir / "index", visible / "index")
            return {"tree": self._git(["rev-parse", f"{base}^{{tree}}"]).decode().strip()}

    def manifest(self, base: str, *, files: int, size: int) -> tuple[dict[str, Any], bytes]:
        """What differs from ``base``: the tree, entries and deletions, and the contents one after another.

        Args:
            files: more changed paths than this are counted, not sent.
            size: more bytes of content than this are counted, not sent.
        """
        with self._lock:
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
            sizes = self._sizes([blob for mode, blob, _ in written if mode != "160000"])
            total = sum(sizes.get(blob, 0) for _, blob, _ in written)
            answer = {
                "tree": tree,
                "files": len(written) + len(deleted),
                "size": total,
                "largest": max(sizes.values(), default=0),
                "deleted": [b64encode(path).decode() for path in deleted],
                "written": [[m, b64encode(p).decode(), sizes.get(b, 0)] for m, b, p in written],
            }
            if len(written) + len(deleted) > files or total > size:
                return answer | {"written": [], "deleted": [], "too_large": True}, b""
            return answer, self._contents([blob for mode, blob, _ in written if mode != "160000"])

    def apply(
        self, base: str, written: Sequence[Entry], deleted: Sequence[str], contents: bytes
    ) -> dict[str, Any]:
        """Bring a fresh checkout of ``base`` to a stored change; answers with the resulting tree."""
        with self._lock:
            lines, at = [f"0 {'0' * 40}\t".encode() + b64decode(path) for path in deleted], 0
            for mode, path, size in written:
                blob = _store(self._git_dir / "objects", contents[at : at + size])
                at += size
                lines.append(f"{mode} {blob}\t".encode() + b64decode(path))
            scratch = {"GIT_INDEX_FILE": str(self._git_dir / "apply.index")}
            self._git(["read-tree", base], extra=scratch)
            feed = iter([b"".join(line + b"\0" for line in lines)])
            self._git(["update-index", "-z", "--index-info"], extra=scratch, feed=lambda: next(feed, b""))
            tree = self._git(["write-tree"], extra=scratch).decode().strip()
            self._git(["read-tree", "--reset", "-u", tree])
            self._git(["add", "--all", "."])
            return {"tree": self._git(["write-tree"]).decode().strip()}

    def _sizes(self, blobs: Sequence[str]) -> dict[str, int]:
        if not blobs:
            return {}
        feed = iter(["\n".join(blobs).encode() + b"\n"])
        lines = self._git(["cat-file", "--batch-check"], feed=lambda: next(feed, b"")).decode().splitlines()
        return {name: int(size) for name, _, size in (line.split(" ") for line in lines)}

    def _contents(self, blobs: Sequence[str]) -> bytes:
        if not blobs:
            return b""
        feed = iter(["\n".join(blobs).encode() + b"\n"])
        raw = self._git(["cat-file", "--batch"], feed=lambda: next(feed, b""))
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
        feed: Callable[[], bytes] | None = None,
        extra: dict[str, str] | None = None,
    ) -> bytes:
        env = {
            "PATH": os.defpath,
            "LC_ALL": "C",
            "HOME": "/nonexistent",
            "GIT_DIR": str(self._git_dir),
            "GIT_WORK_TREE": str(self._workspace),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            **(extra or {}),
        }
        output, errors = (os.memfd_create(name) for name in ("output", "errors"))
        read_end, write_end = os.pipe()
        try:
            child = self._processes.start(
                ["git", *arguments],
                env=env,
                cwd=str(self._workspace),
                stdin=read_end,
                stdout=output,
                stderr=errors,
            )
            os.close(read_end)
            read_end = -1
            broken = False
            while feed is not None and (data := feed()):
                while data and not broken:
                    try:
                        data = data[os.write(write_end, data) :]
                    except BrokenPipeError:
                        broken = True  # git ended early; what comes still has to be taken from the channel
            os.close(write_end)
            write_end = -1
            code = child.wait()
            os.close(child.ended)
            if code:
                words = os.pread(errors, 2000, 0).decode("utf-8", "replace").strip()
                raise SnapshotError(f"git {arguments[0]} ended with {code}: {words}")
            return os.pread(output, os.fstat(output).st_size, 0)
        finally:
            for descriptor in (output, errors, read_end, write_end):
                if descriptor >= 0:
                    os.close(descriptor)


def _lay_out(git_dir: Path, base: str) -> None:
    """A git directory without templates whose branch stands at a commit of which only itself is known."""
    for name in ("objects/info", "objects/pack", "refs/heads", "info"):
        (git_dir / name).mkdir(parents=True, exist_ok=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "refs/heads/main").write_text(base + "\n")
    (git_dir / "shallow").write_text(base + "\n")
    (git_dir / "config").write_text(_CONFIG)
    (git_dir / "info/attributes").write_text(_ATTRIBUTES)
    (git_dir / "info/exclude").write_text(_EXCLUDE)


def _store(objects: Path, content: bytes) -> str:
    """Write a loose blob and say its id (gitformat-loose)."""
    raw = b"blob %d\0" % len(content) + content
    name = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    path = objects / name[:2] / name[2:]
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(raw, 1))
    return name
