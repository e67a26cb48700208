"""What the agent does next. Pure: the recorded run in, one plan out."""

import msgspec

from contracts import facts as f
from contracts.change import ChangeRef
from services.agent.engine_words import handed_in
from services.agent.prompt import MAX_OUTPUT, request
from services.agent.request import ModelRequest
from services.agent.state import Run, Work, Working, cut_short, said, tool_uses

MAX_ATTEMPTS = 3
"""Proposals that one run may make."""
MAX_ARRIVALS = 3
"""Sandboxes in which an engine may end before its next step."""


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
    """Hand the checkpoint in. An engine in sandbox ``ends`` is ended first."""

    turn: int
    attempt: int
    last: bool
    title: str
    summary: str
    claims: tuple[str, ...]
    change: ChangeRef
    note: str = ""
    ends: str = ""


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    """End without a result, truthfully."""

    kind: str
    why: str


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a budget: tokens, millionths of a dollar, seconds of work."""

    tokens: int
    cost: int
    seconds: float


class RunEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Let the engine in the sandbox go on until there is a fact: a turn, or the results of its tools.

    ``over`` is what follows instead when a limit is met on the way, by the limit's kind.
    """

    turn: int
    sandbox_id: str
    generation: int
    model: str
    work: Work
    room: Room
    over: dict[str, Propose | GiveUp]


Plan = TakeTurn | RunTools | AskPerson | GiveAnswer | Propose | GiveUp | RunEngine


def decide(
    run: Run, _fact: f.AnyFact, *, budget: Budget, model: str, engine: f.Engine = "millrace"
) -> list[Plan]:
    """The next step of a run that has a sandbox; every other phase waits for somebody else.

    ``engine`` is for runs that have not begun: a run keeps the engine of its first turn.
    """
    match run:
        case Working(work=work, sandbox=sandbox):
            own = (work.turns[0].engine if work.turns else engine) == "millrace"
            return [_next(work, sandbox, budget, model) if own else _engine(work, sandbox, budget, model)]
        case _:
            return []


def as_fact(plan: GiveAnswer | Propose | GiveUp) -> f.AnswerGiven | f.SolutionProposed | f.RunFailed:
    """The fact that such a plan comes to; nothing else has to be done for it."""
    match plan:
        case GiveAnswer(turn=turn, text=text):
            return f.AnswerGiven(turn=turn, text=text)
        case Propose():
            given = msgspec.structs.asdict(plan)
            del given["ends"]
            return f.SolutionProposed(**given)
        case GiveUp(kind=kind, why=why):
            return f.RunFailed(stage="agent", kind=kind, why=why)


def _engine(work: Work, sandbox: f.SandboxReady, budget: Budget, model: str) -> Plan:
    last = work.steps[-1] if work.steps else None
    told = bool(last and work.follow_ups and work.follow_ups[-1].turn == last.turn)
    if last is not None and not told and not tool_uses(last) and not cut_short(last):
        return _engine_ended(work, last, sandbox, budget)
    spent = _spent(work, budget)
    if spent is not None:
        return _at_limit(work, *spent, budget, ends=sandbox.sandbox_id)
    if work.arrivals > MAX_ARRIVALS:
        why = f"Claude Code ended {MAX_ARRIVALS} times before its next step"
        return _at_limit(work, "engine_ended", why, budget, ends=sandbox.sandbox_id)
    return RunEngine(
        turn=len(work.turns) + 1,
        sandbox_id=sandbox.sandbox_id,
        generation=sandbox.generation,
        model=model,
        work=work,
        room=Room(
            tokens=budget.tokens - work.tokens,
            cost=budget.cost - work.cost,
            seconds=budget.seconds - work.seconds,
        ),
        over={
            kind: _at_limit(work, kind, words, budget, ends=sandbox.sandbox_id)
            for kind, words in _limits(budget).items()
        },
    )


def _engine_ended(work: Work, last: f.TurnTaken, sandbox: f.SandboxReady, budget: Budget) -> Plan:
    """Its last words are the answer, or title and summary of its change."""
    if last.stop_reason == "refusal":
        if not work.changed:
            return GiveUp(kind="model_refused", why="the model refused to go on with this issue")
        return _propose(work, last.turn, budget, note="The model refused to go on.", ends=sandbox.sandbox_id)
    if not work.changed:
        return GiveAnswer(turn=last.turn, text=said(last) or "(The agent ended without a word.)")
    words = [str(block.get("text", "")) for block in last.content if block.get("type") == "text"]
    title, summary, claims = handed_in(words[-1] if words else "")
    return _propose(
        work, last.turn, budget, title=title, summary=summary, claims=claims, ends=sandbox.sandbox_id
    )


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
    ends: str = "",
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
        ends=ends,
    )


def _turn(work: Work, budget: Budget, model: str) -> Plan:
    spent = _spent(work, budget)
    if spent is None:
        return TakeTurn(turn=len(work.turns) + 1, request=request(work, model))
    return _at_limit(work, *spent, budget)


def _at_limit(work: Work, kind: str, why: str, budget: Budget, *, ends: str = "") -> Propose | GiveUp:
    if work.changed:
        note = f"The work ended at a limit: {why}."
        return _propose(work, work.turns[-1].turn, budget, note=note, ends=ends)
    return GiveUp(kind=kind, why=f"The work ended at a limit without a change: {why}.")


def _limits(budget: Budget) -> dict[str, str]:
    """Each limit in words, by its kind."""
    return {
        "budget_turns": f"{budget.turns} turn" + ("s" if budget.turns > 1 else ""),
        "budget_tokens": f"{budget.tokens:,} tokens",
        "budget_cost": f"${budget.cost / 1_000_000:.2f}",
        "budget_time": f"{budget.seconds / 60:.0f} minutes of work",
    }


def _spent(work: Work, budget: Budget) -> tuple[str, str] | None:
    """Which limit the next turn would pass, as kind and words; None if there is room for it."""
    if len(work.turns) >= budget.turns:
        kind = "budget_turns"
    elif work.tokens + MAX_OUTPUT > budget.tokens:
        kind = "budget_tokens"
    elif work.cost + budget.dearest_turn > budget.cost:
        kind = "budget_cost"
    elif work.seconds >= budget.seconds:
        kind = "budget_time"
    else:
        return None
    return kind, _limits(budget)[kind]
