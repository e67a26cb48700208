"""A change to a repository as data: what a checkpoint stores, what is verified, what is published.

The bytes travel through the object store under their digest; facts carry only ``ChangeRef``.
A change is never a diff and never a pack: whoever reads it needs no git on untrusted data.
"""

import hashlib
from typing import Literal

import msgspec

Mode = Literal["100644", "100755", "120000"]
"""git's modes for a file, an executable and a symbolic link; nothing else can be published."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One path that differs from the base: its whole new content.

    ``path`` is the raw bytes relative to the root, ``/`` between parts. ``blob`` is git's SHA-1 of
    ``content``. For a symbolic link the content is its target.
    """

    path: bytes
    mode: Mode
    blob: str
    content: bytes


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that turns the tree of commit ``base`` into the tree ``tree`` (both SHA-1, hex)."""

    base: str
    tree: str
    written: tuple[Written, ...] = ()
    deleted: tuple[bytes, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the tree is the base's tree."""
        return not self.written and not self.deleted


class ChangeRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a change lies in the object store, and enough of it to read without fetching."""

    digest: str
    tree: str
    files: int = 0
    size: int = 0


def encode_change(change: Change) -> bytes:
    """The bytes of a change (MessagePack: contents are binary)."""
    return msgspec.msgpack.encode(change)


def decode_change(raw: bytes) -> Change:
    """The change that these bytes hold; ``msgspec.DecodeError`` if they do not hold one."""
    return msgspec.msgpack.decode(raw, type=Change)


def reference(change: Change) -> ChangeRef:
    """How facts name this change: SHA-256 of its bytes, tree, number of paths, bytes of content."""
    return ChangeRef(
        digest="sha256-" + hashlib.sha256(encode_change(change)).hexdigest(),
        tree=change.tree,
        files=len(change.written) + len(change.deleted),
        size=sum(len(entry.content) for entry in change.written),
    )
