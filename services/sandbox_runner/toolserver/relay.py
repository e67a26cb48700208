"""Runs a program with a loopback address for the model: each connection there is one to the runner's socket.

``relay.py VARIABLE -- PROGRAM ARGUMENTS…``: the program finds ``http://127.0.0.1:PORT`` in VARIABLE. Bytes
pass unread in both directions; who is asked, with which key and at whose cost is decided outside. The
program's exit code is the relay's. Like the rest of this folder it knows nothing but the standard library.
"""

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

SOCKET = "/run/channel/model"
CONNECTIONS = 16
"""At once; more wait in the listener's queue."""
_PATIENCE = 60.0
"""Seconds for which a connection waits for a runner that does not listen (yet, or again)."""
_PIECE = 65536


def _outside(path: str, patience: float) -> socket.socket | None:
    """A connection to the runner, or None if nobody listens for so long."""
    deadline = time.monotonic() + patience
    while True:
        outside = socket.socket(socket.AF_UNIX)
        try:
            outside.connect(path)
        except OSError:
            outside.close()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        else:
            return outside


def _join(inside: socket.socket, outside: socket.socket) -> None:
    """Copy in both directions until either side has ended."""
    other = {inside: outside, outside: inside}
    with selectors.DefaultSelector() as selector:
        for end in other:
            selector.register(end, selectors.EVENT_READ, end)
        while True:
            for key, _ in selector.select():
                data = key.data.recv(_PIECE)
                if not data:
                    return
                other[key.data].sendall(data)


def _carry(inside: socket.socket, path: str, room: threading.Semaphore, patience: float) -> None:
    try:
        with inside, suppress(OSError):
            outside = _outside(path, patience)
            if outside is not None:
                with outside:
                    _join(inside, outside)
    finally:
        room.release()


def serve(listener: socket.socket, path: str = SOCKET, patience: float = _PATIENCE) -> None:
    """Carry connections for ever."""
    room = threading.Semaphore(CONNECTIONS)
    while True:
        room.acquire()
        inside, _ = listener.accept()
        inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            threading.Thread(target=_carry, args=(inside, path, room, patience), daemon=True).start()
        except RuntimeError:  # no room for another thread in this sandbox
            inside.close()
            room.release()


def main(arguments: list[str]) -> int:
    """Listen, run the program, return its exit code (127: there is no such program)."""
    variable, _, *program = arguments
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    try:
        child = subprocess.Popen(program, env={**os.environ, variable: address})
    except FileNotFoundError:
        sys.stderr.write(f"{program[0]}: there is no such program in this sandbox\n")
        return 127
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main(sys.argv[1:]))
