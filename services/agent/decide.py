"""What the agent does next. Pure: the recorded run in, one plan out."""

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef
from services.agent.prompt import MAX_OUTPUT, request
from services.agent.request import ModelRequest
from services.agent.state import Run, Work, Working, cut_short, said, tool_uses

MAX_ATTEMPTS = 3
"""Proposals that one run may make."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may spend: turns, tokens, millionths of a dollar, seconds of work."""

    turns: int
    tokens: int
    cost: int
    seconds: float
    dearest_turn: int = 0
    """What one more answer of full length can cost; reserved before each turn."""


class TakeTurn(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the model."""

    turn: int
    request: ModelRequest


class RunTools(msgspec.Struct, frozen=True, kw_only=True):
    """Run a turn's tools in the sandbox, then store a checkpoint."""

    turn: int
    sandbox_id: str
    generation: int
    uses: tuple[dict[str, object], ...]


class AskPerson(msgspec.Struct, frozen=True, kw_only=True):
    """Park the run with a question."""

    turn: int
    tool_use_id: str
    question: str


class GiveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """End with words alone."""

    turn: int
    text: str


class Propose(msgspec.Struct, frozen=True, kw_only=True):
    """Hand the checkpoint in."""

    turn: int
    attempt: int
    last: bool
    title: str
    summary: str
    claims: tuple[str, ...]
    change: ChangeRef
    note: str = ""


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    """End without a result, truthfully."""

    kind: str
    why: str


Plan = TakeTurn | RunTools | AskPerson | GiveAnswer | Propose | GiveUp


def decide(run: Run, _fact: f.AnyFact, *, budget: Budget, model: str) -> list[Plan]:
    """The next step of a run that has a sandbox; every other phase waits for somebody else."""
    match run:
        case Working(work=work, sandbox=sandbox):
            return [_next(work, sandbox, budget, model)]
        case _:
            return []


def _next(work: Work, sandbox: f.SandboxReady, budget: Budget, model: str) -> Plan:
    if not work.turns:
        return _turn(work, budget, model)
    last = work.turns[-1]
    uses = tool_uses(last)
    if not uses:
        return _stopped(work, last, budget, model)
    if not work.settled:
        return RunTools(
            turn=last.turn, sandbox_id=sandbox.sandbox_id, generation=sandbox.generation, uses=uses
        )
    for use in uses:
        if use["id"] in work.answers:
            continue
        if use["name"] == "ask":
            question = str(use["input"].get("question", "")).strip()
            return AskPerson(turn=last.turn, tool_use_id=use["id"], question=question or "(no question)")
        if use["name"] == "submit":
            return _submitted(work, last, use["input"], budget)
    return _turn(work, budget, model)


def _stopped(work: Work, last: f.TurnTaken, budget: Budget, model: str) -> Plan:
    """The model used no tool: an answer, an unfinished sentence, or work it forgot to hand in."""
    if cut_short(last):
        return _turn(work, budget, model)
    if not work.changed:
        return GiveAnswer(turn=last.turn, text=said(last) or "(The agent ended without a word.)")
    before = work.turns[-2] if len(work.turns) > 1 else None
    nudged = before is not None and not tool_uses(before) and not cut_short(before)
    if not nudged:
        return _turn(work, budget, model)
    return _propose(work, last.turn, budget, note="The agent stopped without submitting its work.")


def _submitted(work: Work, last: f.TurnTaken, given: dict[str, object], budget: Budget) -> Propose:
    verified = given.get("verified")
    return _propose(
        work,
        last.turn,
        budget,
        title=str(given.get("title", "")).strip(),
        summary=str(given.get("summary", "")).strip(),
        claims=tuple(str(each) for each in verified) if isinstance(verified, list) else (),
    )


def _propose(
    work: Work,
    turn: int,
    budget: Budget,
    *,
    title: str = "",
    summary: str = "",
    claims: tuple[str, ...] = (),
    note: str = "",
) -> Propose:
    attempt = work.attempts + 1
    return Propose(
        turn=turn,
        attempt=attempt,
        last=bool(note) or attempt >= MAX_ATTEMPTS or _spent(work, budget) is not None,
        title=title or f"Work on #{work.request.issue.number}",
        summary=summary or said(work.turns[-1]),
        claims=claims,
        change=work.batches[-1].checkpoint,
        note=note,
    )


def _turn(work: Work, budget: Budget, model: str) -> Plan:
    spent = _spent(work, budget)
    if spent is None:
        return TakeTurn(turn=len(work.turns) + 1, request=request(work, model))
    kind, why = spent
    if work.changed:
        return _propose(work, work.turns[-1].turn, budget, note=f"The work ended at a limit: {why}.")
    return GiveUp(kind=kind, why=f"The work ended at a limit without a change: {why}.")


def _spent(work: Work, budget: Budget) -> tuple[str, str] | None:
    """Which limit the next turn would pass, as kind and words; None if there is room for it."""
    if len(work.turns) >= budget.turns:
        return "budget_turns", f"{budget.turns} turn" + ("s" if budget.turns > 1 else "")
    if work.tokens + MAX_OUTPUT > budget.tokens:
        return "budget_tokens", f"{budget.tokens:,} tokens"
    if work.cost + budget.dearest_turn > budget.cost:
        return "budget_cost", f"${budget.cost / 1_000_000:.2f}"
    if work.seconds >= budget.seconds:
        return "budget_time", f"{budget.seconds / 60:.0f} minutes of work"
    return None
