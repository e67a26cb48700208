"""Warm containers on real Podman: verified ahead, used once, replaced, healthy, found again, drained."""

import asyncio
import os
import shlex
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from contracts.tools import ToolCall
from services.kit.errors import Later, MillraceError
from services.sandbox_runner.memory import Memory
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.pool import IDLE_SECONDS, Pool
from services.sandbox_runner.profile import Shape
from tests.integration.sandbox_kit import REPOSITORY, SMALL, Bench, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

PLENTY = Memory(available=1 << 40, total=1 << 40)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def host(place: Bench, tmp_path: Path) -> AsyncIterator[PodmanHost]:
    """A runner of its own; nothing of it may be left by the end of the test."""
    host = PodmanHost(place.host.api, f"pool-{os.urandom(4).hex()}", tmp_path / "runner", place.host.ceiling)
    try:
        yield host
    finally:
        await host.pool.drain()
        left = await host.list_orphans(set())
        for orphan in left:
            await host.remove(orphan.container, orphan.box)
        assert left == []
        assert host.records.read() == []
        assert list((tmp_path / "runner/channels").glob("*")) == []


def shape(place: Bench) -> Shape:
    return Shape(image=place.image, limits=SMALL)


async def waits(pool: Pool, number: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while pool.waiting != number:
        assert time.monotonic() < deadline, f"{pool.waiting} wait, not {number}: {pool.problem}"
        await asyncio.sleep(0.01)


async def test_what_is_taken_was_there_before_is_used_once_and_is_replaced(
    place: Bench, host: PodmanHost
) -> None:
    host.pool.keep(shape(place), 2, 4)
    await waits(host.pool, 2)
    warm = {orphan.container for orphan in await host.list_orphans(set())}
    spec = place.spec()
    box = await host.take(spec)
    assert box.container in warm
    assert (await host.find(spec.sandbox_id)) == box.container
    (orphan,) = [o for o in await host.list_orphans(set()) if o.container == box.container]
    assert (orphan.sandbox_id, orphan.run_id) == (spec.sandbox_id, spec.key.run)
    await waits(host.pool, 2)
    await box.channel.close()
    await host.release(spec.sandbox_id)
    other = await host.take(place.spec())
    assert other.container != box.container
    await host.release(other.record.sandbox)


async def test_a_prepared_sandbox_from_the_pool_is_like_any_other(place: Bench, host: PodmanHost) -> None:
    host.pool.keep(shape(place), 1, 4)
    await waits(host.pool, 1)
    sandbox = PodmanSandbox(host, place.mirror.path(REPOSITORY))
    ready = await sandbox.prepare(place.spec(), place.pack, place.base)
    assert ready.uid_map > 0
    change = await sandbox.checkpoint(place.base)
    assert change.empty
    assert change.tree == ready.tree
    await sandbox.release()


async def test_more_wait_where_more_are_taken_but_never_more_than_allowed(
    place: Bench, host: PodmanHost
) -> None:
    host.pool.keep(shape(place), 1, 3)
    await waits(host.pool, 1)
    boxes = await asyncio.gather(*(host.take(place.spec()) for _ in range(5)))
    assert len({box.container for box in boxes}) == 5
    await waits(host.pool, 3)
    for box in boxes:
        await box.channel.close()
    await asyncio.gather(*(host.discard(box.record) for box in boxes))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_one_that_died_or_stands_still_is_never_handed_out(
    place: Bench, host: PodmanHost, number: signal.Signals
) -> None:
    host.pool.keep(shape(place), 1, 1)
    await waits(host.pool, 1)
    (sick,) = await host.list_orphans(set())
    os.kill((await host.api.inspect(sick.container))["State"]["Pid"], number)
    box = await host.take(place.spec())
    assert box.container != sick.container
    assert await box.alive()
    await box.channel.close()
    await host.discard(box.record)


async def test_another_image_or_other_limits_are_started_for_themselves(
    place: Bench, host: PodmanHost
) -> None:
    host.pool.keep(shape(place), 1, 1)
    await waits(host.pool, 1)
    warm = {orphan.container for orphan in await host.list_orphans(set())}
    spec = place.spec(type(SMALL)(memory=SMALL.memory, disk=SMALL.disk, pids=64))
    box = await host.take(spec)
    assert box.container not in warm
    await box.channel.close()
    await host.discard(box.record)


async def test_short_memory_keeps_nothing_waiting_and_stops_no_run(place: Bench, host: PodmanHost) -> None:
    seen = [PLENTY]
    host.pool = Pool(host, lambda: seen[0])
    host.pool.keep(shape(place), 2, 2)
    await waits(host.pool, 2)
    seen[0] = Memory(available=1, total=1 << 40)
    host.pool.keep(shape(place), 2, 2)  # wakes it
    await waits(host.pool, 0)
    box = await host.take(place.spec())
    await box.channel.close()
    await host.discard(box.record)
    seen[0] = PLENTY
    host.pool.keep(shape(place), 1, 2)
    await waits(host.pool, 2)  # the one just taken counts


async def test_a_machine_that_fails_is_not_asked_without_end(
    place: Bench, host: PodmanHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def fails(_: object) -> str:
        nonlocal asked
        asked += 1
        raise Later("Podman failed on the machine that runs the sandboxes.", kind="podman_failed")

    with monkeypatch.context() as patch:
        patch.setattr(host.api, "create", fails)
        host.pool.keep(shape(place), 2, 2)
        deadline = time.monotonic() + 10
        while not host.pool.problem:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        for _ in range(20):
            host.pool.keep(shape(place), 2, 2)
            await asyncio.sleep(0)
        with pytest.raises(MillraceError):
            await host.take(place.spec())
    assert asked == 2  # once for itself, once for the run
    assert "Podman failed" in host.pool.problem


async def test_containers_of_a_killed_runner_wait_again_for_the_next(place: Bench, host: PodmanHost) -> None:
    host.pool.keep(shape(place), 2, 2)
    await waits(host.pool, 2)
    before = {orphan.container for orphan in await host.list_orphans(set())}
    await _dies(host)
    heir = PodmanHost(host.api, host.runner, host.scratch.parent, host.ceiling)
    assert len(heir.unheld()) == 2
    for record in heir.unheld():
        assert heir.is_current(record, IDLE_SECONDS)
        heir.pool.put(await heir.adopt(record))
    assert heir.unheld() == []
    box = await heir.take(place.spec())
    assert box.container in before
    await box.channel.close()
    await heir.discard(box.record)
    await heir.pool.drain()
    host.records = heir.records


async def test_a_workspace_survives_its_runner_and_a_call_is_answered_once(
    place: Bench, host: PodmanHost
) -> None:
    sandbox = PodmanSandbox(host, place.mirror.path(REPOSITORY))
    await sandbox.prepare(place.spec(), place.pack, place.base)
    assert sandbox._box is not None
    call = _bash(
        "once", "cd docs; export A=b; date +%N >> /workspace/count; sleep 1; wc -l < /workspace/count"
    )
    running = asyncio.create_task(sandbox.call(call))
    while "count" not in (await sandbox.call(_bash(os.urandom(4).hex(), "ls /workspace"))).content:
        assert not running.done()
    await sandbox._box.channel.close()
    with pytest.raises(MillraceError):
        await running
    heir = PodmanHost(host.api, host.runner, host.scratch.parent, host.ceiling)
    (record,) = heir.unheld()
    again = PodmanSandbox(heir, place.mirror.path(REPOSITORY), box=await heir.adopt(record))
    assert (await again.call(call)).content.strip() == "1"
    assert (await again.call(call)).content.strip() == "1"
    assert (await again.call(_bash("state", "pwd; echo $A"))).content == "/workspace/docs\nb\n"
    change = await again.checkpoint(place.base)
    assert [entry.path for entry in change.written] == [b"count"]
    await again.release()
    host.records = heir.records


async def test_a_stranger_inside_cannot_take_the_channel_of_an_adopted_sandbox(
    place: Bench, host: PodmanHost
) -> None:
    sandbox = PodmanSandbox(host, place.mirror.path(REPOSITORY))
    await sandbox.prepare(place.spec(), place.pack, place.base)
    assert sandbox._box is not None
    grabber = (
        "import socket, time\n"
        "while True:\n"
        "    s = socket.socket(socket.AF_UNIX)\n"
        "    try:\n"
        "        s.connect('/run/channel/s'); s.recv(1)\n"
        "    except OSError:\n"
        "        time.sleep(0.0005)\n"
    )
    await sandbox.call(
        _bash("grab", f"printf %s {shlex.quote(grabber)} > /tmp/g.py; setsid python3 /tmp/g.py &")
    )
    await sandbox._box.channel.close()
    heir = PodmanHost(host.api, host.runner, host.scratch.parent, host.ceiling)
    (record,) = heir.unheld()
    box = await heir.adopt(record)
    assert box.channel.peer_pid == (await heir.api.inspect(box.container))["State"]["Pid"]
    again = PodmanSandbox(heir, place.mirror.path(REPOSITORY), box=box)
    assert (await again.call(_bash("fine", "echo fine"))).content == "fine\n"
    await again.release()
    host.records = heir.records


async def test_a_container_that_ended_without_a_runner_is_gone_by_itself(
    place: Bench, host: PodmanHost
) -> None:
    box = await host.start(shape(place))
    os.kill((await host.api.inspect(box.container))["State"]["Pid"], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while await host.list_orphans(set()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await box.channel.close()
    await host.discard(box.record)


async def _dies(host: PodmanHost) -> None:
    """What SIGKILL does to a runner, but for its memory: its connections are gone, nothing is removed."""
    pool = host.pool
    assert pool._keeping is not None
    pool._keeping.cancel()
    await asyncio.gather(pool._keeping, return_exceptions=True)
    pool._keeping = None
    for boxes in pool._warm.values():
        for box in boxes:
            await box.channel.close()
        boxes.clear()


def _bash(identity: str, command: str) -> ToolCall:
    return ToolCall(id=identity, name="bash", input={"command": command}, seconds=30)
