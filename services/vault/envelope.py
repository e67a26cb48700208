"""Envelope encryption: a random data key per record, wrapped by the master key.

AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces from the operating system, which repeat neither
after a fork nor between threads. The place of a record is bound as associated data, so that a value copied
to another row, field or version does not decrypt.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.vault import Secret
from services.kit.errors import Refused
from services.vault.keyfile import KEY_BYTES, MasterKey

FORMAT = b"\x01"
NONCE_BYTES = 12
TAG_BYTES = 16
BLOCK = 64
"""Values are padded to multiples of this many bytes: their length tells little."""

_WRAPPED = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_LENGTH = 4


class TamperError(Refused):
    """A stored value is not what was stored at that place; the message names ids, never values."""

    def __init__(self, place: "Place") -> None:
        super().__init__(
            f"the stored {place.field} of {place.record} was changed outside the vault: store it again",
            kind="tampered",
        )


class MissingKeyError(Refused):
    """A record needs a master key that is not loaded."""

    def __init__(self, place: "Place", key_id: str) -> None:
        super().__init__(
            f"{place.field} of {place.record} needs master key {key_id}: put {key_id}.key back from the "
            "backup that belongs to this database",
            kind="key_missing",
        )


@dataclass(frozen=True)
class Place:
    """Where a value is stored. ``version`` counts from 1."""

    table: str
    record: str
    field: str
    version: int


@dataclass(frozen=True)
class Sealed:
    """An encrypted value: format, wrapped data key, ciphertext."""

    key_id: str
    blob: bytes


def seal(key: MasterKey, place: Place, value: Secret) -> Sealed:
    """Encrypt ``value`` for ``place``."""
    cipher, wrapped = _new_data_key(key, _associated("wrap", place, key.id))
    nonce = os.urandom(NONCE_BYTES)
    body = cipher.encrypt(nonce, _pad(value.reveal().encode()), _associated("data", place, key.id))
    return Sealed(key_id=key.id, blob=FORMAT + wrapped + nonce + body)


def unseal(keys: Mapping[str, MasterKey], place: Place, sealed: Sealed) -> Secret:
    """The value stored at ``place``.

    Raises:
        TamperError: it was changed, moved or put back from an older version.
        MissingKeyError: its master key is not among ``keys``.
    """
    if sealed.key_id not in keys:
        raise MissingKeyError(place, sealed.key_id)
    key, blob = keys[sealed.key_id], sealed.blob
    shortest = 1 + _WRAPPED + NONCE_BYTES + BLOCK + TAG_BYTES
    if blob[:1] != FORMAT or len(blob) < shortest or (len(blob) - shortest) % BLOCK:
        raise TamperError(place)
    wrapped, rest = blob[1 : 1 + _WRAPPED], blob[1 + _WRAPPED :]
    try:
        # nested, not named: an error report that shows local variables finds no key and no value here
        cipher = AESGCM(
            key.cipher.decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _associated("wrap", place, key.id)
            )
        )
        return Secret(
            _unpad(
                cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _associated("data", place, key.id))
            ).decode()
        )
    except (InvalidTag, ValueError):
        raise TamperError(place) from None


def _new_data_key(key: MasterKey, associated: bytes) -> tuple[AESGCM, bytes]:
    """A cipher under a fresh key, and that key wrapped."""
    data_key, nonce = AESGCM.generate_key(256), os.urandom(NONCE_BYTES)
    return AESGCM(data_key), nonce + key.cipher.encrypt(nonce, data_key, associated)


def _associated(purpose: str, place: Place, key_id: str) -> bytes:
    """Each part with its length in front: no two places have the same bytes."""
    parts = (
        "millrace", "vault", purpose, str(FORMAT[0]), place.table, place.record, place.field,
        str(place.version), key_id,
    )  # fmt: skip
    return b"".join(len(part.encode()).to_bytes(_LENGTH, "big") + part.encode() for part in parts)


def _pad(value: bytes) -> bytes:
    framed = len(value).to_bytes(_LENGTH, "big") + value
    return framed + bytes(-len(framed) % BLOCK)


def _unpad(padded: bytes) -> bytes:
    length = int.from_bytes(padded[:_LENGTH], "big")
    if length > len(padded) - _LENGTH or len(padded) % BLOCK:
        raise ValueError("padding")
    return padded[_LENGTH : _LENGTH + length]
