"""A file beside the master key that remembers how far the database had come.

A database restored from yesterday is whole in itself; only something outside of it can tell. An operator
who restored it on purpose deletes the file, which acknowledges it.
"""

import json
import os
import secrets
from pathlib import Path

from services.kit.errors import Misconfigured
from services.vault.keyfile import sync_directory
from services.vault.records import Mark

NAME = "anchor.json"


def read_mark(directory: Path) -> Mark:
    """The remembered mark, or the beginning when there is no file; ``Misconfigured`` for nonsense."""
    file = directory / NAME
    try:
        content = json.loads(file.read_text())
        return Mark(seq=int(content["seq"]), chain=str(content["chain"]))
    except FileNotFoundError:
        return Mark()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"{file} cannot be read ({type(error).__name__}): put it back, or delete it once you know "
            "that the vault's database is the newest one"
        ) from None


def write_mark(directory: Path, mark: Mark) -> None:
    """Remember ``mark``; the old file stays whole until the new one is."""
    temporary = directory / f".{NAME}.{os.getpid()}.{secrets.token_hex(4)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as stream:
            json.dump({"seq": mark.seq, "chain": mark.chain}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(directory / NAME)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(directory)


def rollback_notice(directory: Path) -> str:
    """What an operator reads when the database is older than the anchor."""
    return (
        "the vault's database is older than this installation remembers (was a backup put back?): nothing "
        f"is stored until you delete {directory / NAME} and restart, which accepts it as it is"
    )
