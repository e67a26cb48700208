"""Sandboxes made of Podman containers: start one, use it, verify in another, leave nothing behind."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import structlog

from contracts.change import Change
from contracts.tools import ToolCall, ToolResult
from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner import change as changes
from services.sandbox_runner.answers import Answer, Done, command_result, edit_result
from services.sandbox_runner.box import Box
from services.sandbox_runner.channel import Room
from services.sandbox_runner.mirror_bounds import Lease
from services.sandbox_runner.podman_host import SANDBOX_ID, PodmanHost
from services.sandbox_runner.sandbox import CheckResult, Ready, SandboxGone, SandboxSpec
from services.sandbox_runner.toolserver.wire import CHUNK

_REPOSITORY_SECONDS = 300.0
_GRACE_SECONDS = 20.0
"""What a tool call may take beyond its own deadline: killing its processes and sending the answer."""

_HEAD, _TAIL = 12_000, 18_000
T = TypeVar("T")

logger = structlog.get_logger(__name__)


class PodmanSandbox:
    """One container; see ``services.sandbox_runner.sandbox.Sandbox`` for what it promises.

    Args:
        repository: a bare repository of the host (the mirror) that holds the base commits.
        limits: the largest change that a checkpoint takes.
        box: a container that holds the run's workspace already: one that was adopted.
    """

    def __init__(
        self,
        host: PodmanHost,
        repository: Path,
        limits: changes.ChangeLimits = changes.DEFAULT_LIMITS,
        *,
        box: Box | None = None,
    ) -> None:
        self._host = host
        self._repository = repository
        self._box = box
        self._lease = Lease(repository) if box is not None else None
        self._limits = limits

    async def prepare(self, spec: SandboxSpec, pack: Path, base: str) -> Ready:
        """Take a container and lay out the base; on failure nothing is left behind."""
        if not SANDBOX_ID.fullmatch(spec.sandbox_id):
            raise ValueError(f"{spec.sandbox_id!r} cannot name a sandbox")
        began = time.monotonic()
        self._box = box = await self._host.take(spec)
        try:
            self._lease = Lease(self._repository)
            tree = await self._lay_out(pack, base)
        except BaseException:
            await asyncio.shield(self.abandon())
            raise
        return Ready(
            container=box.container,
            tree=tree,
            image=box.image,
            uid_map=box.uid_map,
            python=box.python,
            seconds=time.monotonic() - began,
        )

    async def _lay_out(self, pack: Path, base: str) -> str:
        """Bring commit ``base`` in; its tree. Where descriptors do not get through, its pack is sent."""
        message: dict[str, Any] = {"op": "checkout", "base": base}
        with pack.open("rb") as file:
            done, _ = await self._ask(message, Done, seconds=_REPOSITORY_SECONDS, descriptors=[file.fileno()])
        if not done.ok and "no descriptor" in done.why:
            message |= {"stream": True}
            done, _ = await self._ask(message, Done, seconds=_REPOSITORY_SECONDS, upload=_parts(pack))
        if not done.ok:
            raise Later(f"the repository could not be laid out: {done.why[:500]}", kind="checkout")
        return done.tree

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool in the container."""
        match call.name:
            case "bash":
                return await self._bash(call)
            case "str_replace_based_edit_tool":
                answer = await self._tool(call, {"op": "edit", "input": call.input})
                return edit_result(call, answer)
            case other:
                return ToolResult(id=call.id, content=f"There is no tool {other!r}.", is_error=True)

    async def _bash(self, call: ToolCall) -> ToolResult:
        command, restart = call.input.get("command"), bool(call.input.get("restart"))
        if not restart and not isinstance(command, str):
            return ToolResult(id=call.id, content="bash needs a command or restart: true.", is_error=True)
        message = {
            "op": "bash",
            "input": {"restart": True} if restart else {"command": command},
            "seconds": call.seconds,
            "head": _HEAD,
            "tail": _TAIL,
        }
        return command_result(call, await self._tool(call, message))

    async def _tool(self, call: ToolCall, message: dict[str, Any]) -> Answer:
        answer, _ = await self._ask(message, Answer, call=call.id, seconds=call.seconds + _GRACE_SECONDS)
        return answer

    async def cancel(self, call_id: str) -> None:
        """End a running call."""
        if self._box is not None:
            await self._box.channel.cancel(call_id)

    async def checkpoint(self, base: str) -> Change:
        """The workspace's difference from the base, believed only as far as its bytes say."""
        fields, blob = await self._ask(
            {"op": "manifest", "base": base, "files": self._limits.files, "size": self._limits.size},
            dict[str, Any],
            seconds=_REPOSITORY_SECONDS,
            room=Room(changes.manifest_text(self._limits), self._limits.size),
        )
        if fields.get("ok") is not True:
            raise Refused(
                f"the workspace could not be recorded: {str(fields.get('why', ''))[:500]}",
                kind="checkpoint_failed",
            )
        manifest = changes.read_manifest(fields, blob, self._limits)
        return await changes.build_change(self._repository, base, manifest, scratch=self._host.scratch)

    async def restore(self, change: Change) -> None:
        """Apply a checkpoint to the fresh base."""
        message = {
            "op": "apply",
            "base": change.base,
            "written": [[e.mode, b64encode(e.path).decode(), len(e.content), e.blob] for e in change.written],
            "deleted": [b64encode(path).decode() for path in change.deleted],
        }
        blob = b"".join(entry.content for entry in change.written)
        done, _ = await self._ask(message, Done, seconds=_REPOSITORY_SECONDS, blob=blob)
        if not done.ok:
            raise Later(f"the change could not be restored: {done.why[:500]}", kind="restore")
        if done.tree != change.tree:
            raise Refused(
                f"base {change.base} and the change give tree {done.tree[:40]}, not {change.tree}",
                kind="tree_mismatch",
            )

    async def verify(
        self, spec: SandboxSpec, pack: Path, base: str, change: Change, command: str, seconds: float
    ) -> CheckResult:
        """Run the command on exactly the change's tree, in a container that ran nothing before."""
        if change.base != base or (self._box is not None and self._box.record.sandbox == spec.sandbox_id):
            raise ValueError("a change is verified on its own base, in a sandbox of another name")
        fresh = PodmanSandbox(self._host, self._repository, self._limits)
        try:
            ready = await fresh.prepare(spec, pack, base)
            if change.empty:
                if ready.tree != change.tree:
                    raise Refused(
                        f"base {base} has tree {ready.tree}, not {change.tree}", kind="tree_mismatch"
                    )
            else:
                await fresh.restore(change)
            call = ToolCall(id="verify", name="bash", input={"command": command}, seconds=seconds)
            result = await fresh.call(call)
        finally:
            await asyncio.shield(fresh.release())
        return CheckResult(
            command=command,
            tree=change.tree,
            exit_code=result.exit_code,
            seconds=result.seconds,
            output=result.content,
            omitted=result.omitted,
        )

    async def release(self) -> None:
        """Close the channel, remove the container and its directory."""
        box, self._box = self._box, None
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()
        if box is not None:
            await box.channel.close()
            await self._host.discard(box.record)

    async def abandon(self) -> None:
        """Release it after something went wrong: what else goes wrong now is logged, not raised."""
        box = self._box
        try:
            await self.release()
        except MillraceError as error:  # the reason that led here matters more; the reaper comes again
            logger.warning("a container was left behind", box=box and box.name, error=str(error))

    async def _ask(
        self, message: dict[str, Any], kind: type[T], *, seconds: float, call: str = "", **more: Any
    ) -> tuple[T, bytes]:
        if self._box is None:
            raise SandboxGone("the sandbox has ended")
        return await self._box.channel.ask(call, message, kind, seconds=seconds, **more)


async def _parts(pack: Path) -> AsyncIterator[bytes]:
    with pack.open("rb") as file:
        while part := await asyncio.to_thread(file.read, CHUNK):
            yield part
