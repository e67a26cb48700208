"""Asking the vault: one question, the wanted answer or one of our errors."""

from typing import TypeVar

import msgspec

from contracts.subjects import vault_subject
from contracts.vault import Answer, Denied, Question, decode_answer, encode, thing_of
from services.kit.bus import Bus
from services.kit.errors import Later, Refused

Wanted = TypeVar("Wanted", bound=Answer)


async def ask_vault(
    bus: Bus, service: str, question: Question, wanted: type[Wanted], *, timeout: float = 20.0
) -> Wanted:
    """The vault's answer to ``service``.

    Raises:
        Later: the vault is away, or says that another try may work.
        Refused: the vault says no; ``kind`` is its reason.
    """
    thing = thing_of(question)
    try:
        body = await bus.ask(vault_subject(service, thing), encode(question), timeout=timeout)
    except Later as error:
        raise Later(f"the vault does not answer ({thing})", kind="vault_unavailable") from error
    try:
        answer = decode_answer(body)
    except msgspec.DecodeError as error:
        raise Later(f"the vault's answer about {thing} is unreadable", kind="vault_unavailable") from error
    match answer:
        case Denied(kind=kind, why=why, retry_after=None):
            raise Refused(why, kind=kind)
        case Denied(kind=kind, why=why, retry_after=seconds):
            raise Later(why, kind=kind, seconds=seconds)
        case _ if isinstance(answer, wanted):
            return answer
    raise Later(f"the vault answered {thing} with {type(answer).__name__}", kind="vault_unavailable")
