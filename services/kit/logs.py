"""Structured logs with secrets taken out, whoever wrote them, and nothing that a terminal would obey."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

_SHAPES = re.compile(
    r"gh[pousr]_[A-Za-z0-9_.\-]{16,}|github_pat_\w{20,}|sk-ant-[A-Za-z0-9_\-]{8,}|mlr_[A-Za-z0-9_\-]{20,}"
    r"|\bS[ACNOUX][A-Z2-7]{56}\b"  # nkey seeds
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|eyJ[A-Za-z0-9_\-]{10,1000}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+|(?<=://)[^/\s@]+(?=@)"
    r"|(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9_.~+/=\-]{8,}",
    re.DOTALL,
)
_NAMES = re.compile(r"token|secret|password|authorization|api_?key|private_?key|cookie", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MANY_LINES = ("exception", "stack")
REDACTED = "[redacted]"


def redact(text: str) -> str:
    """``text`` without anything that looks like a credential."""
    return _SHAPES.sub(REDACTED, text)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case bytes():
            return redact(value.decode(errors="replace"))
        case Mapping():
            return {
                redact(key) if isinstance(key, str) else key: (
                    REDACTED if _NAMES.search(str(key)) else _clean(each)
                )
                for key, each in value.items()
            }
        case list() | tuple() | set():
            return [_clean(each) for each in value]
        case _:
            return value if isinstance(value, int | float | bool | None) else redact(str(value))


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: the last but one, so that tracebacks are cleaned too."""
    for key in list(event):
        keep = not _NAMES.search(key) or isinstance(event[key], int | float)
        cleaned = _clean(event[key]) if keep else REDACTED
        event[key] = (
            _shown(cleaned, kept="\n\t" if key in _MANY_LINES else "")
            if isinstance(cleaned, str)
            else cleaned
        )
    return event


def _shown(text: str, *, kept: str) -> str:
    """Control characters as escapes: a stranger's text must not end a line or colour the next."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in kept else ascii(match[0])[1:-1], text)


def configure(level: str = "info", style: str = "console") -> None:
    """Send structlog and the standard library's records to standard error, redacted."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # plain text: no local variables
        redact_event,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpcore", "httpcore2", "httpx", "httpx2", "anthropic", "urllib3", "aiosqlite", "podman"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # their debug lines carry headers
    for chatty in ("alembic", "uvicorn", "faststream"):  # their news is ours, told in our words
        logging.getLogger(chatty).setLevel(logging.WARNING)
