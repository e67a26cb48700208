"""``millrace up``, ``serve`` and ``provision``."""

import asyncio

from rich.console import Console

from services.cli.api import Api
from services.kit import logs
from services.kit.errors import MillraceError
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
            for line in await asyncio.to_thread(_missing, running):
                console.print(f"[yellow]missing[/yellow] {line}", soft_wrap=True)
            await until_signalled()
            console.print("stopping …")

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


def _missing(settings: Settings) -> list[str]:
    """What has to be stored before the first issue can be worked on, and how."""
    try:
        view = Api(settings).request("GET", "/config")
    except MillraceError as error:
        return [f"the state of the credentials is not known: {error}"]
    lines = []
    if not view["apps"]:
        lines.append(
            "a GitHub App: millrace config set --app-id ID --private-key-file PEM --webhook-secret-file FILE"
        )
    if view["modelKey"] is None:
        lines.append(
            "a key for the model: millrace config set --anthropic-api-key-file FILE, or ANTHROPIC_API_KEY"
        )
    return lines
