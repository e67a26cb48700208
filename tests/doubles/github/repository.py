"""A bare git repository, through git's own plumbing: real objects, real refs, no working tree.

Calls block for some milliseconds each. That is on purpose: one request changes the repository and the
double's state without another request in between.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class GitFailedError(Exception):
    """git ended with an error; ``str()`` is its standard error."""


@dataclass(frozen=True)
class Entry:
    """One entry of a tree; ``size`` in bytes, ``None`` unless it is a blob."""

    mode: str
    type: str
    sha: str
    size: int | None
    path: str


@dataclass(frozen=True)
class Change:
    """Put ``sha`` at ``path``, or delete the path when ``sha`` is ``None``."""

    path: str
    mode: str
    sha: str | None


@dataclass(frozen=True)
class Commit:
    """A commit as git stores it; dates in ISO 8601 with the offset."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: tuple[str, str, str]
    committer: tuple[str, str, str]
    message: str


@dataclass(frozen=True)
class FileChange:
    """One file of a diff; ``status`` is git's letter, counts are zero for binary files."""

    path: str
    status: str
    additions: int
    deletions: int


class GitRepository:
    """Promises of the methods: shas are 40 hex digits; absent things are ``None``, not errors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, default_branch: str) -> None:
        """Make the bare repository; any commit may be fetched by its id and partially, as at GitHub."""
        self.path.mkdir(parents=True)
        self.run("init", "-q", "--bare", f"--initial-branch={default_branch}", ".")
        for key in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
            self.run("config", key, "true")

    def run(self, *args: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """Standard output of ``git ARGS``.

        Raises:
            GitFailedError: git ended with an error.
        """
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_DIR": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "LC_ALL": "C",
            **(env or {}),
        }
        done = subprocess.run(
            ["git", *args], cwd=self.path, env=surroundings, input=data, capture_output=True, check=False
        )
        if done.returncode:
            raise GitFailedError(done.stderr.decode(errors="replace").strip())
        return done.stdout

    def line(self, *args: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """The same as text, without the line end."""
        return self.run(*args, data=data, env=env).decode(errors="replace").strip()

    def write_blob(self, content: bytes) -> str:
        """Store the bytes; their object id."""
        return self.line("hash-object", "-w", "--stdin", data=content)

    def object_type(self, sha: str) -> str | None:
        """``blob``, ``tree``, ``commit`` or ``tag``."""
        try:
            return self.line("cat-file", "-t", sha)
        except GitFailedError:
            return None

    def read_blob(self, sha: str) -> bytes:
        """The bytes of a blob that exists."""
        return self.run("cat-file", "blob", sha)

    def resolve(self, name: str, kind: str = "commit") -> str | None:
        """The id of the commit or tree that a sha, branch or tag names."""
        for candidate in (f"refs/heads/{name}", f"refs/tags/{name}", f"refs/{name}", name):
            try:
                return self.line(
                    "rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{{kind}}}"
                )
            except GitFailedError:
                continue
        return None

    def entries(self, tree: str, *, recursive: bool = False) -> list[Entry]:
        """What a tree holds, with the trees themselves; paths from the root of the tree."""
        flags = ["-l", "-z", *(["-r", "-t"] if recursive else [])]
        rows = self.run("ls-tree", *flags, tree).decode(errors="surrogateescape").split("\0")
        found = []
        for row in filter(None, rows):
            head, path = row.split("\t", 1)
            mode, kind, sha, size = head.split()
            found.append(Entry(mode, kind, sha, None if size == "-" else int(size), path))
        return found

    def entry(self, commit: str, path: str) -> Entry | None:
        """What lies at a path of a commit."""
        parent, _, name = path.rpartition("/")
        try:
            around = self.entries(f"{commit}:{parent}" if parent else f"{commit}^{{tree}}")
        except GitFailedError:
            return None
        return next((entry for entry in around if entry.path == name), None)

    def write_tree(self, base: str | None, changes: Sequence[Change]) -> str:
        """The id of the base tree (``None``: empty) with the changes.

        Raises:
            GitFailedError: an object is missing, or a deleted path is not in the base.
        """
        index = self.path / f"index.{os.urandom(8).hex()}"
        env = {"GIT_INDEX_FILE": str(index)}
        try:
            self.run("read-tree", *([base] if base else ["--empty"]), env=env)
            for change in changes:
                self._apply(change, env)
            return self.line("write-tree", env=env)
        finally:
            index.unlink(missing_ok=True)

    def _apply(self, change: Change, env: Mapping[str, str]) -> None:
        # ``--index-info`` alone works without a working tree; mode 0 takes a path out.
        literal = {**env, "GIT_LITERAL_PATHSPECS": "1"}
        here = [
            path for path in self.run("ls-files", "-z", "--", change.path, env=literal).split(b"\0") if path
        ]
        if change.sha is None and not here:
            raise GitFailedError(f"{change.path} is not in the base tree")
        name = change.path.encode(errors="surrogateescape")
        rows = [
            b"0 " + b"0" * 40 + b"\t" + path + b"\0" for path in here if change.sha is None or path != name
        ]
        if change.sha is not None and change.mode != "040000":
            rows.append(f"{change.mode} {change.sha}\t".encode() + name + b"\0")
        self.run("update-index", "-z", "--index-info", data=b"".join(rows), env=env)
        if change.sha is not None and change.mode == "040000":
            self.run("read-tree", f"--prefix={change.path}/", change.sha, env=env)

    def write_commit(
        self, tree: str, parents: Sequence[str], message: str, author: tuple[str, str, str],
        committer: tuple[str, str, str],
    ) -> str:  # fmt: skip
        """The id of a new commit; people as name, address, ISO date."""
        env: dict[str, str] = {}
        for role, (name, email, date) in (("AUTHOR", author), ("COMMITTER", committer)):
            env |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email, f"GIT_{role}_DATE": date}
        options = [option for parent in parents for option in ("-p", parent)]
        return self.line("commit-tree", tree, *options, "-F", "-", data=message.encode(), env=env)

    def commit(self, sha: str) -> Commit:
        """Read a commit that exists."""
        form = "%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B"
        fields = self.run("show", "-s", f"--format={form}", sha).decode(errors="replace").split("\0")
        tree, parents, an, ae, ai, cn, ce, ci, message = fields
        people = (an, ae, ai), (cn, ce, ci)
        return Commit(sha, tree, tuple(parents.split()), *people, message.rstrip("\n"))

    def refs(self, prefix: str) -> dict[str, str]:
        """Full names to object ids, of the refs whose name begins with ``prefix``."""
        rows = self.line("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        pairs = (row.split(" ") for row in rows)
        return {name: sha for name, sha in pairs if name.startswith(prefix)}

    def ref(self, name: str) -> str | None:
        """The object that the ref with this full name points at."""
        return self.refs(name).get(name)

    def set_ref(self, name: str, sha: str) -> None:
        """Create or move a ref.

        Raises:
            GitFailedError: git refuses the name or the object.
        """
        self.run("update-ref", name, sha)

    def delete_ref(self, name: str) -> None:
        """Remove a ref."""
        self.run("update-ref", "-d", name)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether moving from ``older`` to ``newer`` is a fast forward."""
        try:
            self.run("merge-base", "--is-ancestor", older, newer)
        except GitFailedError:
            return False
        return True

    def commits_between(self, base: str, head: str) -> list[str]:
        """Commits of ``head`` that ``base`` does not have, oldest first."""
        return self.line("rev-list", "--reverse", f"{base}..{head}").split()

    def changed_files(self, base: str, head: str) -> list[FileChange]:
        """Files that differ between the merge base and ``head``."""
        span = f"{base}...{head}"
        counted = (
            self.run("diff", "--numstat", "--no-renames", "-z", span).decode(errors="replace").split("\0")
        )
        letters = (
            self.run("diff", "--name-status", "--no-renames", "-z", span).decode(errors="replace").split("\0")
        )
        status = dict(zip(letters[1::2], letters[::2], strict=False))
        rows = (row.split("\t", 2) for row in counted if row)
        return [
            FileChange(path, status[path], int(more) if more != "-" else 0, int(less) if less != "-" else 0)
            for more, less, path in rows
        ]

    def patch(self, base: str, head: str, path: str) -> str:
        """The unified diff of one file, hunks only."""
        text = self.run("diff", "--no-renames", f"{base}...{head}", "--", path).decode(errors="replace")
        start = text.find("@@")
        return text[start:].rstrip("\n") if start >= 0 else ""
