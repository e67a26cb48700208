"""Frames on the tool channel: two lengths, a JSON object, and bytes that JSON would only inflate.

Both ends use this module, so it knows nothing but the standard library.
"""

import json
import socket
import struct
from typing import Any

HEADER = struct.Struct(">II")
"""Length of the JSON text, length of the attachment; unsigned 32 bit, big endian."""

MAX_TEXT = 8 * 1024 * 1024
MAX_BLOB = 64 * 1024 * 1024
CHUNK = 1024 * 1024
"""Packs travel in attachments of this size."""


def pack_frame(message: dict[str, Any], blob: bytes = b"") -> bytes:
    """The bytes of one frame; ``ValueError`` if it is larger than the other side accepts."""
    text = json.dumps(message).encode("ascii")
    if len(text) > MAX_TEXT or len(blob) > MAX_BLOB:
        raise ValueError(f"a frame of {len(text)} + {len(blob)} bytes is too large for the channel")
    return HEADER.pack(len(text), len(blob)) + text + blob


def check_lengths(header: bytes) -> tuple[int, int]:
    """The two lengths of a header; ``ValueError`` if no honest peer would announce them."""
    text, blob = HEADER.unpack(header)
    if text > MAX_TEXT or blob > MAX_BLOB:
        raise ValueError(f"the other side announced a frame of {text} + {blob} bytes")
    return text, blob


def read_frame(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """The next frame; ``EOFError`` when the other side is gone."""
    text, blob = check_lengths(_read(sock, HEADER.size))
    message = json.loads(_read(sock, text))
    if not isinstance(message, dict):
        raise ValueError("a frame holds a JSON object")  # noqa: TRY004  what is wrong is the data
    return message, _read(sock, blob)


def _read(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return bytes(data)
