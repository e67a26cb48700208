"""The container as it is asked for: every line of its armour, and the filter of system calls."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from services.sandbox_runner.profile import Ceiling, Place, Shape, container_spec, fingerprint, rlimits
from services.sandbox_runner.sandbox import MIB, Limits

SHAPE = Shape(image="i")
PLACE = Place(tools=Path("/t"), channel=Path("/c/box"), seccomp=Path("/s.json"))


def spec(**changes: Any) -> dict[str, Any]:
    return container_spec("box", SHAPE, "me", PLACE, **changes)


def test_the_container_has_no_network_no_privilege_and_no_environment() -> None:
    body = spec()
    assert body["netns"] == {"nsmode": "none"}
    assert body["userns"]["nsmode"] == "auto"
    assert body["idmappings"]["AutoUserNs"] is True
    assert body["cap_drop"] == ["all"]
    assert body["no_new_privileges"] is True
    assert body["seccomp_profile_path"] == "/s.json"
    assert body["read_only_filesystem"] is True
    assert body["user"] == "1000:1000"
    assert (body["env"], body["env_host"], body["httpproxy"]) == ({}, False, False)
    assert body["log_configuration"] == {"driver": "none"}
    assert body["resource_limits"]["memory"]["limit"] == body["resource_limits"]["memory"]["swap"]
    for mount in body["mounts"]:
        assert {"nosuid", "nodev"} <= set(mount["options"])
        assert ("ro" in mount["options"]) == (mount["type"] == "bind")


def test_all_writable_memory_stays_below_the_memory_limit() -> None:
    body = spec()
    sizes = [
        int(o.removeprefix("size=")) for m in body["mounts"] for o in m["options"] if o.startswith("size=")
    ]
    assert len(sizes) == 4
    assert sum(sizes) + body["shm_size"] <= SHAPE.limits.disk < SHAPE.limits.memory
    with pytest.raises(ValueError, match="below memory"):
        Limits(memory=1024 * MIB, disk=1000 * MIB)


def test_a_container_is_nobodys_and_says_so_only_of_its_runner() -> None:
    assert spec()["labels"] == {"dev.millrace.runner": "me", "dev.millrace.box": "box"}


def test_two_containers_replace_each_other_only_if_everything_but_their_names_is_the_same() -> None:
    made = fingerprint(spec())
    other = Place(tools=Path("/t"), channel=Path("/c/other"), seccomp=Path("/s.json"))
    assert fingerprint(container_spec("other", SHAPE, "me", other)) == made
    newer = Place(tools=Path("/t2"), channel=Path("/c/box"), seccomp=Path("/s.json"))
    assert fingerprint(container_spec("box", SHAPE, "me", newer)) != made
    assert fingerprint(spec(idle=60.0)) != made
    smaller = Shape(image="i", limits=Limits(pids=7))
    assert fingerprint(container_spec("box", smaller, "me", PLACE)) != made


def test_what_an_operator_gave_up_is_not_asked_for() -> None:
    place = Place(tools=Path("/t"), channel=Path("/c"), seccomp=None, accepted=frozenset({"cpu-limit"}))
    body = container_spec("box", SHAPE, "me", place)
    assert body["resource_limits"].keys() == {"memory", "pids"}
    assert "seccomp_profile_path" not in body


@pytest.mark.parametrize(
    ("ceiling", "files", "processes"),
    [(Ceiling(), 4096, 4096), (Ceiling(files=1000), 1000, 4096), (Ceiling(files=9999, processes=7), 4096, 7)],
)
def test_limits_are_never_above_what_the_service_can_give(
    ceiling: Ceiling, files: int, processes: int
) -> None:
    found = {limit["type"]: (limit["soft"], limit["hard"]) for limit in rlimits(Limits(), ceiling)}
    assert found == {"nofile": (files, files), "nproc": (processes, processes), "core": (0, 0)}


def test_the_filter_allows_no_namespace_no_keyring_and_no_way_out_of_a_virtual_machine() -> None:
    rules = json.loads((resources.files("deploy") / "sandbox/seccomp.json").read_bytes())
    assert (rules["defaultAction"], rules["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    allowed: dict[str, list[Any]] = {}
    for rule in rules["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW":
            assert not (rule.get("includes") or {}).get("caps")
            for name in rule["names"]:
                allowed.setdefault(name, []).append(rule.get("args"))
        else:
            assert rule["action"] == "SCMP_ACT_ERRNO"
    forbidden = {
        "add_key", "bpf", "clone3", "fsopen", "init_module", "io_uring_setup", "ioperm", "ipc", "kexec_load",
        "keyctl", "mount", "move_mount", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root",
        "quotactl", "reboot", "request_key", "setns", "socketcall", "swapon", "umount2", "userfaultfd",
    }  # fmt: skip
    assert not forbidden & allowed.keys()
    assert all(args for name in ("clone", "unshare", "socket", "socketpair") for args in allowed[name])
    families = {args[0]["value"] for args in allowed["socket"]}
    assert families == {1, 2, 10, 16}
    assert all(len(args) == 2 for args in allowed["socket"] if args[0]["value"] == 16)
    assert all(not each["subArchitectures"] for each in rules["archMap"])
    assert {"execve", "fork", "ptrace", "seccomp", "prctl", "futex", "mknodat"} <= allowed.keys()
