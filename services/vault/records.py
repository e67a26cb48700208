"""Credentials in SQL: sealed, versioned, chained.

Every change of a credential appends to the chain of mutations, so that a row put back from an older
version is told from the current one, and a database put back as a whole from the anchor file
(``services.vault.anchor``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.vault import Secret
from services.vault.envelope import Place, Sealed, TamperError, seal, unseal
from services.vault.keyring import Keyring
from services.vault.tables import app, credential, mutation

MODEL = "model"
MODEL_KEY = "model_key"
PRIVATE_KEY = "private_key"
WEBHOOK_SECRET = "webhook_secret"  # noqa: S105  the name of a field


def app_record(app_id: int) -> str:
    """The record of an App's credentials."""
    return f"app:{app_id}"


@dataclass(frozen=True)
class Mark:
    """How far the chain of mutations has come."""

    seq: int = 0
    chain: str = ""


@dataclass(frozen=True)
class Stored:
    """One credential without its value."""

    record: str
    field: str
    version: int
    hint: str
    updated_at: datetime


@dataclass(frozen=True)
class App:
    """One GitHub App; ``installation_id`` is the operator's hint, if given."""

    app_id: int
    installation_id: int | None


class Records:
    """Reads and writes within the caller's transaction."""

    def __init__(self, connection: AsyncConnection, keyring: Keyring) -> None:
        self._connection = connection
        self._keyring = keyring

    async def apps(self) -> Sequence[App]:
        """All Apps, by id."""
        rows = await self._connection.execute(
            sa.select(app.c.app_id, app.c.installation_id).order_by(app.c.app_id)
        )
        return [App(app_id=row.app_id, installation_id=row.installation_id) for row in rows]

    async def put_app(self, of: App, at: datetime) -> None:
        """Insert or update an App."""
        await self._connection.execute(sa.delete(app).where(app.c.app_id == of.app_id))
        await self._connection.execute(
            sa.insert(app).values(app_id=of.app_id, installation_id=of.installation_id, updated_at=at)
        )

    async def delete_app(self, app_id: int, at: datetime) -> None:
        """Forget an App with its credentials."""
        await self.delete(app_record(app_id), PRIVATE_KEY, at)
        await self.delete(app_record(app_id), WEBHOOK_SECRET, at)
        await self._connection.execute(sa.delete(app).where(app.c.app_id == app_id))

    async def stored(self) -> Sequence[Stored]:
        """What is stored, without values."""
        columns = (
            credential.c.record, credential.c.field, credential.c.version, credential.c.hint,
            credential.c.updated_at,
        )  # fmt: skip
        rows = await self._connection.execute(sa.select(*columns).order_by(*columns[:2]))
        return [Stored(row.record, row.field, row.version, row.hint, _aware(row.updated_at)) for row in rows]

    async def get(self, record: str, field: str) -> Secret | None:
        """The value, or ``None`` if nothing is stored.

        Raises:
            TamperError: the row is not the newest version, or was changed or moved.
            MissingKeyError: its master key is not loaded.
        """
        row = (
            await self._connection.execute(
                sa.select(credential).where(credential.c.record == record, credential.c.field == field)
            )
        ).one_or_none()
        version, digest = await self._newest(record, field)
        if row is None:
            if digest:
                raise TamperError(Place(credential.name, record, field, version))
            return None
        place = Place(credential.name, record, field, row.version)
        if (row.version, _digest(row.sealed)) != (version, digest):
            raise TamperError(place)
        return unseal(self._keyring.keys, place, Sealed(key_id=row.key_id, blob=row.sealed))

    async def put(self, record: str, field: str, value: Secret, *, hint: str, at: datetime) -> None:
        """Store ``value`` as the next version, whatever was there before."""
        version = (await self._newest(record, field))[0] + 1
        sealed = seal(self._keyring.current, Place(credential.name, record, field, version), value)
        await self._delete_row(record, field)
        await self._connection.execute(
            sa.insert(credential).values(
                record=record,
                field=field,
                version=version,
                key_id=sealed.key_id,
                sealed=sealed.blob,
                hint=hint,
                updated_at=at,
            )
        )
        await self._append(record, field, version, _digest(sealed.blob), at)

    async def delete(self, record: str, field: str, at: datetime) -> None:
        """Remove the value and its wrapped key; the history keeps a digest."""
        version, digest = await self._newest(record, field)
        await self._delete_row(record, field)
        if digest:
            await self._append(record, field, version + 1, "", at)

    async def mark(self) -> Mark:
        """Where the chain is."""
        row = (
            await self._connection.execute(
                sa.select(mutation.c.seq, mutation.c.chain).order_by(mutation.c.seq.desc()).limit(1)
            )
        ).one_or_none()
        return Mark() if row is None else Mark(seq=row.seq, chain=row.chain)

    async def has(self, mark: Mark) -> bool:
        """Whether the chain went through ``mark`` and is whole up to its end."""
        chain, passed = "", mark == Mark()
        for row in await self._connection.execute(sa.select(mutation).order_by(mutation.c.seq)):
            chain = _link(chain, row.seq, row.record, row.field, row.version, row.digest)
            if chain != row.chain:
                return False
            passed = passed or (row.seq == mark.seq and chain == mark.chain)
        return passed

    async def _newest(self, record: str, field: str) -> tuple[int, str]:
        row = (
            await self._connection.execute(
                sa.select(mutation.c.version, mutation.c.digest)
                .where(mutation.c.record == record, mutation.c.field == field)
                .order_by(mutation.c.version.desc())
                .limit(1)
            )
        ).one_or_none()
        return (0, "") if row is None else (row.version, row.digest)

    async def _delete_row(self, record: str, field: str) -> None:
        await self._connection.execute(
            sa.delete(credential).where(credential.c.record == record, credential.c.field == field)
        )

    async def _append(self, record: str, field: str, version: int, digest: str, at: datetime) -> None:
        last = await self.mark()
        seq = last.seq + 1
        await self._connection.execute(
            sa.insert(mutation).values(
                seq=seq,
                record=record,
                field=field,
                version=version,
                digest=digest,
                chain=_link(last.chain, seq, record, field, version, digest),
                at=at,
            )
        )


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _link(before: str, *parts: str | int) -> str:
    return hashlib.sha256("\x1f".join((before, *map(str, parts))).encode()).hexdigest()


def _aware(time: datetime) -> datetime:
    """SQLite gives times back without their zone; they were written in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
