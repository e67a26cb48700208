"""A Podman service to talk to: the operator's, the machine's, or one of our own."""

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog

from services.kit.errors import Later
from services.sandbox_runner.podman_api import PodmanApi
from services.sandbox_runner.podman_command import own_ceiling, podman_environment
from services.sandbox_runner.profile import Ceiling

_START_SECONDS = 60.0

logger = structlog.get_logger(__name__)


class PodmanService:
    """Finds or starts the service; ``api`` is usable between ``start`` and ``stop``.

    Args:
        url: the operator's service; then nothing is started here.
        runtime: the OCI runtime to use; a service that runs already cannot be told, so one is started.
    """

    def __init__(self, url: str | None = None, runtime: str | None = None) -> None:
        self._url = url
        self._runtime = runtime
        self._process: asyncio.subprocess.Process | None = None
        self._directory: Path | None = None
        self.api: PodmanApi | None = None
        self.ceiling = Ceiling()

    async def start(self) -> PodmanApi:
        """Connect, starting a service if none runs.

        Raises:
            Later: Podman is missing, too old, or does not answer.
        """
        if self._url:
            self.api = PodmanApi(self._url)
            await self.api.ping()
            return self.api
        if not self._runtime and (api := await _running()) is not None:
            self.api = api
            return api
        return await self._start_own()

    async def _start_own(self) -> PodmanApi:
        # A unix socket's path is at most 107 bytes, so it cannot lie below a home of any length.
        self._directory = Path(tempfile.mkdtemp(prefix="millrace-podman-"))
        url = f"unix://{self._directory}/s"
        command = [
            "podman",
            *([f"--runtime={self._runtime}"] if self._runtime else []),
            "system",
            "service",
            "--time=0",
            url,
        ]
        if shutil.which("setpriv"):  # the service ends with this process, however that ends
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]
        log = (self._directory / "log").open("wb")
        try:
            # A session of its own: Ctrl-C in a terminal must leave it the time to remove the sandboxes.
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=podman_environment(),
                cwd=self._directory,  # conmon writes a file `oom` to where it was started
                start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise Later(
                "Podman is not installed: install the package podman", kind="podman_missing"
            ) from error
        finally:
            log.close()
        self.ceiling = own_ceiling()
        self.api = PodmanApi(url)
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    with suppress(Later):
                        await self.api.ping()
                        return self.api
                    if self._process.returncode is not None:
                        raise Later(
                            f"the Podman service ended at once: {self._words()}", kind="podman_failed"
                        )
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise Later(
                f"the Podman service did not come up in {_START_SECONDS:.0f} s: {self._words()}",
                kind="podman_unavailable",
            ) from error

    def _words(self) -> str:
        if self._directory is None:
            return ""
        return (self._directory / "log").read_text(errors="replace").strip()[-400:]

    async def stop(self) -> None:
        """Close the connections; end the service if it was started here. Containers go on."""
        if self.api is not None:
            self.api.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


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
