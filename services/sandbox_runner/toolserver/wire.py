"""Frames on the tool channel: two lengths, a JSON object, and bytes that JSON would only inflate.

Both ends use this module, so it knows nothing but the standard library. ``docs/tool-protocol.md`` describes
what travels in the frames.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

VERSION = 1
"""Of the protocol. A server says it first; a runner refuses any other."""

HEADER = struct.Struct(">II")
"""Length of the JSON text, length of the attachment; unsigned 32 bit, big endian."""

MAX_TEXT = 8 * 1024 * 1024
MAX_BLOB = 64 * 1024 * 1024
"""The most that one frame may carry to a sandbox; an answer's bounds are said by the call."""

CHUNK = 1024 * 1024
"""A pack that cannot be passed as a descriptor travels in attachments of this size."""


def pack_frame(message: dict[str, Any], blob: bytes = b"") -> bytes:
    """The bytes of one frame; ``ValueError`` if it is larger than the other side accepts."""
    text = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_TEXT or len(blob) > MAX_BLOB:
        raise ValueError(f"a frame of {len(text)} + {len(blob)} bytes is too large for the channel")
    return HEADER.pack(len(text), len(blob)) + text + blob


class Frames:
    """Cuts what arrives into frames. Holds one unfinished frame at most, and never one that is too long.

    Args:
        room: asked at each header for the longest text and the longest attachment that may come now.
    """

    def __init__(self, room: Callable[[], tuple[int, int]]) -> None:
        self._room = room
        self._held = bytearray()
        self._wanted: tuple[int, int] | None = None

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that are whole now: text and attachment, each taken before the next is looked at.

        Raises:
            ValueError: a header announces more than there is room for; the stream is of no use any more.
        """
        self._held += data
        while True:
            if self._wanted is None:
                if len(self._held) < HEADER.size:
                    return
                text, blob = HEADER.unpack_from(self._held)
                most_text, most_blob = self._room()
                if text > most_text or blob > most_blob:
                    raise ValueError(f"the other side announced a frame of {text} + {blob} bytes")
                self._wanted = text, blob
            text, blob = self._wanted
            end = HEADER.size + text + blob
            if len(self._held) < end:
                return
            with memoryview(self._held) as view:
                frame = bytes(view[HEADER.size : HEADER.size + text]), bytes(view[HEADER.size + text : end])
            del self._held[:end]
            self._wanted = None
            yield frame
