"""A Podman service to talk to: the operator's, the machine's, or one of our own."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import structlog

from services.kit.errors import Later
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.podman_command import id_map_size, own_ceiling, podman_environment
from services.sandbox_runner.profile import Ceiling

_START_SECONDS = 20.0
_LOOK_SECONDS = 0.02

logger = structlog.get_logger(__name__)


class PodmanService:
    """Finds or starts the service; ``api`` is usable between ``start`` and ``stop``.

    Args:
        url: the operator's service; then nothing is started here.
        runtime: the OCI runtime to use; a service that runs already cannot be told, so one is started.
        owner: the runner; a service of our own has its socket where the next runner of this name looks.
    """

    def __init__(self, url: str | None = None, runtime: str | None = None, owner: str = "") -> None:
        self._url = url
        self._runtime = runtime
        self._owner = owner
        self._process: asyncio.subprocess.Process | None = None
        self._directory: Path | None = None
        self.api: PodmanApi | None = None
        self.ceiling = Ceiling()

    async def start(self) -> PodmanApi:
        """Connect, starting a service if none runs; does nothing if it is there already.

        Raises:
            Later: Podman is missing, too old, or does not answer.
        """
        if self.api is None:
            self.api, self.ceiling = await self._located()
        if self._directory is not None and (self._process is None or self._process.returncode is not None):
            await self._start_own(self._directory)
        await self.api.ping()
        return self.api

    async def _located(self) -> tuple[PodmanApi, Ceiling]:
        if self._url:
            return PodmanApi(self._url), Ceiling(ids=id_map_size())
        if not self._runtime and (api := await _running()) is not None:
            return api, Ceiling(ids=id_map_size())
        self._directory = service_directory(self._owner)
        return PodmanApi(f"unix://{self._socket(self._directory)}"), own_ceiling()

    def _socket(self, directory: Path) -> Path:
        # A predecessor's service may still be ending, and would take a socket of the same name with it.
        return directory / f"s{os.getpid()}"

    async def _start_own(self, directory: Path) -> None:
        _emptied(directory)
        socket = self._socket(directory)
        command = [
            "podman",
            *([f"--runtime={self._runtime}"] if self._runtime else []),
            "system",
            "service",
            "--time=0",
            f"unix://{socket}",
        ]
        if shutil.which("setpriv"):  # the service ends with this process, however that ends
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        log = (directory / "log").open("wb")
        try:
            # A session of its own: Ctrl-C in a terminal must leave it the time to remove the sandboxes.
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=podman_environment(),
                start_new_session=True, cwd=directory,  # conmon leaves a file where it runs when memory ends
            )  # fmt: skip
        except FileNotFoundError as error:
            raise Later(
                "Podman is not installed: install the package podman", kind="podman_missing"
            ) from error
        finally:
            log.close()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not socket.is_socket():
                    if self._process.returncode is not None:
                        self._say("the Podman service ended at once")
                        raise Later(
                            "The Podman service of the sandboxes does not start.", kind="podman_failed"
                        )
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as error:
            self._say("the Podman service does not come up")
            await self._end()
            raise Later(
                "The Podman service of the sandboxes does not start.", kind="podman_unavailable"
            ) from error

    def _say(self, what: str) -> None:
        if self._directory is not None:
            words = (self._directory / "log").read_text(errors="replace").strip()[-400:]
            logger.warning(what, words=words)

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def stop(self) -> None:
        """Close the connections; end the service if it was started here. Containers go on."""
        if self.api is not None:
            self.api.close()
        await self._end()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def service_directory(owner: str) -> Path:
    """Where the service of a runner has its socket; the same for the next runner of this name.

    The path of a unix socket is at most 107 bytes, so it cannot lie below a home of any length. A directory
    that somebody else made there first is left alone.
    """
    if not owner:
        return Path(tempfile.mkdtemp(prefix="millrace-podman-"))
    runtime = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else "")
    base = Path(runtime) if runtime and os.access(runtime, os.W_OK) else Path(tempfile.gettempdir())
    path = base / f"millrace-podman-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
    if not path.is_symlink() and (not path.exists() or path.stat().st_uid == os.geteuid()):
        return path
    return Path(tempfile.mkdtemp(prefix="millrace-podman-"))


def _emptied(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for left in directory.iterdir():
        left.unlink(missing_ok=True)


async def _running() -> PodmanApi | None:
    """The machine's own service, if it answers."""
    base = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    path = base / "podman/podman.sock"
    if not path.is_socket():
        return None
    api = PodmanApi(f"unix://{path}")
    try:
        await api.ping()
    except Later as error:
        logger.info("a Podman socket that does not answer is passed over", socket=str(path), why=str(error))
        api.close()
        return None
    return api
