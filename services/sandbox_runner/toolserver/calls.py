"""Which calls were made, and what came of them: each is carried out once, often as it is asked (pure)."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 256
REMEMBERED_BYTES = 4 * 1024 * 1024
KNOWN = 20_000
FORGOTTEN = "this call was carried out already and its answer is no longer kept"


class Calls:
    """Calls by id, with the frames of the last answers.

    A call that changes something is kept: asked again, also by a runner that came later, it gets its first
    answer. Where that had to make room, the call is refused (``FORGOTTEN``) rather than carried out twice.
    """

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._asked: set[str] = set()
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._known: OrderedDict[str, None] = OrderedDict()

    def connected(self) -> None:
        """Another runner listens: it is told of nothing that it did not ask for itself."""
        self._asked.clear()

    def begin(self, call: str) -> bool:
        """Whether a call that has no answer is to be carried out now; if not, it runs already."""
        self._asked.add(call)
        if call in self._running:
            return False
        self._running.add(call)
        return True

    def answer(self, call: str) -> bytes | None:
        """The frame of a call's first answer; empty if it is no longer kept, None if there was none."""
        return self._answers.get(call, b"" if call in self._known else None)

    def end(self, call: str, frame: bytes, *, keep: bool) -> bool:
        """Note the answer of a call and say whether somebody waits for it."""
        self._running.discard(call)
        if keep:
            self._known[call] = None
            self._answers[call] = frame
            self._size += len(frame)
            while len(self._answers) > REMEMBERED or self._size > REMEMBERED_BYTES:
                self._size -= len(self._answers.popitem(last=False)[1])
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        waited = call in self._asked
        self._asked.discard(call)
        return waited
