"""Sandboxes made of Podman containers: start one, use it, verify in another, leave nothing behind."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from contracts.change import Change
from contracts.tools import ToolCall, ToolResult
from services.kit.errors import Later, MillraceError, Refused
from services.sandbox_runner import change as changes
from services.sandbox_runner.answers import Answer, command_result, edit_result
from services.sandbox_runner.channel import Channel, Listener
from services.sandbox_runner.podman_host import SANDBOX_ID, PodmanHost
from services.sandbox_runner.sandbox import CheckResult, Ready, SandboxGone, SandboxSpec
from services.sandbox_runner.toolserver.wire import CHUNK

_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_REPOSITORY_SECONDS = 300.0
_GRACE_SECONDS = 20.0
"""What a tool call may take beyond its own deadline: killing its processes and sending the answer."""

_HEAD, _TAIL = 12_000, 18_000

logger = structlog.get_logger(__name__)


class PodmanSandbox:
    """One container; see ``services.sandbox_runner.sandbox.Sandbox`` for what it promises.

    Args:
        repository: a bare repository of the host (the mirror) that holds the base commits.
        limits: the largest change that a checkpoint takes.
    """

    def __init__(
        self, host: PodmanHost, repository: Path, limits: changes.ChangeLimits = changes.DEFAULT_LIMITS
    ) -> None:
        self._host = host
        self._repository = repository
        self._spec: SandboxSpec | None = None
        self._channel: Channel | None = None
        self._limits = limits
        self._serial = 0

    async def prepare(self, spec: SandboxSpec, pack: Path, base: str) -> Ready:
        """Start the container and lay out the base; on failure nothing is left behind."""
        if not SANDBOX_ID.fullmatch(spec.sandbox_id):
            raise ValueError(f"{spec.sandbox_id!r} cannot name a container")
        began = time.monotonic()
        self._spec = spec
        try:
            container, uid, python = await self._start(spec)
            answer = await self._ask(
                {"op": "checkout", "base": base}, seconds=_REPOSITORY_SECONDS, upload=_parts(pack)
            )
            image = str((await self._host.api.inspect(container))["Image"])
        except BaseException:
            await asyncio.shield(self._abandon())
            raise
        return Ready(
            container=container,
            tree=str(answer[0]["tree"]),
            image=image,
            uid_map=uid,
            python=python,
            seconds=time.monotonic() - began,
        )

    async def _start(self, spec: SandboxSpec) -> tuple[str, int, str]:
        api, body = self._host.api, self._host.specify(spec)
        listener = Listener(self._host.channel_directory(spec.sandbox_id))
        try:
            container = await api.create(body)
            await api.start(container)
            self._channel = await self._report(listener, container)
        finally:
            listener.close()
        hello = await self._channel.hello(_START_SECONDS)
        state = (await api.inspect(container))["State"]
        pid = int(state.get("Pid") or 0)
        if self._channel.peer_pid not in (0, pid):
            raise SandboxGone("another process than the sandbox's first took the tool channel")
        return container, _check_isolation(pid), str(hello.get("python", ""))[:20]

    async def _report(self, listener: Listener, container: str) -> Channel:
        """The tool server's connection, or why it cannot come any more."""
        accepting = asyncio.create_task(listener.accept(_START_SECONDS))
        try:
            while True:
                done, _ = await asyncio.wait([accepting], timeout=_LOOK_SECONDS)
                if done:
                    return accepting.result()
                state = (await self._host.api.inspect(container))["State"]
                if not state.get("Running"):
                    raise Later(
                        f"the sandbox ended with {state.get('ExitCode')} before it reported; does its image"
                        " have Python 3.11, bash and git?",
                        kind="sandbox_start",
                    )
        finally:
            accepting.cancel()

    @property
    def channel_directory(self) -> Path:
        """The host's directory that this sandbox alone sees as ``/run/channel``."""
        if self._spec is None:
            raise SandboxGone("the sandbox has ended")
        return self._host.channel_directory(self._spec.sandbox_id)

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
        fields, _ = await self._ask(message, call=call.id, seconds=call.seconds + _GRACE_SECONDS)
        try:
            return msgspec.convert(fields, Answer)
        except msgspec.ValidationError as error:
            raise SandboxGone("the sandbox broke the protocol of its tool channel") from error

    async def cancel(self, call_id: str) -> None:
        """End a running call."""
        if self._channel is not None:
            await self._channel.cancel(call_id)

    async def checkpoint(self, base: str) -> Change:
        """The workspace's difference from the base, believed only as far as its bytes say."""
        fields, blob = await self._ask(
            {"op": "manifest", "base": base, "files": self._limits.files, "size": self._limits.size},
            seconds=_REPOSITORY_SECONDS,
        )
        if not fields["ok"]:
            raise Refused(
                f"the workspace could not be recorded: {str(fields.get('why', ''))[:500]}",
                kind="checkpoint_failed",
            )
        manifest = changes.read_manifest(fields, blob, self._limits)
        return await changes.build_change(self._repository, base, manifest)

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
        self, spec: SandboxSpec, pack: Path, base: str, change: Change, command: str, seconds: float
    ) -> CheckResult:
        """Run the command on exactly the change's tree, in a container that ran nothing before."""
        if change.base != base or (self._spec is not None and self._spec.sandbox_id == spec.sandbox_id):
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
        spec, self._spec = self._spec, None
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        if spec is not None:
            await self._host.remove_sandbox(spec.sandbox_id)

    async def _abandon(self) -> None:
        spec = self._spec
        try:
            await self.release()
        except MillraceError as error:  # the reason that led here matters more; the reaper comes again
            logger.warning("sandbox left behind", sandbox=spec and spec.sandbox_id, error=str(error))

    async def _ask(self, message: dict[str, Any], *, seconds: float, call: str = "", **more: Any) -> Any:
        if self._channel is None:
            raise SandboxGone("the sandbox has ended")
        if not call:
            self._serial += 1
            call = f"{message['op']}/{self._serial}"
        fields, blob = await self._channel.ask(call, message, seconds=seconds, **more)
        if not isinstance(fields.get("ok"), bool):
            raise SandboxGone("the sandbox broke the protocol of its tool channel")
        if message["op"] == "checkout" and not fields["ok"]:
            raise Later(
                f"the repository could not be laid out: {str(fields.get('why'))[:500]}", kind="checkout"
            )
        return fields, blob


def _check_isolation(pid: int) -> int:
    """The host's first uid of the namespace of a process; 0 if the process cannot be seen from here.

    Podman has silently ignored a request for a user namespace, so it is looked at.
    """
    try:
        inside, outside, _ = Path(f"/proc/{pid}/uid_map").read_text().split()[:3]
        own = Path("/proc/self/uid_map").read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    if int(outside) == 0 or [inside, outside] == own[:2]:
        raise Refused(
            "Podman started the sandbox without a user namespace of its own", kind="podman_no_user_namespace"
        )
    return int(outside)


async def _parts(pack: Path) -> AsyncIterator[bytes]:
    with pack.open("rb") as file:
        while part := await asyncio.to_thread(file.read, CHUNK):
            yield part
