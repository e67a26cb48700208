"""The master keys that belong to this database: found, checked, or created for an empty one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.errors import Misconfigured
from services.kit.sql import writing
from services.vault.keyfile import FIRST_KEY, MasterKey, create_key, find_keys, load_key, number_of
from services.vault.tables import credential, master_key


@dataclass(frozen=True)
class Keyring:
    """Every loaded key by id; ``current`` encrypts."""

    keys: Mapping[str, MasterKey]
    current: MasterKey


async def open_keyring(engine: AsyncEngine, directory: Path, at: datetime) -> Keyring:
    """The keys of this database.

    A key is created only when the database knows of none: a key that is merely missing must come back
    from a backup, or everything stored under it would be lost silently.

    Raises:
        Misconfigured: a key file is unsafe, missing, or not the one this database was written with.
    """
    async with writing(engine) as connection:
        known = {
            row.id: row.check_value
            for row in await connection.execute(sa.select(master_key.c.id, master_key.c.check_value))
        }
        orphans = await connection.scalar(sa.select(sa.func.count()).select_from(credential))
    found = find_keys(directory)
    if not found and (known or orphans):
        raise Misconfigured(
            f"the vault's database has content but {directory} has no master key: put "
            f"{max(known, default=FIRST_KEY)}.key back from your backup; no new key is made"
        )
    keys = {name: load_key(directory, name) for name in found}
    if not keys:
        created = create_key(directory)
        keys = {created.id: created}
    for name, key in keys.items():
        if name in known and not compare_digest(known[name], key.check_value):
            raise Misconfigured(
                f"{directory / name}.key is not the key this database was written with: put the right "
                "file back; the database was not changed"
            )
    current = keys[max(keys, key=number_of)]
    await _remember(engine, current, known, at)
    return Keyring(keys=keys, current=current)


async def _remember(engine: AsyncEngine, key: MasterKey, known: Mapping[str, bytes], at: datetime) -> None:
    if key.id in known:
        return
    try:
        async with writing(engine) as connection:
            await connection.execute(
                sa.insert(master_key).values(id=key.id, check_value=key.check_value, created_at=at)
            )
    except IntegrityError:
        # another replica started at the same moment: it must have had the same key
        async with writing(engine) as connection:
            stored = await connection.scalar(
                sa.select(master_key.c.check_value).where(master_key.c.id == key.id)
            )
        if stored is None or not compare_digest(stored, key.check_value):
            raise Misconfigured(
                f"two vaults on one database have different {key.id} keys: give all the same key file"
            ) from None
