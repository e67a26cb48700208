"""``millrace up``, ``serve`` and ``provision``."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from services.kit import logs
from services.kit.serve import main, mesh, provision_at, until_signalled
from services.kit.settings import Settings, load


def up() -> None:
    """Everything, until SIGTERM or Ctrl-C."""
    settings = load()
    logs.configure(settings.log_level, settings.log_format)
    console = Console(stderr=True)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def run() -> None:
        async with mesh(settings) as (running, _):
            console.print(f"[bold]Millrace is up[/bold] at http://{running.listen}")
            console.print(f"operator token: {running.home.absolute() / 'admin-token'}")
            await until_signalled()
            console.print("stopping …")

    with _pid_file(settings):
        asyncio.run(run())


def serve(service: str) -> None:
    """One service, until SIGTERM or Ctrl-C."""
    main(service)


def provision() -> None:
    """Streams and consumers."""
    settings = load()
    logs.configure(settings.log_level, settings.log_format)
    asyncio.run(provision_at(settings))
    Console(stderr=True).print("streams and consumers are as the code wants them")


@contextlib.contextmanager
def _pid_file(settings: Settings) -> Iterator[Path]:
    """``make down`` ends what this file names."""
    file = settings.home / "millrace.pid"
    file.write_text(str(os.getpid()))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
