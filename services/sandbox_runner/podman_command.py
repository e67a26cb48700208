"""The podman command: run with a deadline, in a clean environment, with a runtime that works here."""

import os
import pwd
import resource
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from services.kit.errors import Later
from services.sandbox_runner.process import run_process
from services.sandbox_runner.profile import Ceiling

_PROBE_SECONDS = 60.0
_PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
)


_IDS, _FEW_IDS = 65536, 4096
_PLENTY = 16


def subordinate_ids(user: str, uid: int, lines: Sequence[str]) -> int:
    """How many subordinate ids a user has (subuid(5)); an empty name stands for the user of ``uid``."""
    names = {user} if user else {str(uid), _login(uid)}
    total = 0
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[2].isdigit():
            total += int(fields[2])
    return total


def ids_in(file: Path) -> int:
    """The ids that Podman can give to sandboxes, by this file; root's are the user ``containers``'s."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return subordinate_ids("containers" if os.geteuid() == 0 else "", os.geteuid(), lines)


def id_map_size() -> int:
    """How many ids each sandbox gets: all that a system can have, few where few sandboxes would fit."""
    total = min(ids_in(Path("/etc/subuid")), ids_in(Path("/etc/subgid")))
    return _FEW_IDS if 0 < total < _PLENTY * _IDS else _IDS


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def own_ceiling() -> Ceiling:
    """The hard limits of this process, which a service that it starts inherits."""

    def hard(which: int) -> int | None:
        value = resource.getrlimit(which)[1]
        return None if value == resource.RLIM_INFINITY else value

    return Ceiling(
        files=hard(resource.RLIMIT_NOFILE), processes=hard(resource.RLIMIT_NPROC), ids=id_map_size()
    )


def podman_environment() -> dict[str, str]:
    """What a Podman process of ours may know: no proxy, no secret of the runner."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


async def run_podman(
    arguments: Sequence[str],
    *,
    seconds: float,
    on_line: Callable[[str], None] | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run the podman command and return its output, standard error included.

    Raises:
        Later: it is not installed (``podman_missing``), failed (``podman_failed``) or hung.
    """
    try:
        done = await run_process(
            ["podman", *arguments],
            env={**podman_environment(), **(env or {})},
            seconds=seconds,
            on_line=on_line or (lambda _: None),
        )
    except FileNotFoundError as error:
        raise Later("Podman is not installed: install the package podman", kind="podman_missing") from error
    except TimeoutError as error:
        raise Later(
            f"podman {arguments[0]} took longer than {seconds:.0f} s", kind="podman_timeout"
        ) from error
    text = done.output.decode("utf-8", "replace").rstrip()
    if done.code:
        why = " ".join(text.splitlines()[-3:])[:600]
        raise Later(f"podman {arguments[0]} ended with {done.code}: {why}", kind="podman_failed")
    return text


async def working_runtime(image: str, wanted: str | None, cache: Path) -> str | None:
    """The OCI runtime with which a container really starts here; None stands for Podman's default.

    The installed default may be unable to run (crun under some kernels and cgroup set-ups), so one
    container is tried per candidate; what worked is remembered in ``cache``.

    Raises:
        Later: none of them works; the text holds the last reason.
    """
    ceiling = own_ceiling()
    limits = [
        f"--ulimit=nofile={min(1024, ceiling.files or 1024)}",
        f"--ulimit=nproc={min(1024, ceiling.processes or 1024)}",
    ]
    candidates: list[str | None] = [wanted] if wanted else [None, "runc", "crun"]
    if not wanted and (remembered := _recall(cache)):
        candidates.insert(0, remembered if remembered != "default" else None)
    failure = "no runtime was found"
    for runtime in candidates:
        if runtime is not None and not (shutil.which(runtime) or Path(runtime).is_absolute()):
            continue
        option = [f"--runtime={runtime}"] if runtime else []
        try:
            await run_podman(
                [
                    *option,
                    "run",
                    "--rm",
                    "--network=none",
                    "--pull=never",
                    "--log-driver=none",
                    "--http-proxy=false",
                    *limits,
                    "--entrypoint=/bin/true",
                    image,
                ],
                seconds=_PROBE_SECONDS,
            )
        except Later as error:
            if error.kind == "podman_missing":
                raise
            failure = str(error)
            continue
        _remember(cache, runtime or "default")
        return runtime
    raise Later(f"no OCI runtime can start a container here: {failure}", kind="podman_no_runtime")


def _recall(cache: Path) -> str:
    return cache.read_text().strip() if cache.exists() else ""


def _remember(cache: Path, name: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(name)
