"""Who gets a sandbox next: fair over repositories, with a place that can be told (F-73)."""

import re

import pytest

from services.kit.errors import Later
from services.sandbox_runner.room import Room


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def knock(room: Room, sandbox: str, repository: int = 1) -> tuple[int, int] | None:
    """None if it got in; else its place and how many wait."""
    try:
        room.enter(sandbox, repository)
    except Later as queued:
        assert queued.kind == "queued"
        assert queued.seconds
        found = re.search(r"number (\d+) of (\d+)", str(queued))
        assert found
        return int(found[1]), int(found[2])
    return None


def test_who_is_inside_stays_inside_and_the_others_learn_their_place() -> None:
    room = Room(2, clock=Clock())
    assert [knock(room, name) for name in "ab"] == [None, None]
    assert [knock(room, name) for name in "cdc"] == [(1, 1), (2, 2), (1, 2)]
    assert knock(room, "a") is None
    assert room.queue == ("c", "d")


def test_a_free_place_is_kept_for_the_first_until_it_is_late() -> None:
    clock = Clock()
    room = Room(1, clock=clock)
    assert knock(room, "a") is None
    assert [knock(room, "b"), knock(room, "c")] == [(1, 1), (2, 2)]
    room.leave("a")
    assert knock(room, "c") == (1 + 1, 2)
    assert knock(room, "b") is None
    room.leave("b")
    clock.now += 1.0
    assert knock(room, "d") == (2, 2)  # c was told to come back after a second
    clock.now += 2.6
    assert knock(room, "d") is None  # and did not: its run went to another runner, or is over


def test_a_repository_with_many_runs_does_not_starve_another() -> None:
    clock = Clock()
    room = Room(2, clock=clock)
    busy = [f"busy{number:02}" for number in range(50)]
    assert [knock(room, name, 1) for name in busy[:2]] == [None, None]
    for name in busy[2:]:
        assert knock(room, name, 1) is not None
    clock.now += 0.1
    assert knock(room, "small", 2) == (1, 49)
    room.leave("busy00")
    assert knock(room, "busy02", 1) == (2, 49)
    assert knock(room, "small", 2) is None
    room.leave("busy01")
    assert knock(room, "busy02", 1) is None


def test_turns_alternate_between_repositories_that_wait() -> None:
    room = Room(1, clock=Clock())
    room.add("x", 9)
    for name, repository in (("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2)):
        knock(room, name, repository)
    assert room.queue == ("a1", "b1", "a2", "b2", "a3")


def test_without_memory_only_the_first_gets_in() -> None:
    enough = [False]
    room = Room(8, enough=lambda: enough[0], clock=Clock())
    assert knock(room, "a") is None  # or nothing would ever go on
    assert knock(room, "b") == (1, 1)
    enough[0] = True
    assert knock(room, "b") is None


def test_a_place_is_given_back_once() -> None:
    room = Room(1, clock=Clock())
    room.enter("a", 1)
    room.leave("a")
    room.leave("a")
    room.enter("b", 1)
    with pytest.raises(Later):
        room.enter("c", 1)
