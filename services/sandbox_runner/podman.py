"""Sandboxes made of Podman containers: start one, use it, verify in another, leave nothing behind."""

import asyncio
import secrets
import shlex
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from contracts.change import Change
from contracts.tools import ToolCall, ToolResult
from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner import change as changes
from services.sandbox_runner.answers import Answer, command_result, edit_result
from services.sandbox_runner.box import Box
from services.sandbox_runner.deps import hold
from services.sandbox_runner.inside import program
from services.sandbox_runner.mirror_bounds import Lease
from services.sandbox_runner.podman_host import SANDBOX_ID, PodmanHost
from services.sandbox_runner.sandbox import CheckResult, Ready, SandboxGone, SandboxSpec
from services.sandbox_runner.toolserver.wire import CHUNK
from services.sandbox_runner.wrapping import unpack, wrapped

_REPOSITORY_SECONDS = 300.0
_GRACE_SECONDS = 20.0
"""What a tool call may take beyond its own deadline: killing its processes and sending the answer."""

_HEAD, _TAIL = 12_000, 18_000
_VERIFY = 200_000
_REPORT = 1_500_000
"""Bytes that one of our own programs may write from its beginning, and as many to its end."""

logger = structlog.get_logger(__name__)


class PodmanSandbox:
    """One container; see ``services.sandbox_runner.sandbox.Sandbox`` for what it promises.

    Args:
        repository: a bare repository of the host (the mirror) that holds the base commits.
        box: a container that holds the run's workspace already: one that was adopted.
    """

    def __init__(
        self,
        host: PodmanHost,
        repository: Path,
        *,
        box: Box | None = None,
    ) -> None:
        self._host = host
        self._repository = repository
        self._box = box
        deps = box.record.shape.deps if box is not None else ""
        self._let_go: Callable[[], None] | None = hold(Path(deps)) if deps else None
        self._lease = Lease(repository) if box is not None else None
        # Calls of ours have names that no predecessor used: their answers may still be under way.
        self._epoch = secrets.token_hex(4)
        self._serial = 0

    async def prepare(self, spec: SandboxSpec, pack: Path, base: str) -> Ready:
        """Take a container and lay out the base; on failure nothing is left behind."""
        if not SANDBOX_ID.fullmatch(spec.sandbox_id):
            raise ValueError(f"{spec.sandbox_id!r} cannot name a sandbox")
        began = time.monotonic()
        box = await self.start(spec)
        try:
            self._lease = Lease(self._repository)
            answer = await self._ask(
                {"op": "checkout", "base": base}, seconds=_REPOSITORY_SECONDS, upload=_parts(pack)
            )
            if spec.environment or spec.path:
                message = {"op": "environment", "set": spec.environment, "path": list(spec.path)}
                await self._ask(message, seconds=_GRACE_SECONDS)
            if spec.deps is not None:
                await self._arrange()
        except BaseException:
            await asyncio.shield(self.abandon())
            raise
        return Ready(
            container=box.container,
            tree=str(answer[0]["tree"]),
            image=box.image,
            uid_map=box.uid_map,
            python=box.python,
            seconds=time.monotonic() - began,
        )

    async def start(self, spec: SandboxSpec) -> Box:
        """Take a container without laying out a repository; on failure nothing is left behind."""
        try:
            if spec.deps is not None:
                self._let_go = hold(spec.deps)
            self._box = box = await self._host.take(spec)
        except BaseException:
            await asyncio.shield(self.abandon())
            raise
        return box

    async def _arrange(self) -> None:
        """Put what the setup left where tools look for it."""
        result = await self.run_program("arrange", seconds=_REPOSITORY_SECONDS)
        if result.exit_code != 0:
            raise Later(f"the setup's result could not be used: {result.content[-500:]}", kind="arrange")

    async def run_program(self, name: str, *arguments: str, seconds: float) -> ToolResult:
        """Run one of our own programs (``services.sandbox_runner.inside``) and say what it wrote."""
        self._serial += 1
        argv = ["python3", "-I", "-S", "-B", "-c", program(name), *arguments]
        given = {"command": shlex.join(argv)}
        return await self._bash(
            ToolCall(id=f"{name}/{self._epoch}/{self._serial}", name="bash", input=given, seconds=seconds),
            head=_REPORT,
            tail=_REPORT,
        )

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

    async def _bash(self, call: ToolCall, head: int = _HEAD, tail: int = _TAIL) -> ToolResult:
        command, restart = call.input.get("command"), bool(call.input.get("restart"))
        if not restart and not isinstance(command, str):
            return ToolResult(id=call.id, content="bash needs a command or restart: true.", is_error=True)
        message = {
            "op": "bash",
            "input": {"restart": True} if restart else {"command": command},
            "seconds": call.seconds,
            "head": head,
            "tail": tail,
        }
        return command_result(call, await self._tool(call, message))

    async def _tool(self, call: ToolCall, message: dict[str, Any]) -> Answer:
        fields, _ = await self._ask(message, call=call.id, seconds=call.seconds + _GRACE_SECONDS)
        try:
            return msgspec.convert(fields, Answer)
        except msgspec.ValidationError as error:
            raise SandboxGone("the sandbox broke the protocol of its tool channel") from error

    async def cancel(self, call_id: str) -> None:
        """End a running call."""
        if self._box is not None:
            await self._box.channel.cancel(call_id)

    async def checkpoint(self, base: str) -> Change:
        """The workspace's difference from the base, believed only as far as its bytes say."""
        limits = self._box.record.change if self._box is not None else changes.DEFAULT_LIMITS
        fields, blob = await self._ask(
            {"op": "manifest", "base": base, "files": limits.files, "size": limits.size},
            seconds=_REPOSITORY_SECONDS,
        )
        if not fields["ok"]:
            raise Refused(
                f"the workspace could not be recorded: {str(fields.get('why', ''))[:500]}",
                kind="checkpoint_failed",
            )
        manifest = changes.read_manifest(fields, blob, limits)
        return await changes.build_change(self._repository, base, manifest, scratch=self._host.scratch)

    async def restore(self, change: Change) -> None:
        """Apply a checkpoint to the fresh base."""
        message = {
            "op": "apply",
            "base": change.base,
            "written": [[e.mode, b64encode(e.path).decode(), len(e.content)] for e in change.written],
            "deleted": [b64encode(path).decode() for path in change.deleted],
        }
        blob = b"".join(entry.content for entry in change.written)
        fields, _ = await self._ask(message, seconds=_REPOSITORY_SECONDS, blob=blob)
        if not fields["ok"]:
            raise Later(f"the change could not be restored: {str(fields.get('why'))[:500]}", kind="restore")
        if fields.get("tree") != change.tree:
            raise Refused(
                f"base {change.base} and the change give tree {fields.get('tree')}, not {change.tree}",
                kind="tree_mismatch",
            )

    async def verify(
        self,
        spec: SandboxSpec,
        pack: Path,
        base: str,
        change: Change,
        command: str,
        seconds: float,
        *,
        report: bool = False,
    ) -> CheckResult:
        """Run the command on exactly the change's tree, in a container that ran nothing before."""
        if change.base != base or (self._box is not None and self._box.record.sandbox == spec.sandbox_id):
            raise ValueError("a change is verified on its own base, in a sandbox of another name")
        fresh = PodmanSandbox(self._host, self._repository)
        try:
            ready = await fresh.prepare(spec, pack, base)
            if change.empty:
                if ready.tree != change.tree:
                    raise Refused(
                        f"base {base} has tree {ready.tree}, not {change.tree}", kind="tree_mismatch"
                    )
            else:
                await fresh.restore(change)
            given = {"command": wrapped(command) if report else command}
            call = ToolCall(id="verify", name="bash", input=given, seconds=seconds)
            result = await fresh._bash(call, head=_VERIFY, tail=_VERIFY)
            reports = await fresh._reports() if report else ()
        finally:
            await asyncio.shield(fresh.release())
        return CheckResult(
            command=command,
            tree=change.tree,
            exit_code=result.exit_code,
            seconds=result.seconds,
            output=result.content,
            omitted=result.omitted,
            reports=reports,
        )

    async def _reports(self) -> tuple[tuple[str, str], ...]:
        """What the last command reported; a sandbox that cannot say any more reported nothing."""
        try:
            result = await self.run_program("collect", seconds=60)
        except SandboxGone:
            return ()
        return unpack(result.content) if result.exit_code == 0 and not result.omitted else ()

    async def release(self) -> None:
        """Close the channel, remove the container and its directory."""
        box, self._box = self._box, None
        lease, self._lease = self._lease, None
        let_go, self._let_go = self._let_go, None
        if lease is not None:
            lease.close()
        try:
            if box is not None:
                await box.channel.close()
                await self._host.discard(box.record)
        finally:
            if let_go is not None:
                let_go()

    async def abandon(self) -> None:
        """Release it after something went wrong: what else goes wrong now is logged, not raised."""
        box = self._box
        try:
            await self.release()
        except MillraceError as error:  # the reason that led here matters more; the reaper comes again
            logger.warning("a container was left behind", box=box and box.name, error=str(error))

    async def _ask(self, message: dict[str, Any], *, seconds: float, call: str = "", **more: Any) -> Any:
        if self._box is None:
            raise SandboxGone("the sandbox has ended")
        if not call:
            self._serial += 1
            call = f"{message['op']}/{self._epoch}/{self._serial}"
        fields, blob = await self._box.channel.ask(call, message, seconds=seconds, **more)
        if not isinstance(fields.get("ok"), bool):
            raise SandboxGone("the sandbox broke the protocol of its tool channel")
        if message["op"] == "checkout" and not fields["ok"]:
            raise Later(
                f"the repository could not be laid out: {str(fields.get('why'))[:500]}", kind="checkout"
            )
        return fields, blob


async def _parts(pack: Path) -> AsyncIterator[bytes]:
    with pack.open("rb") as file:
        while part := await asyncio.to_thread(file.read, CHUNK):
            yield part
