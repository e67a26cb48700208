"""The container as it is asked for: every line of its armour."""

from pathlib import Path

import pytest

from services.sandbox_runner.profile import Ceiling, container_spec, rlimits
from services.sandbox_runner.sandbox import MIB, Limits, SandboxSpec

SPEC = SandboxSpec(sandbox_id="s1", run_id="r1", image="i", labels={"dev.millrace.run": "forged", "x": "y"})


def test_the_container_has_no_network_no_privilege_and_no_environment() -> None:
    body = container_spec(SPEC, "me", home="here", tools=Path("/t"), channel=Path("/c"), ceiling=Ceiling())
    assert body["netns"] == {"nsmode": "none"}
    assert body["userns"]["nsmode"] == "auto"
    assert body["idmappings"]["AutoUserNs"] is True
    assert body["cap_drop"] == ["all"]
    assert body["no_new_privileges"] is True
    assert body["read_only_filesystem"] is True
    assert body["user"] == "1000:1000"
    assert (body["env"], body["env_host"], body["httpproxy"]) == ({}, False, False)
    assert body["log_configuration"] == {"driver": "none"}
    assert body["resource_limits"]["memory"]["limit"] == body["resource_limits"]["memory"]["swap"]
    for mount in body["mounts"]:
        assert {"nosuid", "nodev"} <= set(mount["options"])
        assert ("ro" in mount["options"]) == (mount["type"] == "bind")


def test_all_writable_memory_stays_below_the_memory_limit() -> None:
    body = container_spec(SPEC, "me", home="here", tools=Path("/t"), channel=Path("/c"), ceiling=Ceiling())
    sizes = [
        int(o.removeprefix("size=")) for m in body["mounts"] for o in m["options"] if o.startswith("size=")
    ]
    assert len(sizes) == 4
    assert sum(sizes) + body["shm_size"] <= SPEC.limits.disk < SPEC.limits.memory
    with pytest.raises(ValueError, match="below memory"):
        Limits(memory=1024 * MIB, disk=1000 * MIB)


def test_labels_of_ours_cannot_be_given_by_others() -> None:
    body = container_spec(SPEC, "me", home="here", tools=Path("/t"), channel=Path("/c"), ceiling=Ceiling())
    assert body["labels"] == {
        "dev.millrace.run": "r1", "dev.millrace.sandbox": "s1", "dev.millrace.runner": "me", "x": "y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ceiling", "files", "processes"),
    [(Ceiling(), 4096, 4096), (Ceiling(files=1000), 1000, 4096), (Ceiling(files=9999, processes=7), 4096, 7)],
)
def test_limits_are_never_above_what_the_service_can_give(
    ceiling: Ceiling, files: int, processes: int
) -> None:
    found = {limit["type"]: (limit["soft"], limit["hard"]) for limit in rlimits(Limits(), ceiling)}
    assert found == {"nofile": (files, files), "nproc": (processes, processes), "core": (0, 0)}
