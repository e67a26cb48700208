"""A runner's place on a Podman service: what its containers see of the host, and who finds them again."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from services.kit.errors import Refused
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.profile import LABEL, Ceiling, container_name, container_spec
from services.sandbox_runner.sandbox import SandboxSpec

SANDBOX_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A container that the runner does not remember; ids are empty where its labels are missing."""

    container: str
    sandbox_id: str
    run_id: str


class PodmanHost:
    """One runner's place on one Podman service.

    Args:
        api: the service.
        runner: the runner's name; the reaper finds its containers by it.
        directory: private directory of this runner, the same path for it and for Podman: here lie the
            sockets and a copy of the tool server. The one above is its home's, for all its runners.
        ceiling: the service's own limits.
    """

    def __init__(self, api: PodmanApi, runner: str, directory: Path, ceiling: Ceiling) -> None:
        self.api = api
        self.runner = runner
        self.ceiling = ceiling
        self._home = hashlib.sha256(os.fsencode(directory.parent.resolve())).hexdigest()[:8]
        self._directory = directory
        self._tools: Path | None = None

    def tools(self) -> Path:
        """Where containers find the tool server: a copy, so that an upgrade cannot change it under them."""
        if self._tools is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            source = Path(__file__).parent / "toolserver"
            files = sorted(source.glob("*.py"))
            name = _digest([file.read_bytes() for file in files])[:16]
            target = self._directory / f"tools-{name}"
            if not target.exists():
                part = self._directory / f"tools-{name}.{time.monotonic_ns()}"
                (part / "toolserver").mkdir(parents=True)
                for file in files:
                    copy = part / "toolserver" / file.name
                    copy.write_bytes(file.read_bytes())
                    copy.chmod(0o644)
                with suppress(OSError):  # another runner was first
                    part.rename(target)
                shutil.rmtree(part, ignore_errors=True)
            self._tools = target
        return self._tools

    def channel_directory(self, sandbox_id: str) -> Path:
        """The directory that exactly this sandbox sees as ``/run/channel``."""
        path = self._directory / "channels" / sandbox_id
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        return path

    def specify(self, spec: SandboxSpec) -> dict[str, Any]:
        """The container of a sandbox, as Podman takes it."""
        return container_spec(
            spec,
            self.runner,
            home=self._home,
            tools=self.tools(),
            channel=self.channel_directory(spec.sandbox_id),
            ceiling=self.ceiling,
        )

    async def find(self, sandbox_id: str) -> str | None:
        """The container of a sandbox of this home, if there is one."""
        try:
            return str((await self.api.inspect(container_name(self._home, sandbox_id)))["Id"])
        except Refused as error:
            if error.kind == "podman_not_found":
                return None
            raise

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox's container and what the runner kept for it."""
        await self.remove(container_name(self._home, sandbox_id), sandbox_id)

    async def list_orphans(self, known: set[str]) -> list[Orphan]:
        """Containers of this runner whose sandbox is not among ``known``."""
        found = []
        for container in await self.api.containers(self.runner):
            marks = container.get("Labels") or {}
            sandbox = marks.get(f"{LABEL}.sandbox", "")
            if sandbox not in known:
                run = marks.get(f"{LABEL}.run", "")
                found.append(Orphan(container=str(container["Id"]), sandbox_id=sandbox, run_id=run))
        return found

    async def remove(self, container: str, sandbox_id: str) -> None:
        """Remove a container and what the runner kept for it."""
        await self.api.remove(container)
        if SANDBOX_ID.fullmatch(sandbox_id):
            shutil.rmtree(self._directory / "channels" / sandbox_id, ignore_errors=True)


def _digest(parts: Sequence[bytes]) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()
