"""A repository's setup: run once per base lock files, image and commands, with the only network there is.

It runs in a sandbox like every other, besides that it sees two sockets: the proxy's, which is gone before
anything is taken out, and one through which what it left in ``/deps`` comes out. Later sandboxes of the
same repository see that read-only; those of other repositories never (docs/repository-settings.md).
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from contracts import facts as f
from contracts.envelope import RunKey
from contracts.tools import ToolCall
from services.kit.errors import Later, Refused
from services.sandbox_runner.deps import Received, Store, Stored, receive
from services.sandbox_runner.egress import Policy, Target
from services.sandbox_runner.images import Image
from services.sandbox_runner.inside import program
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.profile import OUTSIDE
from services.sandbox_runner.proxy import Proxy, Resolve, resolve
from services.sandbox_runner.repository_settings import RepositorySettings
from services.sandbox_runner.sandbox import MIB, Limits, SandboxGone, SandboxSpec
from services.sandbox_runner.setup_rules import (
    BUNDLE,
    EVERYTHING,
    JAVA_STORE,
    PROXY_PORT,
    Rules,
    path,
    setup_environment,
)

_VERSION = "1"
"""Part of every key: a setup of another version of this code is another setup."""
_DISK = 1024 * MIB
_RESERVE = 512 * MIB
_OUTPUT = 8000
_LOCK_SECONDS = 0.1
_RECEIVE_SECONDS = 300.0

logger = structlog.get_logger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One setup that is wanted.

    ``pack`` holds commit ``base``. ``inputs`` are the files that it depends on, with their blob ids.
    ``image`` is the image's name, ``image_id`` which one that is today.
    """

    run: RunKey
    base: str
    pack: Path
    image: str
    image_id: str
    commands: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    policy: Policy
    settings: RepositorySettings

    def key(self, rules: Rules) -> str:
        """Equal for setups that would do the same."""
        told = msgspec.json.encode(
            [
                _VERSION,
                self.image_id,
                self.commands,
                self.inputs,
                sorted(map(str, self.policy.hosts)),
                sorted(map(str, self.policy.mirrors)),
                sorted(setup_environment(rules, self.settings).items()),
            ]
        )
        return hashlib.sha256(told).hexdigest()[:40]


class Setups:
    """Runs setups and remembers them.

    Args:
        at_once: how many may run at the same time in this process.
        look_up: how names become addresses.
    """

    def __init__(
        self,
        host: PodmanHost,
        mirror: Mirror,
        store: Store,
        rules: Rules,
        *,
        cpus: float = 2.0,
        at_once: int = 2,
        look_up: Resolve = resolve,
    ) -> None:
        self._host = host
        self._mirror = mirror
        self._store = store
        self.rules = rules
        self._cpus = cpus
        self._permits = asyncio.Semaphore(at_once)
        self._look_up = look_up

    async def ensure(self, order: Order) -> Stored:
        """The setup's result: an earlier one if there is, else it is run now.

        A setup whose commands fail is a result too; its report says so and there is no tree.

        Raises:
            Later: it could not be run now.
        """
        key = order.key(self.rules)
        if found := self._find(order, key):
            return found
        async with self._locked(order.run.repository_id, key):
            if found := self._find(order, key):
                return found
            async with self._permits:
                return await self._run(order, key)

    async def ask_index(self, image: Image, index: str) -> str:
        """The address below which a Cargo index keeps its files.

        Raises:
            Later: it did not say.
        """
        outside = self._store.begin(0)
        outside.mkdir(mode=0o755)
        target = Target(index)
        mirrors = self.rules.mirrors & {target}
        policy = Policy(hosts=frozenset({target}) - mirrors, mirrors=mirrors)
        settings = RepositorySettings()
        box = PodmanSandbox(self._host, self._mirror.path(0))
        try:
            self._hand_in(outside)
            async with Proxy(outside, policy, look_up=self._look_up):
                await box.start(self._spec(None, image.id, outside, settings))
                await self._open(box)
                result = await box.run_program("cargo_files", str(PROXY_PORT), index, BUNDLE, seconds=60)
        finally:
            await asyncio.shield(box.release())
            shutil.rmtree(outside, ignore_errors=True)
        if result.exit_code != 0:
            raise Later(f"{index} does not answer: {result.content[-300:]}", kind="setup_index")
        return result.content.strip()

    def _find(self, order: Order, key: str) -> Stored | None:
        found = self._store.find(order.run.repository_id, key)
        if found is None:
            return None
        return msgspec.structs.replace(found, report=msgspec.structs.replace(found.report, cached=True))

    async def _run(self, order: Order, key: str) -> Stored:
        part = self._store.begin(order.run.repository_id)
        outside = part.with_name(f"{part.name}.outside")
        outside.mkdir(mode=0o755)
        began = time.monotonic()
        try:
            self._hand_in(outside)
            report, received = await self._carry_out(order, outside, part)
            report = msgspec.structs.replace(report, seconds=round(time.monotonic() - began, 3))
            return self._store.keep(
                order.run.repository_id, key, part, report, received.top if received is not None else ()
            )
        finally:
            self._store.discard(part)
            shutil.rmtree(outside, ignore_errors=True)

    def _hand_in(self, outside: Path) -> None:
        (outside / "ca.pem").write_text(self.rules.ca)
        (outside / "ca.pem").chmod(0o644)

    async def _carry_out(self, order: Order, outside: Path, part: Path) -> tuple[f.Setup, Received | None]:
        box = PodmanSandbox(self._host, self._mirror.path(order.run.repository_id))
        report = f.Setup(commands=order.commands, ok=False)
        try:
            async with Proxy(outside, order.policy, look_up=self._look_up) as proxy:
                spec = self._spec(order.run, order.image, outside, order.settings)
                await box.prepare(spec, order.pack, order.base)
                ok, output = await self._commands(box, order.commands)
            # From here on there is no way out: what the setup left running reaches nobody.
            report = f.Setup(
                commands=order.commands,
                ok=ok,
                output=output[-_OUTPUT:],
                reached=tuple(sorted(map(str, proxy.traffic))),
                blocked=_blocked(proxy),
            )
            if not ok:
                return report, None
            try:
                received = await self._take(box, outside, part)
            except Refused as error:
                return msgspec.structs.replace(report, ok=False, output=str(error)), None
            return msgspec.structs.replace(report, size=received.size), received
        except SandboxGone as error:
            words = f"The sandbox ended during the setup, perhaps for want of memory: {error}"
            return msgspec.structs.replace(report, output=words), None
        finally:
            await asyncio.shield(box.release())

    def _spec(
        self, key: RunKey | None, image: str, outside: Path, settings: RepositorySettings
    ) -> SandboxSpec:
        rules = self.rules
        disk = min(_DISK, rules.memory // 4)
        return SandboxSpec(
            sandbox_id=f"setup-{uuid.uuid4().hex[:12]}",
            key=key,
            image=image,
            limits=Limits(
                memory=rules.memory,
                disk=disk,
                cpus=self._cpus,
                seconds=rules.seconds + _RECEIVE_SECONDS + 120,
            ),
            scratch=rules.memory - disk - _RESERVE,
            outside=outside,
            environment=setup_environment(rules, settings),
            path=path(EVERYTHING),
        )

    async def _commands(self, box: PodmanSandbox, commands: Sequence[str]) -> tuple[bool, str]:
        """Whether all of them ended well, and what they wrote."""
        await self._open(box)
        deadline = time.monotonic() + self.rules.seconds
        said = []
        for number, command in enumerate(commands):
            left = max(1.0, deadline - time.monotonic())
            call = ToolCall(id=f"setup/{number}", name="bash", input={"command": command}, seconds=left)
            result = await box.call(call)
            said.append(f"$ {command}\n{result.content}".rstrip())
            if result.exit_code != 0:
                return False, "\n".join(said)
        return True, "\n".join(said)

    async def _open(self, box: PodmanSandbox) -> None:
        """The way out inside, and what it takes to trust those at its other end."""
        await _start_relay(box)
        if self.rules.ca:
            made = await box.run_program("trust", f"{OUTSIDE}/ca.pem", BUNDLE, JAVA_STORE, seconds=60)
            if made.exit_code != 0:
                raise Later(f"the certificates could not be used: {made.content[-300:]}", kind="setup_ca")

    async def _take(self, box: PodmanSandbox, outside: Path, part: Path) -> Received:
        """What lies in ``/deps``, as a directory of the host."""
        listening = socket.socket(socket.AF_UNIX)
        handle = os.open(outside, os.O_PATH | os.O_DIRECTORY)
        try:
            listening.bind(f"/proc/self/fd/{handle}/deps")
        finally:
            os.close(handle)
        (outside / "deps").chmod(0o666)
        listening.listen(1)
        listening.settimeout(_RECEIVE_SECONDS)
        connections: list[socket.socket] = [listening]
        taking = asyncio.create_task(asyncio.to_thread(_accept, listening, connections, part, self._store))
        try:
            packing = asyncio.create_task(
                box.run_program("pack", f"{OUTSIDE}/deps", seconds=_RECEIVE_SECONDS)
            )
            await asyncio.wait({taking, packing}, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                result = await packing
                if result.exit_code != 0:
                    raise Refused(f"/deps could not be read: {result.content[-500:]}", kind="setup_not_read")
            received = await asyncio.wait_for(asyncio.shield(taking), _RECEIVE_SECONDS)
            await packing
        except TimeoutError as error:
            raise Later("what the setup left could not be read in time", kind="setup_timeout") from error
        finally:
            for connection in connections:  # ends the thread, whatever it waits for
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            await asyncio.gather(taking, packing, return_exceptions=True)
        return received

    @asynccontextmanager
    async def _locked(self, repository_id: int, key: str) -> AsyncIterator[None]:
        """Only one process runs this setup; the lock ends with the process that holds it."""
        file = self._store.begin(repository_id).with_name(f"{key}.lock")
        handle = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(_LOCK_SECONDS)
            yield
        finally:
            os.close(handle)


async def _start_relay(box: PodmanSandbox) -> None:
    text = program("relay")
    begin = (
        f"python3 -I -S -B - {OUTSIDE}/proxy {PROXY_PORT} <<'MILLRACE' >/tmp/.relay 2>&1 &\n"
        f"{text}\nMILLRACE\n"
        "for _ in $(seq 200); do grep -q listening /tmp/.relay && break; sleep 0.05; done\n"
        "grep -q listening /tmp/.relay"
    )
    call = ToolCall(id="relay", name="bash", input={"command": begin}, seconds=60)
    result = await box.call(call)
    if result.exit_code != 0:
        raise Later(f"the setup's way out could not be opened: {result.content[-300:]}", kind="setup_relay")


def _accept(listening: socket.socket, connections: list[socket.socket], part: Path, store: Store) -> Received:
    try:
        connection, _ = listening.accept()
    except OSError as error:
        raise Refused("the setup's sandbox did not hand over what it left", kind="setup_broken") from error
    connections.append(connection)
    connection.settimeout(60.0)
    try:
        received = receive(connection, part, store.room)
    except Refused as error:
        with suppress(OSError):
            connection.sendall(str(error).encode())
        raise
    except OSError as error:
        raise Refused(
            "what the setup left behind broke off while it was read", kind="setup_broken"
        ) from error
    with suppress(OSError):
        connection.sendall(f"{received.entries} entries, {received.size} bytes\n".encode())
    return received


def _blocked(proxy: Proxy) -> tuple[f.BlockedHost, ...]:
    return tuple(
        f.BlockedHost(target=refusal.target, why=refusal.why, times=times)
        for refusal, times in proxy.refused.items()
    )
