"""What is concluded from both views of a container; machines differ, so their texts are written out here."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.sandbox_runner.inspection import View, broken, differences
from services.sandbox_runner.profile import Place, Shape, container_spec
from services.sandbox_runner.sandbox import MIB, Limits

LIMITS = Limits(memory=1024 * MIB, disk=640 * MIB, pids=128, cpus=1.5, files=4096)
HOME = "/home/u/.millrace/sandboxes/r"
PLACE = Place(tools=Path(HOME, "tools-a"), channel=Path(HOME, "channels/box"), seccomp=Path(HOME, "s.json"))
BODY = container_spec("box", Shape(image="i", limits=LIMITS), "r", PLACE)
SIZES = {"/workspace": 294912, "/run/millrace": 117968, "/tmp": 88476, "/home/agent": 88476}  # noqa: S108
STATUS = """Name:\tpython3
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""
RLIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    0                    bytes
Max processes             4096                 4096                 processes
Max open files            4096                 4096                 files
"""
NET = """Inter-|   Receive                |  Transmit
 face |bytes    packets errs drop|bytes    packets
    lo:       0       0    0    0        0       0
"""
FIRST = {"memory": str(1024 * MIB), "memory and swap": str(1024 * MIB), "pids": "128",
         "cpu quota": "150000", "cpu period": "100000"}  # fmt: skip
SECOND = {"memory": str(1024 * MIB), "swap": "0", "pids": "128", "cpu": "150000 100000"}
DESCRIBED = {
    "HostConfig": {
        "NetworkMode": "none", "ReadonlyRootfs": True, "Privileged": False, "Devices": [],
        "IDMappings": {"UidMap": ["0:100000:65536"]}, "Memory": 1024 * MIB, "PidsLimit": 128,
    },
    "EffectiveCaps": None,
    "Mounts": [{"Type": "bind", "Source": f"{HOME}/tools-a/toolserver"},
               {"Type": "bind", "Source": f"{HOME}/channels/box"}],
}  # fmt: skip


def mounts(*more: str, second: bool = False, root: str = "ro") -> str:
    """A container's mounts as runc makes them; its home is a file system of its own."""
    rows = [
        f"1 0 0:41 / / {root},relatime - overlay overlay rw,lowerdir=/x",
        "2 1 0:60 / /dev rw,nosuid,noexec - tmpfs tmpfs rw,size=65536k,mode=755",
        "3 2 0:62 / /dev/pts rw,nosuid,noexec - devpts devpts rw,mode=620",
        "4 2 0:55 / /dev/mqueue rw,nosuid,nodev,noexec - mqueue mqueue rw",
        "5 2 0:40 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k",
        *(f"6 2 0:6 /{d} /dev/{d} rw - devtmpfs devtmpfs rw" for d in ("null", "zero", "full", "tty")),
        "7 1 0:61 / /proc rw,nosuid,nodev,noexec - proc proc rw",
        "8 7 0:61 /bus /proc/bus ro,nosuid,nodev,noexec - proc proc rw",
        "9 7 0:6 /null /proc/keys rw,nosuid - devtmpfs devtmpfs rw",
        "10 1 0:59 / /sys ro,nosuid,nodev,noexec - sysfs sysfs ro",
        "11 10 0:70 / /sys/firmware ro,relatime - tmpfs tmpfs ro",
        "12 1 8:1 /u/.millrace/sandboxes/r/tools-a/toolserver /opt/millrace/toolserver"
        " ro,nosuid,nodev,noexec - ext4 /dev/a rw",
        "13 1 8:1 /u/.millrace/sandboxes/r/channels/box /run/channel ro,nosuid,nodev,noexec - ext4 /dev/a rw",
        "14 1 8:1 /podman/hostname /etc/hostname ro,nosuid - ext4 /dev/a rw",
        *(f"15 1 0:9 / {t} rw,nosuid,nodev - tmpfs tmpfs rw,size={size}k" for t, size in SIZES.items()),
    ]
    if second:
        rows.append("16 10 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup rw")
    else:
        rows.append("16 10 0:68 / /sys/fs/cgroup rw,nosuid,nodev,noexec - tmpfs tmpfs rw,mode=755")
        rows.append("17 16 0:29 / /sys/fs/cgroup/memory ro,nosuid,nodev,noexec - cgroup cgroup rw,memory")
    return "\n".join([*rows, *more])


def inside(**changes: Any) -> View:
    view = View(
        uid_map="0 100000 65536", gid_map="0 100000 65536", status=STATUS, mountinfo=mounts(), limits=RLIMITS,
        network=NET, cgroup=FIRST, variables=["HOME", "PATH"], dumpable=False,
        refused={"namespace": 38, "family": 38},
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


def outside(**changes: Any) -> View:
    status = STATUS.replace("1000", "101000")
    return msgspec.structs.replace(inside(status=status, refused=None), **changes)


def found(seen: View, host: View | None = None, described: Any = DESCRIBED) -> set[str]:
    return {each.guarantee for each in differences(BODY, seen, host or outside(), described)}


def test_what_was_asked_for_is_found_on_machines_of_both_kinds() -> None:
    assert found(inside()) == set()
    second = {"mountinfo": mounts(second=True), "cgroup": SECOND}
    assert found(inside(**second), outside(**second)) == set()


def test_a_process_that_the_host_does_not_see_is_judged_by_the_rest() -> None:
    assert differences(BODY, inside(), None, DESCRIBED) == []
    assert differences(BODY, inside(), None, DESCRIBED | {"EffectiveCaps": ["CAP_CHOWN"]})


def test_limits_above_the_lowest_group_are_seen_from_outside() -> None:
    # crun puts the process below the group that it limits: inside, nothing is limited
    lowest = {"memory": "max", "swap": "max", "pids": "max", "cpu": "max 100000"}
    assert found(inside(cgroup=lowest), outside(cgroup=SECOND)) == set()
    assert found(inside(cgroup=lowest), outside(cgroup=lowest)) == {
        "memory-limit", "process-limit", "cpu-limit",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "guarantee"),
    [
        ({"uid_map": "0 0 4294967295"}, "user-namespace"),
        ({"uid_map": ""}, "user-namespace"),
        ({"gid_map": "0 0 65536"}, "user-namespace"),
        ({"uid_map": "0 1000 1\n1 100000 900000"}, "user-namespace"),
        (
            {"status": STATUS.replace("CapBnd:\t0000000000000000", "CapBnd:\t00000000a80425fb")},
            "capabilities",
        ),
        ({"status": STATUS.replace("CapAmb:\t0000000000000000", "")}, "capabilities"),
        ({"status": STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")}, "no-new-privileges"),
        ({"status": STATUS.replace("Seccomp:\t2", "Seccomp:\t0")}, "seccomp"),
        ({"refused": {"namespace": 22, "family": 38}}, "seccomp"),
        ({"refused": {"namespace": 38, "family": 97}}, "seccomp"),
        ({"refused": None}, "seccomp"),
        ({"network": NET + "  eth0: 0 0 0\n"}, "network"),
        ({"network": ""}, "network"),
        ({"variables": ["ANTHROPIC_API_KEY"]}, "environment"),
        ({"variables": ["no_proxy"]}, "environment"),
        ({"dumpable": True}, "process-1"),
        ({"shared": ["net"]}, "network"),
        ({"shared": ["uts"]}, "mounts"),
        ({"mountinfo": mounts(root="rw")}, "mounts"),
        ({"mountinfo": "gibberish"}, "mounts"),
        ({"mountinfo": ""}, "mounts"),
        ({"mountinfo": mounts().replace("size=294912k", "size=9949120k")}, "mounts"),
        ({"mountinfo": mounts().replace("channels/box", "channels/other")}, "mounts"),
        ({"mountinfo": mounts().replace("/run/channel ro,", "/run/channel rw,")}, "mounts"),
        ({"mountinfo": mounts("99 1 8:1 /etc /run/secrets ro - ext4 /dev/a rw")}, "mounts"),
        ({"mountinfo": mounts("99 1 8:1 /sock /run/podman.sock rw - ext4 /dev/a rw")}, "mounts"),
        ({"mountinfo": mounts("99 1 8:1 /dev/sda /dev/sda rw - devtmpfs devtmpfs rw")}, "mounts"),
        ({"mountinfo": mounts("99 1 0:3 / /proc/sys rw - proc proc rw")}, "mounts"),
        ({"limits": RLIMITS.replace("4096", "8192")}, "file-limits"),
        ({"limits": ""}, "file-limits"),
    ],
)
def test_each_deviation_breaks_its_guarantee(changes: dict[str, Any], guarantee: str) -> None:
    assert guarantee in found(inside(**changes))
    if "refused" not in changes:  # the host can see all the others as well
        assert guarantee in found(inside(), outside(**changes))


@pytest.mark.parametrize(
    ("group", "guarantee"),
    [
        ({**SECOND, "memory": "max"}, "memory-limit"),
        ({**SECOND, "memory": str(2048 * MIB)}, "memory-limit"),
        ({**SECOND, "swap": str(1024 * MIB)}, "memory-limit"),
        ({**FIRST, "memory and swap": str(2048 * MIB)}, "memory-limit"),
        ({**FIRST, "memory": "9223372036854771712"}, "memory-limit"),
        ({**SECOND, "cpu": "max 100000"}, "cpu-limit"),
        ({**FIRST, "cpu quota": "-1"}, "cpu-limit"),
        ({**FIRST, "pids": "max"}, "process-limit"),
        ({}, "process-limit"),
    ],
)
def test_a_limit_that_neither_side_can_prove_is_none(group: dict[str, str], guarantee: str) -> None:
    assert guarantee in found(inside(cgroup=group), outside(cgroup=group))


def test_a_lower_limit_than_asked_for_is_fine() -> None:
    group = {**SECOND, "memory": str(512 * MIB), "pids": "64", "cpu": "50000 100000"}
    assert found(inside(cgroup=group), outside(cgroup=group)) == set()


def test_only_what_an_operator_gave_up_is_overlooked() -> None:
    seen = differences(BODY, inside(network="", dumpable=True), outside(), DESCRIBED)
    assert {each.guarantee for each in broken(seen, {"network"})} == {"process-1"}
