"""``millrace config``."""

from pathlib import Path
from typing import Any

from rich.console import Console

from services.cli.api import Api
from services.kit.errors import Refused


def show() -> None:
    """Print what is stored."""
    Console().print_json(data=Api().request("GET", "/config"))


def store(
    app_id: int | None,
    private_key: Path | None,
    webhook_secret: Path | None,
    installation_id: int | None,
    anthropic_api_key: Path | None,
) -> None:
    """Send what was given to the vault, through the gateway."""
    body: dict[str, Any] = {
        "appId": app_id,
        "privateKey": _read(private_key),
        "webhookSecret": _read(webhook_secret),
        "installationId": installation_id,
        "anthropicApiKey": _read(anthropic_api_key),
    }
    given = {name: value for name, value in body.items() if value is not None}
    if not given:
        raise Refused("nothing to store: see `millrace config set --help`")
    Console().print_json(data=Api().request("POST", "/config", given))


def clear() -> None:
    """Forget everything."""
    Api().request("DELETE", "/config")
    Console().print("cleared")


def _read(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read ({type(error).__name__})") from error
