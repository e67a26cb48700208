"""The agent's assembly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from contracts.facts import Usage
from contracts.vault import AskModelKey, ModelKey
from services.agent.act import Hands
from services.agent.decide import Budget, decide
from services.agent.endpoint import Endpoint
from services.agent.engine import Engines
from services.agent.model import AnthropicModel
from services.agent.prices import cost
from services.agent.prompt import MAX_OUTPUT
from services.agent.sandbox import Sandboxes
from services.agent.state import START, evolve
from services.kit.ask_vault import ask_vault
from services.kit.bus import Bus
from services.kit.drive import Driver
from services.kit.serve import Health, main
from services.kit.settings import Settings


@asynccontextmanager
async def run(settings: Settings, bus: Bus) -> AsyncIterator[Health]:
    """Drive runs until the context ends."""

    async def key() -> str:
        return (await ask_vault(bus, "agent", AskModelKey(), ModelKey)).key.reveal()

    model = AnthropicModel(key, settings.anthropic_base_url)
    endpoint = Endpoint(key, settings.anthropic_base_url)
    sandboxes = Sandboxes(bus)
    budget = Budget(
        turns=settings.max_turns,
        tokens=settings.max_tokens,
        cost=int(settings.max_cost * 1_000_000),
        seconds=settings.max_minutes * 60,
        dearest_turn=cost(settings.model, Usage(output_tokens=MAX_OUTPUT)),
    )
    driver = Driver(
        bus.log("agent"),
        start=START,
        evolve=evolve,
        decide=partial(decide, budget=budget, model=settings.model, engine=settings.engine),
        act=Hands(sandboxes, model, Engines(sandboxes, endpoint)),
        stage_of=lambda _plan: "agent",
    )
    await bus.hears("agent", driver, workers=settings.agent_workers)

    async def health() -> dict[str, str]:
        return {"nats": bus.healthy()}

    try:
        yield health
    finally:
        driver.stopping = True
        await bus.close()
        await model.close()
        await endpoint.close()


if __name__ == "__main__":
    main("agent")
