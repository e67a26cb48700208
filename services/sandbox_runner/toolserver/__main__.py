"""Process 1 of a container. It is ended by nothing that the workload can send."""

from __future__ import annotations

import os
import signal

from .processes import become_undumpable
from .server import Server

# The workspace is a mount that belongs to root, which git would not trust.
_GITCONFIG = (
    "[safe]\n\tdirectory = *\n[user]\n\tname = Millrace sandbox\n\temail = sandbox@millrace.invalid\n"
)


def main(lifetime: float, patience: float) -> None:
    """Serve until the end.

    Args:
        lifetime: seconds after which the sandbox ends whatever it does.
        patience: seconds to wait for a runner that went away.
    """
    become_undumpable()
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a handler, process 1 ignores a signal
    with open("/home/agent/.gitconfig", "w") as file:
        file.write(_GITCONFIG)
    server = Server(
        "/run/channel/s", "/workspace", "/run/millrace", patience=patience, gone=lambda: os._exit(4)
    )
    server.loop.later(lifetime, lambda: os._exit(3))
    server.run()
