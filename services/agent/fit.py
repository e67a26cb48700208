"""Results of tools within the room of one fact. Pure."""

import msgspec

from contracts import facts as f

BATCH_BYTES = 160_000
"""Room for the results of one batch in its fact; each result gets an equal share of what is over."""


def fitted(outcomes: list[f.ToolOutcome]) -> tuple[f.ToolOutcome, ...]:
    """The results within the room of one fact: long ones keep their head and tail."""
    share = BATCH_BYTES // max(len(outcomes), 1)
    return tuple(_cut(outcome, share) for outcome in outcomes)


def _cut(outcome: f.ToolOutcome, share: int) -> f.ToolOutcome:
    # JSON can need six bytes for one control character; measuring what will be stored is exact.
    if len(msgspec.json.encode(outcome.content)) <= share:
        return outcome
    half = share // 12
    left_out = len(outcome.content) - 2 * half
    content = f"{outcome.content[:half]}\n[{left_out} characters left out]\n{outcome.content[-half:]}"
    return msgspec.structs.replace(outcome, content=content, omitted=outcome.omitted + left_out)
