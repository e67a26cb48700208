"""Finds secrets in bytes, however they were written down."""

import base64
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

_PIECE = 32
"""Bytes of a secret that may appear nowhere: a part that long is a leak as well."""


class Canaries:
    """Named secrets to look for.

    Args:
        secrets: by a name that a failed test may show.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._needles = [
            (name, form, needle)
            for name, secret in secrets.items()
            for piece in _pieces(secret)
            for form, needle in _forms(piece)
        ]

    def in_bytes(self, hay: bytes, where: str) -> list[str]:
        """Which secrets ``hay`` holds and in which form, each with ``where``."""
        return [f"{name} ({form}) in {where}" for name, form, needle in self._needles if needle in hay]

    def in_files(self, roots: Iterable[Path], *, besides: Container[Path] = ()) -> list[str]:
        """The same for every file below these directories, or for the files themselves."""
        found = []
        for root in roots:
            for file in [root] if root.is_file() else sorted(root.rglob("*")):
                if file.is_file() and not file.is_symlink() and file not in besides:
                    found += self.in_bytes(file.read_bytes(), str(file))
        return found


def _pieces(secret: str) -> Iterator[bytes]:
    """The lines of a key without its frame, and long lines in parts."""
    for line in secret.encode().splitlines():
        if not line.startswith(b"-----"):
            starts = range(0, max(len(line) - _PIECE, 0) + 1, _PIECE)
            yield from (line[start : start + _PIECE] for start in starts)


def _forms(piece: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", piece
    yield "hex", piece.hex().encode()
    yield "hex", piece.hex().upper().encode()
    if quote(piece, safe="") != piece.decode():
        yield "in a URL", quote(piece, safe="").encode()
    for shift in range(3):  # base64 has three faces, after what stands before; its ends mix with neighbours
        coded = base64.b64encode(b"\0" * shift + piece)
        whole = coded[4 if shift else 0 : len(coded) - (4 if (shift + len(piece)) % 3 else 0)]
        yield "base64", whole
        yield "base64", whole.translate(bytes.maketrans(b"+/", b"-_"))
