"""``millrace``: what the commands are called; what they do stands in modules of their own."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.kit.errors import MillraceError

app = typer.Typer(
    name="millrace",
    help="Turns GitHub issues into pull requests, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
config = typer.Typer(help="Show, store or clear the credentials that the vault keeps.", no_args_is_help=True)
token = typer.Typer(help="The operator's token.", no_args_is_help=True)
app.add_typer(config, name="config")
app.add_typer(token, name="token")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"millrace {importlib.metadata.version('millrace')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


# Each command imports what it needs: `millrace --help` should not load six services.


@app.command()
def up() -> None:
    """Run everything in one process tree, with an embedded nats-server and SQLite."""
    from services.cli.up import up as run  # noqa: PLC0415

    run()


@app.command()
def serve(service: Annotated[str, typer.Argument(help="gateway, vault, sandbox_runner, agent, …")]) -> None:
    """Run one service; NATS is at MILLRACE_NATS_URL."""
    from services.cli.up import serve as run  # noqa: PLC0415

    run(service)


@app.command()
def provision() -> None:
    """Create or update the streams and consumers at MILLRACE_NATS_URL."""
    from services.cli.up import provision as run  # noqa: PLC0415

    run()


@app.command()
def demo(
    live: Annotated[bool, typer.Option(help="The real model solves it (ANTHROPIC_API_KEY).")] = False,
    keep: Annotated[bool, typer.Option(help="Leave everything running at the end, to look around.")] = False,
) -> None:
    """Watch an issue become a pull request: everything is real but GitHub and, unless --live, Claude."""
    from services.cli.demo import demo as run  # noqa: PLC0415

    run(live=live, keep=keep)


@app.command()
def issues(limit: Annotated[int, typer.Option(min=1, max=1000)] = 30) -> None:
    """List the newest runs."""
    from services.cli.views import issues as run  # noqa: PLC0415

    run(limit)


@app.command()
def history(
    issue: Annotated[str, typer.Argument(help="OWNER/REPO#NUMBER")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new events come.")] = False,
) -> None:
    """Tell everything that happened to an issue."""
    from services.cli.views import history as run  # noqa: PLC0415

    run(issue, as_json=json, follow=follow)


@app.command()
def doctor() -> None:
    """Check this machine and say how to mend what is missing."""
    from services.cli.doctor import doctor as run  # noqa: PLC0415

    run()


@config.command("show")
def config_show() -> None:
    """What is stored, without any secret."""
    from services.cli.credentials import show  # noqa: PLC0415

    show()


@config.command("set")
def config_set(
    app_id: Annotated[int | None, typer.Option(help="The GitHub App's id.")] = None,
    private_key_file: Annotated[Path | None, typer.Option(help="The App's private key (PEM).")] = None,
    webhook_secret_file: Annotated[Path | None, typer.Option(help="A file with the webhook secret.")] = None,
    installation_id: Annotated[int | None, typer.Option(help="Only for a single installation.")] = None,
    anthropic_api_key_file: Annotated[Path | None, typer.Option(help="A file with the model key.")] = None,
) -> None:
    """Store credentials; what is left out stays as it is. Secrets come from files, never from arguments."""
    from services.cli.credentials import store  # noqa: PLC0415

    store(app_id, private_key_file, webhook_secret_file, installation_id, anthropic_api_key_file)


@config.command("clear")
def config_clear() -> None:
    """Forget every credential."""
    from services.cli.credentials import clear  # noqa: PLC0415

    clear()


@token.command("path")
def token_path() -> None:
    """Where the operator's token is kept."""
    from services.kit.settings import load  # noqa: PLC0415

    typer.echo((load().home / "admin-token").absolute())


def main() -> None:
    """The script ``millrace``: errors that a person can act on are one message, no traceback."""
    try:
        app()
    except MillraceError as error:
        typer.echo(f"millrace: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
