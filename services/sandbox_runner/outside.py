"""A container's first process as the host sees it (proc(5), cgroups(7))."""

from contextlib import suppress
from pathlib import Path

from services.sandbox_runner.inspection import View

_NAMESPACES = ("user", "net", "pid", "mnt", "ipc", "uts")
_CGROUPS = Path("/sys/fs/cgroup")
_SECOND = {"memory": "memory.max", "swap": "memory.swap.max", "pids": "pids.max", "cpu": "cpu.max"}
_FIRST = {
    "memory": ("memory", "memory.limit_in_bytes"),
    "memory and swap": ("memory", "memory.memsw.limit_in_bytes"),
    "pids": ("pids", "pids.max"),
    "cpu quota": ("cpu", "cpu.cfs_quota_us"),
    "cpu period": ("cpu", "cpu.cfs_period_us"),
}
"""The files that limit, by version of cgroups."""


def look_at(pid: int) -> View | None:
    """The view of process ``pid``; None where it cannot be seen from here, as from another container."""
    proc = Path("/proc") / str(pid)
    try:
        status = (proc / "status").read_text()
        owner = (proc / "environ").stat().st_uid
        view = View(
            uid_map=(proc / "uid_map").read_text(),
            gid_map=(proc / "gid_map").read_text(),
            status=status,
            mountinfo=(proc / "mountinfo").read_text(),
            limits=(proc / "limits").read_text(),
            network=(proc / "net/dev").read_text(),
            cgroup=_cgroup((proc / "cgroup").read_text()),
            variables=_variables(proc / "environ"),
            # proc(5): the files of a process that is not dumpable belong to root, not to its user
            dumpable=owner == int(status.split("\nUid:")[1].split()[0]),
            shared=[name for name in _NAMESPACES if _same(proc / "ns" / name, name)],
        )
    except (OSError, ValueError, IndexError):
        return None
    return view


def _same(link: Path, name: str) -> bool:
    return link.readlink() == Path("/proc/self/ns", name).readlink()


def _variables(file: Path) -> list[str]:
    names = [entry.partition(b"=")[0] for entry in file.read_bytes().split(b"\0") if entry]
    return [name.decode("utf-8", "replace") for name in names]


def _cgroup(text: str) -> dict[str, str]:
    """The limits of a process, by the lines of its ``/proc/pid/cgroup``: the tightest of all above it.

    A runtime may put the process one level below the group that it limits.
    """
    places = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            places[controller] = path.strip("/")
    if (_CGROUPS / "cgroup.controllers").exists():
        found = {name: _tightest(_CGROUPS, places.get("", ""), file) for name, file in _SECOND.items()}
    else:
        found = _first_version(places)
    if not found.get("swap") and "\nSwapTotal:              0 kB" in Path("/proc/meminfo").read_text():
        found["swap"] = "0"  # a kernel that counts no swap has none to give
    return found


def _first_version(places: dict[str, str]) -> dict[str, str]:
    return {
        name: _tightest(_CGROUPS / controller, places.get(controller, ""), file)
        for name, (controller, file) in _FIRST.items()
    }


def _tightest(root: Path, path: str, file: str) -> str:
    found = []
    place = root / path
    while place != root:
        with suppress(OSError):
            found.append((place / file).read_text().strip())
        place = place.parent
    if file == "cpu.cfs_period_us":
        return found[0] if found else ""
    numbers = [text for text in found if text.split(" ")[0].isdigit()]
    return min(numbers, key=_amount, default=found[0] if found else "")


def _amount(text: str) -> float:
    limit, _, period = text.partition(" ")
    return int(limit) / int(period or 1)
