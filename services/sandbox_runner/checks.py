"""Whether this machine can run sandboxes: findings for ``millrace doctor``, each with what to do."""

import os
import pwd
import re
from pathlib import Path

import msgspec

from services.kit.errors import Later
from services.sandbox_runner import image
from services.sandbox_runner.podman_command import run_podman, working_runtime
from services.sandbox_runner.process import run_process

_OLDEST_PODMAN = (4, 0)
_OLDEST_GIT = (2, 31)  # GIT_CONFIG_COUNT
_IDS = 65536
_SUBIDS = "containers:2147483647:2147483648"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check. ``fix`` is what a person does about it, empty if all is well."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


async def check_machine(state: Path, runtime: str | None = None) -> list[Finding]:
    """All checks, in the order in which a sandbox would meet them.

    Args:
        state: the runner's directory, where the working runtime is remembered.
        runtime: the operator's choice of OCI runtime.
    """
    findings = [await _git(), await _podman()]
    if not findings[-1].ok:
        return findings
    findings += [namespaces(Path("/etc/subuid"), Path("/etc/subgid")), cgroups(Path("/sys/fs/cgroup"))]
    name = image.image_name(image.containerfile())
    try:
        await run_podman(["image", "exists", name], seconds=30)
    except Later:
        fix = "it is built at the first start, or now with: python -m services.sandbox_runner.image"
        findings.append(Finding(name="sandbox image", ok=False, detail=f"{name} is not built yet", fix=fix))
        return findings
    findings.append(Finding(name="sandbox image", ok=True, detail=name))
    try:
        works = await working_runtime(name, runtime, state / "runtime")
    except Later as error:
        fix = "install the package runc or crun, or set MILLRACE_SANDBOX_RUNTIME"
        findings.append(Finding(name="container runtime", ok=False, detail=str(error), fix=fix))
    else:
        findings.append(Finding(name="container runtime", ok=True, detail=works or "Podman's default"))
    return findings


async def _podman() -> Finding:
    try:
        text = await run_podman(["version", "--format={{.Client.Version}}"], seconds=30)
    except Later as error:
        return Finding(name="podman", ok=False, detail=str(error), fix="install the package podman")
    return version_finding("podman", text, _OLDEST_PODMAN)


async def _git() -> Finding:
    try:
        done = await run_process(
            ["git", "version"], env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}, seconds=30
        )
    except (FileNotFoundError, TimeoutError):
        return Finding(name="git", ok=False, detail="not installed", fix="install the package git")
    return version_finding("git", done.output.decode("utf-8", "replace"), _OLDEST_GIT)


def version_finding(name: str, text: str, oldest: tuple[int, int]) -> Finding:
    """Whether the version in a program's words is new enough (pure)."""
    wanted = ".".join(map(str, oldest))
    found = re.search(r"(\d+)\.(\d+)(\.\d+)*", text)
    if found is None:
        return Finding(name=name, ok=False, detail="its version is unknown", fix=f"install {name} {wanted}")
    ok = (int(found[1]), int(found[2])) >= oldest
    return Finding(name=name, ok=ok, detail=found[0], fix="" if ok else f"install {name} {wanted} or newer")


def namespaces(*files: Path) -> Finding:
    """Whether Podman can give each sandbox user ids of its own (containers-storage, auto-userns)."""
    user = "containers" if os.geteuid() == 0 else ""
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except OSError:
            lines = []
        if ids_for(user, os.geteuid(), lines) < _IDS:
            fix = f"echo {_SUBIDS} | tee -a /etc/subuid /etc/subgid   (or run deploy/sandbox/setup.sh)"
            detail = f"{file} has no range of {_IDS} ids for {user or 'this user'}"
            return Finding(name="user namespaces", ok=False, detail=detail, fix=fix)
    return Finding(name="user namespaces", ok=True, detail="each sandbox gets user ids of its own")


def ids_for(user: str, uid: int, lines: list[str]) -> int:
    """How many subordinate ids a user has (subuid(5)); an empty name stands for the user of ``uid``."""
    names = {user} if user else {str(uid), _login(uid)}
    total = 0
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[2].isdigit():
            total += int(fields[2])
    return total


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def cgroups(root: Path) -> Finding:
    """Which cgroups limit a sandbox; version 1 only works for root."""
    if (root / "cgroup.controllers").exists():
        return Finding(name="cgroups", ok=True, detail="version 2")
    needed = {"memory", "cpu", "pids"}
    present = {name for name in needed if (root / name).exists()}
    ok = present == needed and os.geteuid() == 0
    detail = "version 1" if ok else f"version 1 with {', '.join(sorted(present)) or 'none'}"
    fix = "" if ok else "boot with systemd.unified_cgroup_hierarchy=1: limits need cgroups version 2 here"
    return Finding(name="cgroups", ok=ok, detail=detail, fix=fix)
