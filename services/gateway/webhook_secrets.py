"""The webhook secrets in memory: asked of the vault at start, on a change, and from time to time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats.errors
import structlog

from contracts.vault import AskWebhookSecrets, Secret, WebhookSecrets
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.errors import Later, MillraceError
from services.kit.retry import wait_before

REFRESH_SECONDS = 30.0
CHANGED_SUBJECT = "gateway.v1.credentials_changed"
"""A replica that stored credentials tells the others at once."""

logger = structlog.get_logger(__name__)


class Keeper:
    """Keeps the secrets; a vault that is away later changes nothing."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._secrets: dict[int, Secret] | None = None
        self._again = asyncio.Event()

    @property
    def known(self) -> bool:
        """Whether the vault has answered yet."""
        return self._secrets is not None

    def candidates(self, app_id: int | None) -> list[tuple[int, Secret]]:
        """What may have signed a delivery to this App, or to any; ``Later`` until the vault has told."""
        if self._secrets is None:
            raise Later("the vault has not told the webhook secrets yet", kind="vault_unavailable")
        return [(each, secret) for each, secret in self._secrets.items() if app_id in (None, each)]

    async def refresh(self) -> None:
        """Ask now; ``Later`` or ``Refused`` if the vault does not tell."""
        answer = await ask_vault(self._bus, "gateway", AskWebhookSecrets(), WebhookSecrets, timeout=5)
        self._secrets = dict(answer.secrets)

    async def changed(self) -> None:
        """Tell every replica, this one included, that the credentials changed."""
        await self.refresh()
        with contextlib.suppress(nats.errors.Error, OSError):  # they ask again before long
            await self._bus.client.publish(CHANGED_SUBJECT, b"")

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep up to date until the context ends."""

        async def on_change(_message: object) -> None:
            self._again.set()

        subscription = await self._bus.client.subscribe(CHANGED_SUBJECT, cb=on_change)
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(Exception):  # the connection may be gone
                await subscription.unsubscribe()

    async def _keep(self) -> None:
        tries = 0
        while True:
            try:
                await self.refresh()
                tries, seconds = 0, REFRESH_SECONDS
            except MillraceError as error:
                tries += 1
                seconds = min(wait_before(tries), REFRESH_SECONDS)
                logger.warning("webhook secrets not refreshed", why=str(error), known=self.known)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), seconds)
            self._again.clear()
