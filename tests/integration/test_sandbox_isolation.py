"""Hostile code in a real container: it finds nothing, reaches nobody and outlives nothing."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from contracts.tools import ToolCall
from services.kit.errors import Later, Refused
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.podman_command import run_podman
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import PodmanService
from services.sandbox_runner.sandbox import Limits
from tests.integration.sandbox_kit import REPOSITORY, SMALL, Bench, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

CANARY = "sk-ant-canary-0123456789"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", CANARY)
        patch.setenv("HTTPS_PROXY", f"http://user:{CANARY}@proxy.invalid:3128")
        async with bench(tmp_path_factory.mktemp("bench")) as made:
            yield made


async def test_there_is_no_secret_and_no_privilege_inside(place: Bench) -> None:
    async with place.open() as box:
        assert box.ready.uid_map > 0
        seen = await box.bash(
            "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; mount;"
            " ls -la /run /run/secrets /run/channel /run/podman 2>&1; cat /etc/hosts"
        )
        assert CANARY not in seen.content
        assert "proxy.invalid" not in seen.content
        assert (await box.bash("find / -xdev -type s 2>/dev/null; find /run /tmp -type s")).content == ""
        status = (await box.bash("cat /proc/self/status")).content
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{name}:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert (await box.bash("id -u; ls -A /run/channel")).content == "1000\n"


async def test_the_first_process_can_be_neither_read_nor_ended(place: Bench) -> None:
    async with place.open() as box:
        await box.bash("for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; kill -STOP 1; true")
        result = await box.bash("cat /proc/1/environ /proc/1/maps; ls /proc/1/fd; echo alive")
        assert result.content.count("Permission denied") == 3
        assert result.content.endswith("alive\n")
        trace = "import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))"
        assert (await box.bash(f"python3 -c '{trace}'")).content == "-1\n"


async def test_nothing_outside_can_be_reached(place: Bench) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0)  # noqa: S104  a trap
    port = server.sockets[0].getsockname()[1]
    probe = f"""
import socket
for family, address in ((2, ("127.0.0.1", {port})), (2, ("10.0.2.2", {port})), (2, ("169.254.169.254", 80)),
                        (2, ("8.8.8.8", 53)), (10, ("2001:4860:4860::8888", 53))):
    try:
        socket.create_connection(address, 2) if family == 2 else socket.socket(10).connect(address)
        print("reached", address)
    except OSError:
        print("no")
try:
    socket.getaddrinfo("example.com", 80); print("reached dns")
except OSError:
    print("no")
try:
    socket.socket(2, 3, 1); print("reached raw")
except OSError:
    print("no")
"""
    async with place.open() as box:
        await box.edit("create", "probe.py", file_text=probe)
        result = await box.bash("python3 probe.py; ls /sys/class/net")
    server.close()
    assert result.content.split() == ["no"] * 7 + ["lo"]


async def test_the_root_is_read_only_and_the_disk_is_limited(place: Bench) -> None:
    async with place.open() as box:
        for target in ("/usr/x", "/etc/x", "/opt/millrace/toolserver/x", "/run/channel/x", "/run/x"):
            assert (await box.bash(f"echo x > {target}")).exit_code != 0, target
        full = await box.bash("head -c 2000000000 /dev/zero > big; head -c 2000000000 /dev/zero > /tmp/big")
        assert "No space left" in full.content
        assert (await box.bash("echo still here; rm big /tmp/big")).content.startswith("still here")


async def test_a_fork_bomb_ends_with_its_call_and_the_sandbox_goes_on(place: Bench) -> None:
    async with place.open() as box:
        await box.bash(":(){ :|:& };: ; sleep 30", seconds=3.0)
        assert not (await box.sandbox.call(_restart())).is_error
        # The kernel takes its time to bury that many: what counts is that they end.
        ended = "for _ in {1..100}; do test $(pgrep -c bash) = 1 && break; sleep 0.1; done"
        assert (await box.bash(f"{ended}; echo alive; pgrep -c bash")).content == "alive\n1\n"


async def test_a_memory_hog_is_killed_and_the_tool_server_is_not(place: Bench) -> None:
    async with place.open() as box:
        hog = await box.bash("python3 -c \"x = b'x' * (3 * 1024**3)\"")
        assert hog.exit_code == 137 or "MemoryError" in hog.content
        assert (await box.bash("echo alive")).content == "alive\n"


async def test_release_leaves_nothing(place: Bench) -> None:
    async with place.open() as box:
        container = box.ready.container
        assert [o.container for o in await place.host.list_orphans(set())] == [container]
        await box.bash("setsid sleep 1000 & disown")
    assert await place.host.list_orphans(set()) == []
    assert await place.host.find("anything") is None
    listed = await run_podman(["ps", "-aq", "--no-trunc"], seconds=30)
    assert container not in listed
    assert not list((place.host.channel_directory("x").parent).glob("t*"))


async def test_preparing_an_id_again_replaces_its_container(place: Bench) -> None:
    spec = place.spec()
    first = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    second = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    try:
        old = await first.prepare(spec, place.pack, place.base)
        new = await second.prepare(spec, place.pack, place.base)
        assert old.container != new.container
        assert await place.host.find(spec.sandbox_id) == new.container
    finally:
        await second.release()
        await first.release()


async def test_another_home_on_the_machine_may_have_a_sandbox_of_the_same_id(
    place: Bench, tmp_path: Path
) -> None:
    spec = place.spec()
    other = PodmanHost(place.host.api, "other", tmp_path / "other" / "runner", place.host.ceiling)
    ours = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    theirs = PodmanSandbox(other, place.mirror.path(REPOSITORY))
    try:
        container = (await ours.prepare(spec, place.pack, place.base)).container
        assert container != (await theirs.prepare(spec, place.pack, place.base)).container
        assert await place.host.find(spec.sandbox_id) == container
        await theirs.release()
        assert await place.host.find(spec.sandbox_id) == container
    finally:
        await ours.release()
        await theirs.release()


async def test_an_orphan_is_found_by_its_runner_and_removed(place: Bench) -> None:
    sandbox = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    spec = place.spec()
    await sandbox.prepare(spec, place.pack, place.base)
    (orphan,) = await place.host.list_orphans(set())
    assert (orphan.sandbox_id, orphan.run_id) == (spec.sandbox_id, spec.run_id)
    assert await place.host.list_orphans({spec.sandbox_id}) == []
    await place.host.remove(orphan.container, orphan.sandbox_id)
    await place.host.remove(orphan.container, orphan.sandbox_id)
    assert await place.host.list_orphans(set()) == []
    await sandbox.release()


async def test_a_sandbox_ends_with_its_lifetime(place: Bench) -> None:
    short = Limits(memory=SMALL.memory, disk=SMALL.disk, seconds=2.0)
    async with place.open(short) as box:
        with pytest.raises(Later) as gone:
            await box.bash("sleep 60", seconds=50)
        assert gone.value.kind == "sandbox_lost"


async def test_an_image_that_is_missing_is_named(place: Bench) -> None:
    sandbox = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    spec = place.spec()
    missing = type(spec)(sandbox_id=spec.sandbox_id, run_id="R", image="localhost/no-such-image:1")
    with pytest.raises(Refused) as refused:
        await sandbox.prepare(missing, place.pack, place.base)
    assert refused.value.kind == "image_missing"
    assert "no-such-image" in str(refused.value)


async def test_a_pack_without_the_base_leaves_no_container(place: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pack"
    broken.write_bytes(b"PACK" + b"\0" * 3_000_000)
    sandbox = PodmanSandbox(place.host, place.mirror.path(REPOSITORY))
    with pytest.raises(Later):
        await sandbox.prepare(place.spec(), broken, place.base)
    assert await place.host.list_orphans(set()) == []


async def test_a_service_that_is_missing_hangs_or_fails_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Later) as missing:
        await PodmanService(f"unix://{tmp_path}/none.sock").start()
    assert missing.value.kind == "podman_unavailable"

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 500 Oops\r\nContent-Length: 18\r\n\r\n{"message":"broken"}')
        await writer.drain()
        writer.close()

    for name, behaviour, kind in (("hang", hang, "podman_timeout"), ("fail", fail, "podman_failed")):
        server = await asyncio.start_unix_server(behaviour, tmp_path / name)
        api = PodmanApi(f"unix://{tmp_path}/{name}", seconds=0.5)
        with pytest.raises(Later) as error:
            await api.ping(0.5)
        assert error.value.kind == kind
        api.close()
        server.close()


async def test_a_service_of_our_own_ends_with_the_runner_that_started_it() -> None:
    program = (
        "import asyncio\n"
        "from services.sandbox_runner.podman_service import PodmanService\n"
        "async def main():\n"
        "    print((await PodmanService(runtime='runc').start()).url, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout is not None
    url = (await runner.stdout.readline()).decode().strip()
    api = PodmanApi(url)
    await api.ping()
    runner.kill()
    await runner.wait()
    async with asyncio.timeout(20):
        while True:
            try:
                await api.ping()
            except Later:
                break
    api.close()


def _restart() -> ToolCall:
    return ToolCall(id="restart", name="bash", input={"restart": True})
