"""The master key: 32 random bytes in a 0600 file, and how it is refused.

Losing it loses every credential and reading it reads every credential, so that anything unusual about the
file refuses to start instead of being worked around.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kit.errors import Misconfigured

KEY_BYTES = 32
FIRST_KEY = "k1"
_SUFFIX = ".key"
_FEWEST_DISTINCT = 12
"""Random 32 bytes hold about 30 distinct values; fewer than 12 does not happen by chance."""


class MasterKey:
    """One key-encryption key. It holds the cipher, never the bytes, so that no dump of locals shows them.

    ``check_value`` identifies the key without revealing it; the database keeps it.
    """

    __slots__ = ("_cipher", "check_value", "id")

    def __init__(self, key_id: str, key: bytes) -> None:
        self.id = key_id
        self._cipher = AESGCM(_sound(key))
        self.check_value = HKDF(
            hashes.SHA256(), KEY_BYTES, salt=None, info=b"millrace/vault/key-check/" + key_id.encode()
        ).derive(key)

    @property
    def cipher(self) -> AESGCM:
        """AES-256-GCM under this key."""
        return self._cipher

    def __repr__(self) -> str:
        return f"MasterKey({self.id!r})"


def find_keys(directory: Path) -> list[str]:
    """Ids of the keys that lie in ``directory``, oldest first."""
    if not directory.is_dir():
        return []
    found = [file.name.removesuffix(_SUFFIX) for file in directory.iterdir() if file.name.endswith(_SUFFIX)]
    return sorted((name for name in found if name[:1] == "k" and name[1:].isdecimal()), key=number_of)


def number_of(key_id: str) -> int:
    """3 for ``k3``."""
    return int(key_id[1:])


def load_key(directory: Path, key_id: str) -> MasterKey:
    """Read a key.

    Raises:
        Misconfigured: the file is missing, is no regular file of ours with mode 0600 or stricter, or does
            not hold 32 random bytes.
    """
    file = directory / f"{key_id}{_SUFFIX}"
    try:
        # O_NONBLOCK: opening a FIFO must not hang; O_NOFOLLOW: a link may point anywhere
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Misconfigured(f"the master key {file} is missing: put it back from your backup") from None
    except OSError as error:
        raise Misconfigured(
            f"the master key {file} cannot be opened ({error.strerror}): it must be a plain file"
        ) from None
    try:
        _refuse_unusual(file, os.fstat(handle))
        return MasterKey(key_id, os.read(handle, KEY_BYTES + 1))
    except ValueError as error:
        raise Misconfigured(f"the master key {file} is refused: {error}") from None
    finally:
        os.close(handle)


def _refuse_unusual(file: Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise Misconfigured(f"the master key {file} is not a plain file")
    if about.st_uid != os.geteuid():
        raise Misconfigured(f"the master key {file} belongs to another user (uid {about.st_uid})")
    if about.st_mode & 0o177:
        raise Misconfigured(
            f"the master key {file} is open to others (mode {stat.S_IMODE(about.st_mode):04o}): "
            f"run chmod 600 {file}, and consider it read by them"
        )


def create_key(directory: Path, key_id: str = FIRST_KEY) -> MasterKey:
    """Create a key, or read the one that another process created first: all end up with the same.

    The file appears complete under its name (a hard link to a synced temporary file), so that a crash or a
    full disk leaves either no key or a whole one.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = directory / f".{key_id}.{os.getpid()}.{secrets.token_hex(8)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, directory / f"{key_id}{_SUFFIX}")
    finally:
        temporary.unlink()
    sync_directory(directory)
    return load_key(directory, key_id)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sound(key: bytes) -> bytes:
    """``key`` if it may be one; AESGCM itself takes 16 bytes, zeros and passwords alike."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"it has {len(key)} bytes instead of {KEY_BYTES}")
    if all(0x20 <= byte < 0x7F or byte in b"\r\n\t" for byte in key):
        raise ValueError("it is text, not 32 random bytes")
    if len(set(key)) < _FEWEST_DISTINCT:
        raise ValueError("it is not random")
    return key
