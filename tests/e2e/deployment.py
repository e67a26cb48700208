"""Millrace as its users run it: real processes, started, stopped, killed and started again."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx2
import nats
from nats.aio.client import Client

from contracts.registry import SERVICES
from services.kit.embedded import find_nats_server, password
from services.kit.operator import operator_token
from services.kit.settings import load

MILLRACE = str(Path(sys.executable).with_name("millrace"))
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_LOOK_SECONDS = 0.02
REPLICAS = {"gateway": 2, "sandbox_runner": 2}
"""Of the services that an ``Apart`` runs more than once."""
T = TypeVar("T")


async def eventually(look: Callable[[], T], *, what: str, seconds: float = 60.0) -> T:
    """What ``look`` returns once it is true; fails after ``seconds`` with ``what`` did not happen."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_LOOK_SECONDS)
    return found


class Deployment(ABC):
    """One Millrace. Its home, addresses and operator token survive stops, kills and starts.

    Args:
        home: ``MILLRACE_HOME`` of all its processes; their standard error goes to ``*.log`` beside it.
        environment: further variables, by name.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.listen = [f"127.0.0.1:{free_port()}"]
        self.nats_address = f"127.0.0.1:{free_port()}"
        self.token = operator_token(load({}, home=home))
        self._environment = _clean() | {
            "MILLRACE_HOME": str(home),
            "MILLRACE_LISTEN": self.listen[0],
            "MILLRACE_NATS_LISTEN": self.nats_address,
            "MILLRACE_LOG_FORMAT": "json",
            **environment,
        }
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._seen: dict[Path, int] = {}

    @property
    def urls(self) -> list[str]:
        """Where its gateways are."""
        return [f"http://{address}" for address in self.listen]

    @property
    def pids(self) -> list[int]:
        """The processes that were started here; ``descendants`` are theirs."""
        return [process.pid for process in self._running.values() if process.returncode is None]

    def find(self, name: str) -> int:
        """The process of this name among all that it runs."""
        (found,) = {
            pid
            for root in self.pids
            for pid in descendants(root)
            if Path(f"/proc/{pid}/comm").read_text().strip() == name
        }
        return found

    @property
    @abstractmethod
    def nats_url(self) -> str:
        """Where its NATS is, credentials included."""

    @abstractmethod
    async def start(self) -> None:
        """Start everything; returns when every gateway is ready."""

    async def stop(self) -> None:
        """End everything in an orderly way, as SIGTERM does; no sandbox may be left."""
        services = [name for name in self._running if name != "nats"]
        for group in (services, [*self._running.keys() - services]):  # nats-server last
            for name in group:
                self._running[name].send_signal(signal.SIGTERM)
            for name in group:
                code = await asyncio.wait_for(self._running.pop(name).wait(), _STOP_SECONDS)
                assert code == 0, f"{name} ended with {code}: {self.tail(name)}"
        left = await self.sandboxes()
        assert not left, f"sandboxes left behind: {left}"

    async def kill(self) -> None:
        """SIGKILL to every process at once: services, nats-server, Podman's service, git."""
        alive = [process for process in self._running.values() if process.returncode is None]
        for process in alive:  # nobody may start anything while we look
            process.send_signal(signal.SIGSTOP)
        victims = [pid for process in alive for pid in descendants(process.pid)]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in alive:
            await process.wait()
        self._running.clear()

    async def sandboxes(self) -> list[str]:
        """The names of the containers of this home's runners."""
        names = [file.name for file in (self.home / "sandboxes").glob("*")]
        filters = [f"--filter=label=dev.millrace.runner={name}" for name in names]
        if not filters:
            return []
        listed = await asyncio.create_subprocess_exec(
            "podman", "ps", "--all", "--format={{.Names}}", *filters, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await listed.communicate()
        return out.decode().split()

    @asynccontextmanager
    async def nats(self) -> AsyncIterator[Client]:
        """A connection to its NATS."""
        client = await nats.connect(self.nats_url, connect_timeout=5)
        try:
            yield client
        finally:
            await client.close()

    async def ask(self, method: str, path: str, body: object = None, *, replica: int = 0) -> httpx2.Response:
        """An operator's request to a gateway."""
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            headers = {"authorization": f"Bearer {self.token}"}
            return await client.request(method, self.urls[replica] + path, headers=headers, json=body)

    @property
    def logs(self) -> list[Path]:
        """What its processes wrote to standard error and output."""
        return sorted(self.home.parent.glob(f"{self.home.name}.*.log"))

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        file = self._log(name)
        return file.read_text(errors="replace")[-3000:] if file.exists() else "(it wrote nothing)"

    def complaints(self) -> list[str]:
        """Errors that its processes logged, or died of, since the last time this was asked."""
        found = []
        for file in self.logs:
            text = file.read_bytes()
            fresh, self._seen[file] = text[self._seen.get(file, 0) :], len(text)
            for line in fresh.decode(errors="replace").splitlines():
                try:
                    wrong = json.loads(line)["level"] in ("error", "critical")
                except (ValueError, TypeError, KeyError):  # not a record: what Python or the command printed
                    wrong = any(word in line for word in ("Traceback", "Error", "Exception", "Warning"))
                if wrong:
                    found.append(f"{file.name}: {line}")
        return found

    async def _spawn(self, name: str, *command: str, **environment: str) -> asyncio.subprocess.Process:
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                env={**self._environment, **environment}, start_new_session=True,
            )  # fmt: skip
        self._running[name] = process
        return process

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
            for url in self.urls:
                while True:
                    with contextlib.suppress(httpx2.HTTPError):
                        if (await client.get(f"{url}/ready")).status_code == 200:
                            break
                    for name, process in self._running.items():
                        assert process.returncode is None, f"{name} ended at once: {self.tail(name)}"
                    assert time.monotonic() < deadline, f"not ready: {[*map(self.tail, self._running)]}"
                    await asyncio.sleep(_LOOK_SECONDS)

    def _log(self, name: str) -> Path:
        return self.home.parent / f"{self.home.name}.{name}.log"


class Together(Deployment):
    """``millrace up``: all services in one process tree, with its own nats-server."""

    @property
    def nats_url(self) -> str:
        return f"nats://millrace:{password(self.home, 'millrace')}@{self.nats_address}"

    async def start(self) -> None:
        await self._spawn("up", MILLRACE, "up")
        await self._until_ready()


class Apart(Deployment):
    """``millrace serve NAME``: each service a process of its own, gateway and runner twice."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        super().__init__(home, environment)
        self.listen.append(f"127.0.0.1:{free_port()}")
        self._environment["MILLRACE_NATS_URL"] = self.nats_url

    @property
    def nats_url(self) -> str:
        return f"nats://{self.nats_address}"

    async def start(self) -> None:
        host, _, port = self.nats_address.rpartition(":")
        store = str(self.home / "nats-store")
        await self._spawn("nats", find_nats_server(), "--js", "--sd", store, "--addr", host, "--port", port)
        await self._until_nats_answers()
        provisioning = await self._spawn("provision", MILLRACE, "provision")
        assert await provisioning.wait() == 0, self.tail("provision")
        del self._running["provision"]
        for service in SERVICES:
            for number in range(REPLICAS.get(service, 1)):
                address = {"MILLRACE_LISTEN": self.listen[number]} if service == "gateway" else {}
                await self._spawn(f"{service}-{number + 1}", MILLRACE, "serve", service, **address)
        await self._until_ready()

    async def _until_nats_answers(self) -> None:
        host, _, port = self.nats_address.rpartition(":")
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.close()
                    return
                await asyncio.sleep(_LOOK_SECONDS)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(root: int) -> list[int]:
    """A process and all that it started, directly or not (proc(5))."""
    parents = dict(_parents())
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; the fields after it cannot.
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _clean() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "ANTHROPIC_"))
    }
