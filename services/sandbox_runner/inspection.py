"""Whether a container is what was asked for: seen from inside, from the host, and in Podman's words (pure).

Podman has silently ignored parts of a specification before, so nothing is believed because it was asked
for. Each difference names the guarantee that it breaks (``profile.GUARANTEES``).
"""

import errno
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from services.sandbox_runner.profile import UID

_PAGE = 4096
_NO_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "console"}
_PODMANS_FILES = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}
_OURS = re.compile(r"proxy|^MILLRACE_|^ANTHROPIC_|^GITHUB_", re.IGNORECASE)
_RLIMITS = {"nofile": "Max open files", "nproc": "Max processes", "core": "Max core file size"}


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What one side sees of a container's first process: texts of proc(5), values of cgroups(7).

    ``apart`` are the namespaces that are the host's own and should not be (only the host can tell).
    ``refused`` are the errors of two forbidden calls (only the inside can try).
    """

    uid_map: str
    gid_map: str
    status: str
    mountinfo: str
    limits: str
    network: str = msgspec.field(name="net/dev")
    cgroup: dict[str, str]
    variables: list[str]
    dumpable: bool
    refused: dict[str, int] | None = None
    shared: list[str] = []


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it must be, and the guarantee that falls with it."""

    guarantee: str
    what: str


def differences(
    body: Mapping[str, Any], inside: View, outside: View | None, described: Mapping[str, Any]
) -> list[Difference]:
    """How a container differs from the specification ``body`` that it was made from.

    Args:
        outside: the host's view; None where the host does not see the process.
        described: Podman's own description of the container.
    """
    found = [*_described(body, described), *_limits(body, inside, outside)]
    for side, view in (("inside", inside), ("outside", outside)):
        if view is not None:
            found += [
                Difference(each.guarantee, f"{each.what} (seen from {side})") for each in _seen(body, view)
            ]
    if not inside.refused:
        found.append(Difference("seccomp", "nothing was said about forbidden calls"))
    return found


def broken(found: Collection[Difference], accepted: Collection[str]) -> list[Difference]:
    """The differences that no operator has accepted."""
    return [each for each in found if each.guarantee not in accepted]


def _seen(body: Mapping[str, Any], view: View) -> list[Difference]:
    found: list[Difference] = []

    def expect(guarantee: str, ok: bool, what: str) -> None:
        if not ok:
            found.append(Difference(guarantee, what))

    size = body["idmappings"]["AutoUserNsOpts"]["Size"]
    for name, text in (("user", view.uid_map), ("group", view.gid_map)):
        expect("user-namespace", *_own_ids(text, size, name))
    fields = dict(line.split(":", 1) for line in view.status.splitlines() if ":" in line)
    for name in _NO_CAPABILITIES:
        value = fields.get(name, "").strip()
        expect("capabilities", value.strip("0") == "" != value, f"{name} is {value or 'unknown'}")
    expect("no-new-privileges", fields.get("NoNewPrivs", "").strip() == "1", "NoNewPrivs is not set")
    expect("seccomp", fields.get("Seccomp", "").strip() == "2", "no system call filter is in force")
    if view.refused is not None:
        refused = view.refused.get("namespace"), view.refused.get("family")
        expect(
            "seccomp", refused == (errno.ENOSYS, errno.ENOSYS), "another filter than Millrace's is in force"
        )
    found += _mounts(body, view.mountinfo)
    names = {line.partition(":")[0].strip() for line in view.network.splitlines() if ":" in line}
    expect("network", names == {"lo"}, f"its network interfaces are {', '.join(sorted(names)) or 'unknown'}")
    leaked = sorted(name for name in view.variables if _OURS.search(name))
    expect("environment", not leaked, f"its environment has {', '.join(leaked)}")
    expect("process-1", not view.dumpable, "its first process can be read")
    for shared in view.shared:
        guarantee = {"net": "network", "user": "user-namespace"}.get(shared, "mounts")
        expect(guarantee, False, f"its {shared} namespace is the host's")
    most = {limit["type"]: limit["hard"] for limit in body["r_limits"]}
    for kind, title in _RLIMITS.items():
        expect(
            "file-limits", _rlimit(view.limits, title) == most[kind], f"its limit of {title.lower()} differs"
        )
    return found


def _own_ids(text: str, size: int, name: str) -> tuple[bool, str]:
    """Whether a map of ids (user_namespaces(7)) leads to ``size`` ids of which none is the host's root."""
    try:
        rows = [tuple(map(int, line.split())) for line in text.splitlines() if line.strip()]
        mapped = sum(count for _, _, count in rows)
        own = bool(rows) and all(outside > 0 for _, outside, _ in rows) and UID < mapped <= size
    except ValueError:
        own = False
    return own, f"it has no {name} ids of its own"


class _Mount(msgspec.Struct, frozen=True):
    root: str
    target: str
    options: frozenset[str]
    kind: str
    settings: frozenset[str]


def _parse(text: str) -> list[_Mount]:
    """Lines of mountinfo (proc(5)); a malformed one raises ``ValueError``."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            raise ValueError("malformed")
        mounts.append(
            _Mount(
                root=fields[3],
                target=fields[4],
                options=frozenset(fields[5].split(",")),
                kind=rest[0],
                settings=frozenset(rest[2].split(",")),
            )
        )
    return mounts


def _mounts(body: Mapping[str, Any], text: str) -> list[Difference]:
    try:
        mounts = _parse(text)
    except ValueError:
        return [Difference("mounts", "its mounts are unreadable")]
    wanted = {mount["destination"]: mount for mount in body["mounts"]}
    missing = wanted.keys() - {mount.target for mount in mounts}
    found = [f"{target} is not mounted" for target in sorted(missing)]
    if "/" not in {mount.target for mount in mounts}:
        found.append("it has no root")
    for mount in mounts:
        if mount.target in wanted:
            why = _asked(mount, wanted[mount.target])
        elif mount.target == "/dev/shm":  # noqa: S108
            sized = f"size={body['shm_size'] // 1024}k" in mount.settings
            ok = mount.kind == "tmpfs" and sized and {"nosuid", "nodev"} <= mount.options
            why = "" if ok else "is not the memory that was asked for"
        else:
            why = _standard(mount)
        if why:
            found.append(f"{mount.target} {why}")
    return [Difference("mounts", what) for what in found]


def _asked(mount: _Mount, wanted: Mapping[str, Any]) -> str:
    """What is wrong with a mount that was asked for."""
    if not {"nosuid", "nodev"} <= mount.options:
        return "allows set-user-id programs or devices"
    if wanted["type"] == "bind":
        same = PurePosixPath(mount.root).parts[-2:] == PurePosixPath(wanted["source"]).parts[-2:]
        if not same:
            return "shows something else of the host"
        if "ro" not in mount.options:
            return "is writable"
        return "" if "noexec" in mount.options or "noexec" not in wanted["options"] else "allows programs"
    asked = next(int(o.removeprefix("size=")) for o in wanted["options"] if o.startswith("size="))
    pages = -(-asked // _PAGE) * _PAGE
    sized = mount.kind == "tmpfs" and f"size={pages // 1024}k" in mount.settings
    return "" if sized else "is not a memory file system of its size"


def _standard(mount: _Mount) -> str:
    """What is wrong with a mount that every container has; anything else is wrong by being there."""
    target, kind, ro = mount.target, mount.kind, "ro" in mount.options
    if target == "/" or target in _PODMANS_FILES:
        return "" if ro else "is writable"
    rules: tuple[tuple[bool, bool], ...] = (
        (target == "/proc", kind == "proc" and {"nosuid", "nodev", "noexec"} <= mount.options),
        (target == "/sys/fs/cgroup", (kind == "cgroup2" and ro) or kind == "tmpfs"),
        (target.startswith("/sys/fs/cgroup/"), kind == "cgroup" and ro),
        (target == "/sys" or target.startswith("/sys/"), ro or _null(mount)),
        (target.startswith("/proc/"), ro or _null(mount)),
        (target == "/dev", kind == "tmpfs" and "nosuid" in mount.options),
        (target == "/dev/pts", kind == "devpts"),
        (target == "/dev/mqueue", kind == "mqueue"),
        (target.startswith("/dev/"), PurePosixPath(mount.root).name in _DEVICES),
    )
    for here, fine in rules:
        if here:
            return "" if fine else "is not mounted as in other containers"
    return "is something that nobody asked for"


def _null(mount: _Mount) -> bool:
    return PurePosixPath(mount.root).name == "null"


def _limits(body: Mapping[str, Any], *views: View | None) -> list[Difference]:
    """A limit holds if either side proves it: inside, only the lowest group is visible."""
    asked = body["resource_limits"]
    groups = [view.cgroup for view in views if view is not None]
    room = asked.get("memory", {}).get("limit", 0)
    cpu = asked.get("cpu", {"quota": 0, "period": 1})
    rules: dict[str, Callable[[Mapping[str, str]], bool]] = {
        "memory-limit": lambda group: _memory(group) <= room and _swap(group, room),
        "process-limit": lambda group: (
            _number(group.get("pids", "")) <= asked.get("pids", {}).get("limit", 0)
        ),
        "cpu-limit": lambda group: _cpu(group) <= cpu["quota"] / cpu["period"],
    }
    return [
        Difference(guarantee, "the limit is not in force")
        for guarantee, holds in rules.items()
        if not any(holds(group) for group in groups)
    ]


def _memory(group: Mapping[str, str]) -> float:
    return _number(group.get("memory", ""))


def _swap(group: Mapping[str, str], room: int) -> bool:
    """Version 2 limits swap alone, version 1 memory and swap together."""
    return _number(group.get("swap", "")) == 0 or _number(group.get("memory and swap", "")) <= room


def _cpu(group: Mapping[str, str]) -> float:
    """Processors: ``cpu.max`` of version 2 is "quota period"."""
    quota, _, period = group.get("cpu", "").partition(" ")
    return _number(quota or group.get("cpu quota", "")) / _number(period or group.get("cpu period", ""))


def _number(text: str) -> float:
    """What a file of cgroups says; no limit, ``-1``, ``max`` and nothing are infinite."""
    return int(text) if text.isdigit() else math.inf


def _rlimit(text: str, title: str) -> int | None:
    """The hard limit of this name (proc(5), ``/proc/pid/limits``)."""
    for line in text.splitlines():
        if line.startswith(title):
            hard = line[len(title) :].split()[1]
            return int(hard) if hard.isdigit() else None
    return None


def _described(body: Mapping[str, Any], described: Mapping[str, Any]) -> list[Difference]:
    """What Podman itself says that it made otherwise: all there is where the host does not see processes."""
    host = described.get("HostConfig") or {}
    asked = body["resource_limits"]
    sources = {mount["source"] for mount in body["mounts"] if mount["type"] == "bind"}
    rules: tuple[tuple[str, str, Callable[[], bool]], ...] = (
        ("network", "a network", lambda: host.get("NetworkMode") == "none"),
        ("mounts", "a writable root", lambda: host.get("ReadonlyRootfs") is True),
        ("mounts", "privileges", lambda: not host.get("Privileged") and not host.get("Devices")),
        (
            "mounts",
            "something of the host inside",
            lambda: (
                {m.get("Source") for m in described.get("Mounts") or () if m.get("Type") != "tmpfs"}
                == sources
            ),
        ),
        ("capabilities", "capabilities", lambda: not described.get("EffectiveCaps")),
        ("user-namespace", "no ids of its own", lambda: bool((host.get("IDMappings") or {}).get("UidMap"))),
        (
            "memory-limit",
            "another memory limit",
            lambda: host.get("Memory") == asked.get("memory", {}).get("limit", 0) != 0,
        ),
        (
            "process-limit",
            "another limit of processes",
            lambda: host.get("PidsLimit") == asked.get("pids", {}).get("limit", 0) != 0,
        ),
    )
    return [Difference(name, f"Podman gave it {what}") for name, what, ok in rules if not ok()]
