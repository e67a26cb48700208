"""The run as the agent sees it, folded from facts. Pure.

Each phase is a type: a parked run has a question, a working one a sandbox, an ended one nothing.
"""

from typing import Any

import msgspec

from contracts import facts as f


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine without ``submit`` is told after its turn ``turn``: how its proposal fared."""

    turn: int
    text: str


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What every phase of a started run carries: the request and everything said and done so far."""

    request: f.RunRequested
    base: str = ""
    base_tree: str = ""
    test_command: str | None = None
    about: str = ""
    instructions: tuple[f.Document, ...] = ()
    turns: tuple[f.TurnTaken, ...] = ()
    batches: tuple[f.ToolsRan, ...] = ()
    answers: dict[str, tuple[str, bool]] = {}
    """Results of ``ask`` and ``submit`` by tool use id: text, and whether it is an error."""
    follow_ups: tuple[FollowUp, ...] = ()
    attempts: int = 0
    generation: int = 0
    """The newest sandbox so far."""
    arrivals: int = 0
    """Sandboxes since the last step of the work, the one of that step among them."""

    @property
    def steps(self) -> tuple[f.TurnTaken, ...]:
        """The turns of the conversation."""
        return tuple(turn for turn in self.turns if not turn.side)

    @property
    def changed(self) -> bool:
        """Whether the last checkpoint differs from the base."""
        return bool(self.batches) and self.batches[-1].checkpoint.tree != self.base_tree

    @property
    def settled(self) -> bool:
        """Whether the tools of the conversation's last turn ran."""
        return bool(self.batches) and self.batches[-1].turn == self.steps[-1].turn

    @property
    def tokens(self) -> int:
        """Tokens of all turns, cached ones included."""
        return sum(_tokens(turn.usage) for turn in self.turns)

    @property
    def cost(self) -> int:
        """Millionths of a dollar."""
        return sum(turn.cost for turn in self.turns)

    @property
    def seconds(self) -> float:
        """Working time of model and tools; waiting does not count."""
        tools = sum(outcome.seconds for batch in self.batches for outcome in batch.results)
        return tools + sum(turn.seconds for turn in self.turns)


class Idle(msgspec.Struct, frozen=True):
    """Nothing was asked yet."""


class Waiting(msgspec.Struct, frozen=True):
    """A sandbox is being prepared: the first, or one after a loss or an answer."""

    work: Work


class Working(msgspec.Struct, frozen=True):
    """A sandbox is there."""

    work: Work
    sandbox: f.SandboxReady


class Parked(msgspec.Struct, frozen=True):
    """A person was asked."""

    work: Work
    question: f.QuestionAsked


class Proposed(msgspec.Struct, frozen=True):
    """A change is being verified; the sandbox stays."""

    work: Work
    sandbox: f.SandboxReady
    proposal: f.SolutionProposed


class Ended(msgspec.Struct, frozen=True):
    """Nothing is left for the agent to do."""


Run = Idle | Waiting | Working | Parked | Proposed | Ended
START: Run = Idle()


def evolve(run: Run, fact: f.AnyFact) -> Run:
    """The run after one more fact; facts that do not concern the phase, and repeated ones, change nothing."""
    match run, fact:
        case Ended(), _:
            return run
        case _, f.AnswerGiven() | f.RunFailed() | f.RunCancelled() | f.RunFinished():
            return Ended()
        case Idle(), f.RunRequested():
            return Waiting(Work(request=fact))
        case Waiting(work=work), f.SandboxReady(generation=generation) if generation > work.generation:
            return Working(_arrived(work, fact), fact)
        case Working(work=work), f.TurnTaken(turn=turn) if turn == len(work.turns) + 1:
            work = msgspec.structs.replace(work, turns=(*work.turns, fact), arrivals=1)
            return Working(work, run.sandbox)
        case Working(work=work), f.ToolsRan() if _due(work, fact):
            work = msgspec.structs.replace(work, batches=(*work.batches, fact), arrivals=1)
            return Working(work, run.sandbox)
        case Working(work=work) | Proposed(work=work), f.SandboxLost(generation=generation) if (
            generation == work.generation
        ):
            return Waiting(work)
        case Working(work=work), f.QuestionAsked(tool_use_id=use) if use not in work.answers:
            return Parked(work, fact)
        case Parked(work=work, question=question), f.QuestionAnswered():
            text = f"{fact.by.login} answered:\n{fact.answer}"
            return Waiting(_told(work, question.tool_use_id, text, error=False))
        case Working(work=work), f.SolutionProposed(attempt=attempt) if attempt == work.attempts + 1:
            work = msgspec.structs.replace(work, attempts=attempt)
            return Proposed(work, run.sandbox, fact)
        case Proposed(), f.VerificationFinished():
            return _verified(run, fact)
        case _:
            return run


def tool_uses(turn: f.TurnTaken) -> tuple[dict[str, Any], ...]:
    """The tool_use blocks of a turn; none unless the model stopped to use tools."""
    if turn.stop_reason != "tool_use":
        return ()
    return tuple(block for block in turn.content if block.get("type") == "tool_use")


def _due(work: Work, batch: f.ToolsRan) -> bool:
    return bool(work.steps) and batch.turn == work.steps[-1].turn and not work.settled


def cut_short(turn: f.TurnTaken) -> bool:
    """Whether the model would have gone on."""
    return turn.stop_reason in ("max_tokens", "pause_turn")


def said(turn: f.TurnTaken) -> str:
    """The text of a turn."""
    return "\n\n".join(str(b.get("text", "")) for b in turn.content if b.get("type") == "text").strip()


def _arrived(work: Work, ready: f.SandboxReady) -> Work:
    if work.base:
        # A later sandbox: the run keeps the base and the instructions it began with.
        return msgspec.structs.replace(work, generation=ready.generation, arrivals=work.arrivals + 1)
    return msgspec.structs.replace(
        work,
        generation=ready.generation,
        arrivals=1,
        base=ready.base,
        base_tree=ready.tree,
        test_command=ready.test_command,
        about=ready.about,
        instructions=ready.instructions,
    )


def _told(work: Work, tool_use_id: str, text: str, *, error: bool) -> Work:
    return msgspec.structs.replace(work, answers=work.answers | {tool_use_id: (text, error)})


def _verified(run: Proposed, result: f.VerificationFinished) -> Run:
    if result.attempt != run.proposal.attempt:
        return run
    if result.verdict not in ("failed", "refused") or run.proposal.last:
        return Ended()
    uses = [use for use in tool_uses(run.work.turns[-1]) if use["name"] == "submit"]
    text = _why_not(result)
    work = run.work
    for use in uses:
        work = _told(work, use["id"], text, error=True)
    if not uses:
        told = FollowUp(turn=work.steps[-1].turn, text=text)
        work = msgspec.structs.replace(work, follow_ups=(*work.follow_ups, told))
    return Working(work, run.sandbox)


def _why_not(result: f.VerificationFinished) -> str:
    if result.verdict == "refused":
        return f"The change was refused: {result.reason}. Mend it and submit again."
    parts = ["Verification on a fresh checkout of exactly your tree failed. Mend it and submit again."]
    for check in result.checks:
        end = "timed out" if check.exit_code is None else f"exit code {check.exit_code}"
        parts.append(f"$ {check.command}\n({end})\n{check.output}")
    if result.base_checks:
        ends = ", ".join(f"`{check.command}`: {check.exit_code}" for check in result.base_checks)
        parts.append(f"On the unchanged base the exit codes were: {ends}.")
    return "\n\n".join(parts)[:30_000]


def _tokens(usage: f.Usage) -> int:
    return (
        usage.input_tokens
        + usage.output_tokens
        + usage.cache_creation_input_tokens
        + usage.cache_read_input_tokens
    )
