"""The head and the tail of an output of any length, in bounded memory."""

from __future__ import annotations

from collections import deque


class Clip:
    """Keeps the first ``head`` and the last ``tail`` bytes of what is added."""

    def __init__(self, head: int, tail: int) -> None:
        self._head_size = head
        self._tail_size = tail
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_length = 0
        self._total = 0

    def add(self, data: bytes) -> None:
        """The next bytes of the output."""
        self._total += len(data)
        room = self._head_size - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_length += len(data)
        while self._tail and self._tail_length - len(self._tail[0]) >= self._tail_size:
            self._tail_length -= len(self._tail.popleft())

    def result(self) -> tuple[str, int]:
        """The text, with a line that tells how many bytes are missing, and that number.

        Bytes that are not UTF-8 become U+FFFD; control characters stay as they are: it is data.
        """
        tail = b"".join(self._tail)
        if len(tail) > self._tail_size:
            tail = tail[-self._tail_size :] if self._tail_size else b""
        omitted = self._total - len(self._head) - len(tail)
        if not omitted:
            return (bytes(self._head) + tail).decode("utf-8", "replace"), 0
        first, rest = _whole_end(bytes(self._head)), _whole_start(tail)
        omitted = self._total - len(first) - len(rest)
        gap = f"\n[... {omitted} bytes omitted ...]\n"
        return first.decode("utf-8", "replace") + gap + rest.decode("utf-8", "replace"), omitted


def _whole_end(data: bytes) -> bytes:
    """Without a character that was cut at the end (RFC 3629: at most four bytes)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if length > back else data
    return data


def _whole_start(data: bytes) -> bytes:
    skip = 0
    while skip < min(3, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    return data[skip:]
