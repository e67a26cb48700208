"""The gateway's assembly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from contracts.subjects import PROCESS_SUBJECT
from services.gateway.act import Desk
from services.gateway.decide import Rules
from services.gateway.deliveries import Deliveries
from services.gateway.intake import Intake
from services.gateway.metrics import Metrics
from services.gateway.operators import Operators, problem
from services.gateway.patience import Patience
from services.gateway.relay import Relay
from services.gateway.standing import GitHub
from services.gateway.web import Parts, build
from services.gateway.webhook_secrets import Keeper
from services.kit.bus import Bus
from services.kit.errors import Later, Refused
from services.kit.http import bind, serving
from services.kit.operator import operator_token
from services.kit.serve import Health, main
from services.kit.settings import Settings
from services.kit.sql import open_database


@asynccontextmanager
async def run(settings: Settings, bus: Bus, patience: Patience | None = None) -> AsyncIterator[Health]:
    """Take webhooks and operators' requests until the context ends."""
    patience = patience or Patience()
    async with AsyncExitStack() as stack:
        # The address first: a taken one must not cost a migration, nor leave a half-started service.
        listener = bind(settings.listen, "MILLRACE_LISTEN")
        stack.callback(listener.close)
        engine = await open_database(settings, "gateway")
        stack.push_async_callback(engine.dispose)
        metrics, keeper = Metrics(), Keeper(bus)
        deliveries = Deliveries(engine, commit_seconds=patience.commit)
        rules = Rules(mention=settings.mention, label=settings.label)
        log, stopping = bus.log("gateway"), asyncio.Event()
        desk = Desk(log, GitHub(bus, settings.github_api_url), rules)
        operators = Operators(bus, keeper, deliveries, desk, settings.github_url)

        async def health() -> dict[str, str]:
            vault = "ok" if keeper.known else "the vault has not answered yet"
            return {"nats": bus.healthy(), "database": await deliveries.health(), "vault": vault}

        async def process(body: bytes) -> bytes:
            """An operator's request that came in at a runner: answered as over HTTP."""
            try:
                outcome = await operators.process(body)
            except (Later, Refused, SQLAlchemyError, OSError) as error:
                outcome = problem(error)
            return msgspec.json.encode({"status": outcome.status, "body": outcome.body})

        await stack.enter_async_context(keeper.keeping())
        await stack.enter_async_context(deliveries.writing())
        relay = Relay(
            deliveries,
            desk,
            metrics,
            wait=patience.again_in,
            max_tries=patience.tries,
            look_seconds=patience.look,
        )
        await stack.enter_async_context(relay.relaying())
        await bus.answers(PROCESS_SUBJECT, process, queue="gateway")
        app = build(
            Parts(
                token=operator_token(settings),
                intake=Intake(keeper, deliveries, rules, metrics, body_seconds=patience.body),
                operators=operators,
                deliveries=deliveries,
                metrics=metrics,
                log=log,
                health=health,
                stopping=stopping,
            )
        )
        await stack.enter_async_context(serving(app, listener, deadlines=patience.clients))
        stack.callback(stopping.set)
        yield health


if __name__ == "__main__":
    main("gateway")
