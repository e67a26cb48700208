"""Delivers webhooks over HTTP, signed, and records what came of it.

Source: GitHub Docs, "Webhook events and payloads" (delivery headers), "Validating webhook deliveries".
"""

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping

import httpx2

from tests.doubles.github import openapi
from tests.doubles.github.state import App, Delivery, Event, Installation, Json, World, node_id

_SECONDS = 10.0
_ALWAYS = {"installation", "installation_repositories", "ping"}


def signature(secret: str, body: bytes) -> str:
    """The value of ``X-Hub-Signature-256``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Deliverer:
    """Sends events to the apps that should hear them."""

    def __init__(self, world: World, violations: list[str]) -> None:
        self.world = world
        self.violations = violations
        self._client = httpx2.AsyncClient(timeout=_SECONDS, follow_redirects=False, trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def settle(self) -> None:
        """Deliver what waits, and return when each attempt ended."""
        events, self.world.events = self.world.events, []
        again, self.world.redeliveries = self.world.redeliveries, []
        for event in events:
            for installation in self._hearers(event):
                payload = self._addressed(event, installation)
                self._check(event.name, payload)
                await self.deliver(installation.app, event.name, payload)
        for delivery in again:
            await self.redeliver(delivery)

    def spawn(self) -> None:
        """The same in the background, for events that a request caused."""
        if self.world.events or self.world.redeliveries:
            task = asyncio.get_running_loop().create_task(self.settle())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _hearers(self, event: Event) -> list[Installation]:
        if event.repo is None:
            return [event.installation] if event.installation else []
        found = (self.world.installation_of(app, event.repo) for app in self.world.apps.values())
        return [one for one in found if one and not one.suspended and event.name in one.app.events]

    def _addressed(self, event: Event, installation: Installation) -> Json:
        if event.name in _ALWAYS:
            return event.payload
        short = {"id": installation.id, "node_id": node_id("Installation", installation.id)}
        return {**event.payload, "installation": short}

    def _check(self, event: str, payload: Json) -> None:
        wrong = openapi.webhooks().wrong(event, payload)
        self.violations += [f"webhook {event}.{payload.get('action')}: {why}" for why in wrong]

    async def deliver(
        self,
        app: App,
        event: str,
        payload: Json,
        *,
        guid: str | None = None,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        redelivery: bool = False,
    ) -> Delivery:
        """One attempt, as GitHub makes it; ``headers`` replace GitHub's own where names agree."""
        body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
        sent = {
            "accept": "*/*",
            "content-type": "application/json",
            "user-agent": "GitHub-Hookshot/6f2b1d7",
            "x-github-event": event,
            "x-github-delivery": guid or str(uuid.uuid4()),
            "x-github-hook-id": str(app.hook_id),
            "x-github-hook-installation-target-id": str(app.id),
            "x-github-hook-installation-target-type": "integration",
            "x-hub-signature-256": signature(app.webhook_secret if secret is None else secret, body),
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        it = Delivery(next(self.world.ids), sent["x-github-delivery"], event, app, payload, sent, redelivery)
        started = time.monotonic()
        try:
            # GitHub counts its ten seconds over the whole exchange, not per read.
            async with asyncio.timeout(_SECONDS):
                answer = await self._client.post(app.webhook_url, content=body, headers=sent)
            it.status, it.answer = answer.status_code, answer.text
        except TimeoutError:
            it.answer = "timed out"
        except httpx2.HTTPError as error:
            it.answer = f"failed to connect: {type(error).__name__}"
        it.seconds = time.monotonic() - started
        self.world.deliveries.append(it)
        return it

    async def redeliver(self, delivery: Delivery) -> Delivery:
        """The same payload under the same guid."""
        return await self.deliver(
            delivery.app, delivery.event, delivery.payload, guid=delivery.guid, redelivery=True
        )
