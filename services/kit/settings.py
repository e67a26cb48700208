"""Settings from the environment, complete and typed, or no start at all.

Every variable begins with ``MILLRACE_`` (the two ``ANTHROPIC_`` ones keep their usual names); each secret
can also be given as a file through ``…_FILE``. An unknown or malformed variable refuses to start and is
named: a typing error must never silently fall back to a default.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.kit.errors import Misconfigured

PREFIX = "MILLRACE_"
_VISIBLE = re.compile(r"[!-~]+")
_SECRETS = ("admin_token", "nats_url", "database_url", "anthropic_api_key")


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8787")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its words show a piece of the value
        whole = False
    if not whole or "@" in parts.netloc or parts.query or parts.fragment or not _VISIBLE.fullmatch(value):
        raise ValueError("must be an http:// or https:// URL without user, query and fragment")
    return value.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class Settings(BaseSettings):
    """What an operator may set; the defaults run everything on one machine.

    Money is in US dollars, time in minutes, memory in MiB.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True)

    home: Path = Path(".millrace")
    """Where databases, keys, mirrors and the embedded server's store live."""
    listen: Address = "127.0.0.1:8787"
    runner_listen: Address = "127.0.0.1:0"
    public_url: HttpUrl | None = None
    admin_token: SecretStr | None = None

    nats_url: SecretStr | None = None
    """Unset: ``millrace up`` starts an embedded nats-server."""
    nats_listen: Address = "127.0.0.1:4222"
    nats_replicas: int = Field(default=1, ge=1, le=5)
    database_url: SecretStr | None = None
    """Unset: SQLite files under ``home``, one per service."""

    github_url: HttpUrl = "https://github.com"
    github_api_url: HttpUrl = "https://api.github.com"
    mention: str = Field(default="@millrace", pattern=r"^@[A-Za-z0-9-]{1,39}$")
    label: str = Field(default="millrace", min_length=1, max_length=50)

    engine: Literal["millrace", "claude-code"] = "millrace"
    """Which loop works on issues: our own, outside the sandbox, or Claude Code inside it."""
    model: str = Field(default="claude-sonnet-5-5", min_length=1)
    max_turns: int = Field(default=60, ge=1, le=1000)
    max_tokens: int = Field(default=2_000_000, ge=1000)
    """Tokens of all turns of a run, cached ones included."""
    max_cost: float = Field(default=5.0, gt=0)
    max_minutes: float = Field(default=45.0, gt=0)
    """Working time of a run: model and tools; waiting for a person does not count."""

    sandbox_image: str | None = None
    sandbox_runtime: str | None = None
    sandbox_limit: int = Field(default=8, ge=1)
    sandbox_memory: int = Field(default=2048, ge=512)
    podman_url: str | None = None
    agent_workers: int = Field(default=8, ge=1)

    instance: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """This replica's name; a restarted process with the same name finds its own things again."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: HttpUrl | None = Field(default=None, validation_alias="ANTHROPIC_BASE_URL")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only explicit values: ``load`` translates the environment, so that it can name what is wrong."""
        return (init_settings,)


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings of this process.

    Args:
        environ: the environment; the process's own by default.
        overrides: fields given by the caller (a command's options, the demo).

    Raises:
        Misconfigured: a variable is unknown, malformed, empty, given twice, or its file cannot be read. The
            message names each variable and never shows a value.
    """
    given = os.environ if environ is None else environ
    # The ANTHROPIC_ ones are not ours alone: other programs leave them empty.
    environment = {name: value for name, value in given.items() if value or name.startswith(PREFIX)}
    values, problems = _read(environment)
    try:
        settings = Settings(**(values | overrides))
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            place = str(problem["loc"][0]) if problem["loc"] else "settings"
            problems.append(
                f"{_variable(place) if place in Settings.model_fields else place}: {problem['msg']}"
            )
        settings = None
    if problems or settings is None:
        raise Misconfigured("Millrace does not start with these settings:\n  " + "\n  ".join(problems))
    return settings


def _read(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What the environment sets by field, and what is wrong with it."""
    names = {_variable(field): field for field in Settings.model_fields}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable, value in sorted(environment.items()):
        base = variable.removesuffix("_FILE")
        if variable in names and value:
            values[names[variable]] = value
        elif variable in names:
            problems.append(f"{variable} is empty: give it a value or unset it")
        elif variable != base and names.get(base) in _SECRETS and base in environment:
            problems.append(f"{base} and {variable} are both set: keep one")
        elif variable != base and names.get(base) in _SECRETS:
            try:
                values[names[base]] = _content(value)
            except ValueError as error:
                problems.append(f"{variable}: {error}")
        elif variable.startswith(PREFIX):
            problems.append(f"{variable} is not a setting of Millrace (see .env.example)")
    return values, problems


def _content(path: str) -> str:
    try:
        text = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"the file cannot be read ({type(error).__name__})") from None
    if not text:
        raise ValueError("the file is empty")
    return text


def _variable(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return str(alias) if alias else PREFIX + field.upper()
