"""Questions and answers over the bus: each answer arrives once."""

from services.kit.bus import Bus


async def test_everybody_who_answers_is_heard_once(bus: Bus) -> None:
    async def first(question: bytes) -> bytes:
        return b"first " + question

    async def second(question: bytes) -> bytes:
        return b"second " + question

    await bus.answers("question.v1.all", first)
    await bus.answers("question.v1.all", second)
    assert sorted(await bus.ask_all("question.v1.all", b"?")) == [b"first ?", b"second ?"]


async def test_nobody_answers_a_question_that_nobody_hears(bus: Bus) -> None:
    assert await bus.ask_all("question.v1.none", b"?", seconds=0.1) == []
