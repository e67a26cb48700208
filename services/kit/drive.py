"""Hear → decide → act, for every service: fold the run, decide, carry out, append, until nothing is left.

The decider is pure. A plan whose facts met a conflict is appended all the same if the decider, shown
the new history, still wants exactly that plan; otherwise its result is dropped: somebody else did it,
or the run was cancelled.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from typing import Generic, Literal, TypeVar

import structlog

from contracts.envelope import Recorded
from contracts.facts import AnyFact, RunFailed
from services.kit.bus import PATIENT
from services.kit.errors import Conflict, Later, Refused
from services.kit.log import Log, last_sequence

State = TypeVar("State")
Plan = TypeVar("Plan")
Stage = Literal["sandbox", "agent", "verification", "publication"]

logger = structlog.get_logger(__name__)


class Driver(Generic[State, Plan]):
    """Carries one service's decisions out.

    Args:
        log: where runs are read and facts appended.
        start: the state of a run without facts.
        evolve: state and fact to the next state (pure).
        decide: state and the heard fact to the plans that are due (pure). It is asked again after each
            plan that yielded facts, so it must not want what the state shows as done.
        act: carries one plan out and returns the facts that came of it.
        stage_of: which stage a failure of this plan belongs to.
    """

    def __init__(
        self,
        log: Log,
        *,
        start: State,
        evolve: Callable[[State, AnyFact], State],
        decide: Callable[[State, AnyFact], Sequence[Plan]],
        act: Callable[[Plan, Recorded], Awaitable[Sequence[AnyFact]]],
        stage_of: Callable[[Plan], Stage],
    ) -> None:
        self._log = log
        self._start = start
        self._evolve = evolve
        self._decide = decide
        self._act = act
        self._stage_of = stage_of
        self.stopping = False

    async def __call__(self, heard: Recorded, *, last_try: bool) -> None:
        """Bring the run as far as this service can.

        Args:
            heard: the fact that woke us.
            last_try: there will be no redelivery: a failure now ends the run.

        Raises:
            Later: try again later; everything appended so far stands.
        """
        history = await self._log.read(heard.key)
        while plans := self._decide(self._fold(history), heard.fact):
            before = len(history)
            for plan in plans:
                history = await self._carry_out(plan, heard, history, last_try=last_try)
            if len(history) == before:
                return
            if self.stopping:
                raise Later("this service is stopping", seconds=0, kind="stopping")

    async def _carry_out(
        self, plan: Plan, heard: Recorded, history: list[Recorded], *, last_try: bool
    ) -> list[Recorded]:
        try:
            facts = await self._act(plan, heard)
        except Refused as error:
            facts = [RunFailed(stage=self._stage_of(plan), kind=error.kind, why=str(error))]
        except Later as error:
            if not last_try or error.kind in PATIENT:
                raise
            why = f"{error} (given up after several tries)"
            facts = [RunFailed(stage=self._stage_of(plan), kind=error.kind, why=why)]
        for fact in facts:
            history = await self._append(plan, fact, heard, history)
        return history

    async def _append(
        self, plan: Plan, fact: AnyFact, heard: Recorded, history: list[Recorded]
    ) -> list[Recorded]:
        while True:
            expected = last_sequence(history)
            try:
                recorded = await self._log.append(heard.key, fact, expected=expected, cause=heard.envelope.id)
            except Conflict:
                history = history + await self._log.read(heard.key, after=expected)
                if plan not in self._decide(self._fold(history), heard.fact):
                    logger.info("result dropped: no longer wanted", plan=type(plan).__name__)
                    return history
                continue
            if recorded.fact is fact:
                return [*history, recorded]
            # It was said before, by us or by another replica: read what really stands there.
            return history + await self._log.read(heard.key, after=expected)

    def _fold(self, history: Sequence[Recorded]) -> State:
        return reduce(self._evolve, (recorded.fact for recorded in history), self._start)
