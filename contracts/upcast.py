"""Old facts in today's words: one pure function per change of meaning, applied when reading.

The stored bytes never change; only what a reader sees.
"""

from functools import singledispatch

from contracts.facts import AnyFact, Check, Fact, VerificationFinished, VerificationFinishedV1


@singledispatch
def upcast(fact: Fact) -> AnyFact:
    """The fact in its current version; current facts come back as they are."""
    return fact  # type: ignore[return-value]  # every non-current Fact has an overload below; a test walks them


@upcast.register
def _one_command_became_several_checks(fact: VerificationFinishedV1) -> VerificationFinished:
    check = Check(
        command=fact.command,
        tree=fact.tree,
        exit_code=fact.exit_code,
        seconds=fact.seconds,
        output=fact.output,
    )
    return VerificationFinished(
        attempt=fact.attempt,
        verdict="passed" if fact.passed else "failed",
        change=fact.change,
        checks=(check,),
    )
