"""git on the host: on repositories of our own only, deaf to every configuration but what is said here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.kit.errors import Later
from services.sandbox_runner import process
from services.sandbox_runner.process import run_process

_MAX_WORDS = 4000


class GitError(Later):
    """git ended with an error; ``words`` is what it said, not yet fit to be shown to anybody."""

    def __init__(self, command: str, code: int, words: str) -> None:
        super().__init__(f"git {command} ended with {code}", kind="git_failed")
        self.words = words


def clean_environment(git_dir: Path, *, protocols: str = "") -> dict[str, str]:
    """The whole environment of a git process; nothing of the caller's passes but PATH and certificates.

    Args:
        protocols: which transports it may use, separated by colons; none by default.
    """
    kept = {
        name: os.environ[name]
        for name in ("PATH", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")
        if name in os.environ
    }
    kept |= {name: value for name, value in os.environ.items() if protocols and name.lower() in _PROXIES}
    return kept | {
        **process.marked(),
        "GIT_DIR": str(git_dir),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": protocols or "none",
    }


_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.attributesFile": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.version": "2",
    "safe.directory": "*",
}


def config_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings for one git process that appear in no file and no argument (git-config, GIT_CONFIG_COUNT)."""
    merged = list({**_SETTINGS, **settings}.items())
    env = {"GIT_CONFIG_COUNT": str(len(merged))}
    for number, (key, value) in enumerate(merged):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


async def run_git(
    arguments: Sequence[str],
    *,
    git_dir: Path,
    env: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    feed: bytes | None = None,
    output: int | None = None,
    seconds: float = 120.0,
    protocols: str = "",
) -> bytes:
    """Run git and return what it wrote to its standard output.

    Args:
        feed: its standard input.
        output: a descriptor that takes the standard output instead.
        seconds: after that it is killed with all its helpers.

    Raises:
        GitError: it ended with an error.
        Later: it took too long (``git_timeout``) or is not installed (``git_missing``).
    """
    environment = clean_environment(git_dir, protocols=protocols)
    environment |= config_environment(settings or {}) | dict(env or {})
    try:
        done = await run_process(
            ["git", *arguments], env=environment, seconds=seconds, feed=feed, output=output
        )
    except FileNotFoundError as error:
        raise Later("git is not installed on the runner's machine", kind="git_missing") from error
    except TimeoutError as error:
        raise Later(f"git {arguments[0]} took longer than {seconds:.0f} s", kind="git_timeout") from error
    if done.code:
        text = done.errors.decode("utf-8", "replace")[-_MAX_WORDS:]
        raise GitError(arguments[0], done.code, text)
    return done.output
