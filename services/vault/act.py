"""Answers to questions that passed the door: from the records, or from GitHub."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.vault import (
    Answer,
    AskInstallation,
    AskModelKey,
    AskView,
    AskWebhookSecrets,
    ClearCredentials,
    Installation,
    ModelKey,
    Question,
    Secret,
    StoreCredentials,
    StoredApp,
    StoredModelKey,
    Token,
    TokenQuestion,
    View,
    WebhookSecrets,
)
from services.kit.errors import Later, Refused
from services.kit.sql import reading, writing
from services.vault.anchor import write_mark
from services.vault.app_token import ServerClock
from services.vault.cache import TokenCache
from services.vault.entitlements import permissions_for
from services.vault.github_app import GitHubApp
from services.vault.grants import GrantedToken
from services.vault.keyring import Keyring
from services.vault.records import MODEL, MODEL_KEY, PRIVATE_KEY, WEBHOOK_SECRET, App, Records, app_record
from services.vault.submissions import Change, check, ending_of, load_private_key

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Vault:
    """The store and the mint.

    Args:
        directory: where the anchor lies.
        offered: a model key from the environment, used while none is stored; never written down.
        read_only: why nothing may be stored, or nothing.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        keyring: Keyring,
        directory: Path,
        *,
        api_url: str,
        offered: SecretStr | None,
        read_only: str,
        time: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._keyring = keyring
        self._directory = directory
        self._api_url = api_url
        self._offered = None if offered is None else Secret(offered.get_secret_value())
        self._read_only = read_only
        self._time = time
        self._clock = ServerClock(time)
        self._cache = TokenCache(monotonic)

    async def answer(self, question: Question) -> Answer:
        """What was asked for.

        Raises:
            Later, Refused: why not.
        """
        match question:
            case AskWebhookSecrets():
                return await self._webhook_secrets()
            case StoreCredentials():
                return await self._store(question)
            case AskView():
                return await self._view()
            case ClearCredentials():
                return await self._clear(question.app_id)
            case AskInstallation():
                return await self._installation(question.full_name)
            case AskModelKey():
                return await self._model_key()
            case _:
                return await self._token(question)

    async def _webhook_secrets(self) -> WebhookSecrets:
        async with reading(self._engine) as connection:
            records = Records(connection, self._keyring)
            found = {
                each.app_id: await records.get(app_record(each.app_id), WEBHOOK_SECRET)
                for each in await records.apps()
            }
        return WebhookSecrets(secrets={app_id: secret for app_id, secret in found.items() if secret})

    async def _model_key(self) -> ModelKey:
        async with reading(self._engine) as connection:
            key = await Records(connection, self._keyring).get(MODEL, MODEL_KEY)
        key = key or self._offered
        if key is None:
            raise Refused("no key for the model is stored: give anthropicApiKey", kind="not_configured")
        return ModelKey(key=key)

    async def _view(self) -> View:
        async with reading(self._engine) as connection:
            records = Records(connection, self._keyring)
            apps = await records.apps()
            stored = {(each.record, each.field): each for each in await records.stored()}
        shown = []
        for each in apps:
            key = stored.get((app_record(each.app_id), PRIVATE_KEY))
            secret = stored.get((app_record(each.app_id), WEBHOOK_SECRET))
            if key is not None and secret is not None:
                shown.append(
                    StoredApp(
                        app_id=each.app_id,
                        installation_id=each.installation_id,
                        private_key_fingerprint=key.hint,
                        private_key_updated_at=key.updated_at,
                        webhook_secret_updated_at=secret.updated_at,
                    )
                )
        model = stored.get((MODEL, MODEL_KEY))
        model_key = None
        if model is not None:
            model_key = StoredModelKey(ending=model.hint, source="stored", updated_at=model.updated_at)
        elif self._offered is not None:
            model_key = StoredModelKey(ending=ending_of(self._offered), source="environment")
        return View(apps=shown, model_key=model_key, read_only=self._read_only)

    async def _store(self, submitted: StoreCredentials) -> View:
        self._refuse_read_only()
        try:
            async with writing(self._engine) as connection:
                records = Records(connection, self._keyring)
                apps = {each.app_id: each for each in await records.apps()}
                change = check(submitted, frozenset(apps))
                await _carry_out(records, change, apps, self._now())
                mark = await records.mark()
        except IntegrityError:
            raise Later("two changes at once: the other one came first", kind="conflict") from None
        write_mark(self._directory, mark)
        self._cache.clear()
        return await self._view()

    async def _clear(self, app_id: int | None) -> View:
        self._refuse_read_only()
        async with writing(self._engine) as connection:
            records = Records(connection, self._keyring)
            for each in await records.apps():
                if app_id in {None, each.app_id}:
                    await records.delete_app(each.app_id, self._now())
            if app_id is None:
                await records.delete(MODEL, MODEL_KEY, self._now())
            mark = await records.mark()
        write_mark(self._directory, mark)
        self._cache.clear()
        await self._forget_journal()
        return await self._view()

    async def _token(self, question: TokenQuestion) -> Token:
        permissions = permissions_for(question)
        candidates = await self._candidates(question.app_id, question.installation_id)
        key = (
            tuple(each.app_id for each in candidates),
            question.installation_id,
            question.repository_id,
            frozenset(permissions.items()),
        )

        async def mint() -> GrantedToken:
            refused: Refused | None = None
            for each in candidates:
                app = await self._app(each.app_id)
                try:
                    return await app.mint(question.installation_id, question.repository_id, permissions)
                except Refused as error:
                    if error.kind != "installation_gone":
                        raise
                    refused = error  # perhaps another App's installation
            raise refused or Refused("no App is stored", kind="not_configured")

        grant = await self._cache.get(key, mint, rejected=question.rejected)
        return Token(token=grant.token, expires_at=grant.expires_at)

    async def _installation(self, full_name: str) -> Installation:
        owner, _, name = full_name.partition("/")
        if not _is_name(owner) or not _is_name(name):
            raise Refused("a repository is named OWNER/NAME", kind="invalid")
        for each in await self._candidates(None, None):
            found = await (await self._app(each.app_id)).find(owner, name)
            if found is not None:
                installation_id, repository = found
                return Installation(
                    app_id=each.app_id, installation_id=installation_id, repository=repository
                )
        raise Refused(
            f"no stored App is installed on {full_name}: install it there", kind="repository_not_installed"
        )

    async def _candidates(self, app_id: int | None, installation_id: int | None) -> list[App]:
        """The Apps that may own the installation, the likeliest first."""
        async with reading(self._engine) as connection:
            apps = await Records(connection, self._keyring).apps()
        apps = [each for each in apps if app_id in {None, each.app_id}]
        if not apps:
            which = "no App is stored" if app_id is None else f"App {app_id} is not stored"
            raise Refused(f"{which}: give appId, privateKey and webhookSecret", kind="not_configured")
        return sorted(apps, key=lambda each: (each.installation_id != installation_id, each.app_id))

    async def _app(self, app_id: int) -> GitHubApp:
        async with reading(self._engine) as connection:
            pem = await Records(connection, self._keyring).get(app_record(app_id), PRIVATE_KEY)
        if pem is None:
            raise Refused(f"App {app_id} has no private key: store it again", kind="not_configured")
        return GitHubApp(self._api_url, app_id, load_private_key(pem), self._clock)

    async def _forget_journal(self) -> None:
        """SQLite's journal still holds the deleted pages: fold it in and cut it to nothing."""
        if self._engine.dialect.name == "sqlite":
            async with self._engine.connect() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                if raw is not None:
                    await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _refuse_read_only(self) -> None:
        if self._read_only:
            raise Refused(self._read_only, kind="rolled_back")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._time(), UTC)


async def _carry_out(records: Records, change: Change, apps: dict[int, App], at: datetime) -> None:
    if change.app is not None:
        of, before = change.app, apps.get(change.app.app_id)
        installation_id = of.installation_id or (None if before is None else before.installation_id)
        await records.put_app(App(app_id=of.app_id, installation_id=installation_id), at)
        record = app_record(of.app_id)
        if of.private_key is not None:
            await records.put(record, PRIVATE_KEY, of.private_key, hint=of.fingerprint, at=at)
        if of.webhook_secret is not None:
            await records.put(record, WEBHOOK_SECRET, of.webhook_secret, hint="", at=at)
    if change.model_key is not None:
        await records.put(MODEL, MODEL_KEY, change.model_key, hint=change.ending, at=at)


def _is_name(part: str) -> bool:
    """Letters, digits, ``-``, ``_`` and ``.``, as GitHub allows: nothing that leaves its place in a URL."""
    return _NAME.fullmatch(part) is not None and part not in {".", ".."}
