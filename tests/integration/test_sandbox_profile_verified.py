"""A container that is not what was asked for is never used: each guarantee, weakened behind the runner's back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.kit.errors import Refused
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.profile import GUARANTEES, Shape
from tests.integration.sandbox_kit import SMALL, Bench, bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

Weaken = Callable[[dict[str, Any]], None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


def _without(*names: str) -> Weaken:
    def weaken(body: dict[str, Any]) -> None:
        for name in names:
            del body[name]

    return weaken


def _with(**fields: Any) -> Weaken:
    return lambda body: body.update(fields)


def _hosts(kind: str) -> Weaken:
    """The host's namespace; the kernel lets nobody have it who has user ids of his own."""

    def weaken(body: dict[str, Any]) -> None:
        del body["idmappings"], body["userns"]
        body[kind] = {"nsmode": "host"}

    return weaken


def _mounting(source: str, target: str) -> Weaken:
    options = ["ro", "bind", "nosuid", "nodev", "noexec", "rprivate"]
    mount = {"destination": target, "type": "bind", "source": source, "options": options}
    return lambda body: body["mounts"].append(mount)


def _workspace(old: str, new: str) -> Weaken:
    def weaken(body: dict[str, Any]) -> None:
        (mount,) = [mount for mount in body["mounts"] if mount["destination"] == "/workspace"]
        changed = [new if o.startswith(old) else o for o in mount["options"]]
        mount["options"] = [option for option in changed if option]

    return weaken


def _limit(kind: str, value: Mapping[str, int] | None) -> Weaken:
    def weaken(body: dict[str, Any]) -> None:
        if value is None:
            del body["resource_limits"][kind]
        else:
            body["resource_limits"][kind] = value

    return weaken


def _readable(body: dict[str, Any]) -> None:
    start = body["command"][0]
    assert "from toolserver.__main__ import main" in start
    body["command"] = [
        start.replace(
            "from toolserver.__main__ import main",
            "from toolserver.processes import _libc; old = _libc.prctl;"
            " _libc.prctl = lambda option, *rest: 0 if option == 4 else old(option, *rest);"
            " from toolserver.__main__ import main",
        )
    ]


@pytest.mark.parametrize(
    ("guarantee", "weaken"),
    [
        pytest.param("seccomp", _without("seccomp_profile_path"), id="Podman's own filter"),
        pytest.param("seccomp", _with(seccomp_profile_path="unconfined"), id="no filter"),
        pytest.param("capabilities", _with(cap_drop=[]), id="Podman's default capabilities"),
        pytest.param("capabilities", _with(user="0:0"), id="root inside"),
        pytest.param("no-new-privileges", _with(no_new_privileges=False), id="new privileges"),
        pytest.param("mounts", _with(read_only_filesystem=False), id="a writable root"),
        pytest.param("mounts", _mounting("/etc/hostname", "/srv/x"), id="a file of the host"),
        pytest.param("mounts", _mounting("/var/tmp", "/mnt"), id="a directory of the host"),
        pytest.param("mounts", _workspace("size=", "size=1900000000"), id="a larger disk"),
        pytest.param("mounts", _workspace("size=", ""), id="a disk without a size"),
        pytest.param("mounts", _workspace("nosuid", "suid"), id="set-user-id programs"),
        pytest.param("network", _hosts("netns"), id="the host's network"),
        pytest.param("user-namespace", _without("idmappings", "userns"), id="the host's user ids"),
        pytest.param("user-namespace", _without("idmappings"), id="user ids that Podman forgets to give"),
        pytest.param("process-1", _hosts("pidns"), id="the host's processes"),
        pytest.param("process-1", _readable, id="a first process that can be read"),
        pytest.param("memory-limit", _limit("memory", {"limit": 1 << 31, "swap": 1 << 31}), id="more memory"),
        pytest.param("memory-limit", _limit("memory", None), id="all memory"),
        pytest.param("process-limit", _limit("pids", {"limit": 4000}), id="more processes"),
        pytest.param("process-limit", _limit("pids", {"limit": -1}), id="any number of processes"),
        pytest.param("cpu-limit", _limit("cpu", None), id="all processors"),
        pytest.param(
            "file-limits",
            _with(r_limits=[{"type": n, "soft": 64, "hard": 64} for n in ("nofile", "nproc")]),
            id="rlimits",
        ),
        pytest.param("environment", _with(env={"https_proxy": "http://u:p@proxy"}), id="a proxy"),
    ],
)
async def test_it_is_refused_by_name_and_removed(
    place: Bench, monkeypatch: pytest.MonkeyPatch, guarantee: str, weaken: Weaken
) -> None:
    create = place.host.api.create

    async def behind_its_back(body: Mapping[str, Any]) -> str:
        changed = {**body, "mounts": [dict(m) for m in body["mounts"]]}
        changed["resource_limits"] = dict(body["resource_limits"])
        weaken(changed)
        return await create(changed)

    monkeypatch.setattr(place.host.api, "create", behind_its_back)
    with pytest.raises(Refused) as refused:
        await place.host.start(Shape(image=place.image, limits=SMALL))
    assert refused.value.kind == "sandbox_profile"
    assert f"{guarantee} ({GUARANTEES[guarantee]})" in str(refused.value)
    assert "/" not in str(refused.value).replace("`millrace doctor`", "")
    assert await place.host.list_orphans(set()) == []
    assert place.host.records.read() == []


async def test_an_operator_can_give_up_a_guarantee_and_only_that(place: Bench, tmp_path: Path) -> None:
    shape = Shape(image=place.image, limits=SMALL)
    without = {"seccomp", "cpu-limit"}
    host = PodmanHost(place.host.api, place.host.runner, tmp_path / "other", place.host.ceiling, without)
    box = await host.start(shape)
    try:
        inspected = await host.api.inspect(box.container)
        assert inspected["HostConfig"]["CpuQuota"] == 0
        assert inspected["HostConfig"]["Memory"] == SMALL.memory
    finally:
        await box.channel.close()
        await host.discard(box.record)


async def test_two_sandboxes_have_no_user_id_in_common(place: Bench) -> None:
    async with place.open() as one, place.open() as other:
        assert abs(one.ready.uid_map - other.ready.uid_map) >= place.host.ceiling.ids


async def test_what_the_filter_refuses_is_refused(place: Bench) -> None:
    probe = r"""
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *rest):
    ctypes.set_errno(0)
    result = libc.syscall(number, *rest)
    print(name, errno.errorcode.get(ctypes.get_errno(), result))
X86 = {"keyctl": (250, 0, -3, 0), "add_key": (248, b"user", b"a", b"b", 1, -3), "request_key": (249, b"user", b"a", 0, 0),
       "unshare": (272, 0x10000000), "clone3": (435, 0, 0), "setns": (308, 0, 0), "mount": (165, b"a", b"/tmp", b"tmpfs", 0, 0),
       "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "userfaultfd": (323, 0),
       "io_uring_setup": (425, 1, 0), "open_by_handle_at": (304, 0, 0, 0), "kexec_load": (246, 0, 0, 0, 0),
       "init_module": (175, 0, 0, b""), "x32 getpid": (0x40000000 + 39,)}
import os
for name, given in X86.items():
    pid = os.fork()
    if pid == 0:
        call(name, *given); os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status: print(name, "killed")
for family in range(46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind, 0).close(); print("family", family)
        except OSError:
            pass
for protocol in range(1, 30):
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close(); print("netlink", protocol)
    except OSError:
        pass
"""
    async with place.open() as box:
        await box.edit("create", "/workspace/probe.py", file_text=probe)
        lines = (await box.bash("python3 -u probe.py")).content.splitlines()
        said = dict(line.rsplit(" ", 1) for line in lines if not line.startswith(("family", "netlink")))
        assert len(said) == 15
        assert set(said.values()) <= {"EPERM", "ENOSYS", "killed"}, said
        families = {int(line.split()[1]) for line in lines if line.startswith("family")}
        assert families == {1, 2, 10, 16}  # unix, IPv4, IPv6, netlink
        assert not [line for line in lines if line.startswith("netlink")]  # but for 0, routes
        # 32-bit calls come in by another door, where a filter cannot tell one socket from another.
        old = 'int main(void) { int r; __asm__("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 0 : 1; }'
        await box.edit("create", "/workspace/old.c", file_text=old)
        assert (await box.bash("gcc old.c -o old && ./old")).exit_code not in (0, 1)
        assert "unshare failed" in (await box.bash("unshare --user --map-root-user id")).content


async def test_many_start_at_once_and_each_is_verified(place: Bench) -> None:
    shape = Shape(image=place.image, limits=SMALL)
    boxes = await asyncio.gather(*(place.host.start(shape) for _ in range(12)))
    try:
        assert len({box.uid_map for box in boxes}) == 12
    finally:
        for box in boxes:
            await box.channel.close()
        await asyncio.gather(*(place.host.discard(box.record) for box in boxes))
    assert await place.host.list_orphans(set()) == []
