"""What a killed runner left: its living sandboxes go on, everything else of it goes.

At the start this runner takes over what the last one of its name held, as far as the log still wants it.
Later, every few seconds, it removes what nobody holds: containers that a failed call left, sandboxes of
runs that went on without them, and the remains of runners that died and were not started again.
"""

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

import structlog

from contracts.envelope import RunKey
from services.kit.errors import Later, MillraceError, Refused
from services.kit.log import Log
from services.sandbox_runner.box import Record
from services.sandbox_runner.held import Held, Shelf
from services.sandbox_runner.mirror import Mirror
from services.sandbox_runner.podman import PodmanSandbox
from services.sandbox_runner.podman_host import PodmanHost
from services.sandbox_runner.podman_service import service_directory
from services.sandbox_runner.pool import IDLE_SECONDS
from services.sandbox_runner.process import kill_left_behind
from services.sandbox_runner.sandbox import SandboxGone
from services.sandbox_runner.slot import living, vacant
from services.sandbox_runner.standing import Unrecorded, Unwanted, Wanted, is_named, standing

LOOK_SECONDS = 10.0
GRACE = 20.0
"""Seconds for which a dead runner's things are left to a successor of its name."""
UNRECORDED = 600.0
"""Seconds that the fact of a prepared sandbox may take into the log."""
_LOG_SECONDS = 20.0

logger = structlog.get_logger(__name__)


async def is_ours(log: Log, runner: str, key: RunKey, sandbox_id: str) -> bool:
    """Whether the log names this runner as the one that holds a sandbox."""
    return is_named([recorded.fact for recorded in await log.read(key)], sandbox_id, runner)


class Keeper:
    """Keeps order among the containers of one home's runners.

    Args:
        home: the home of this runner and its neighbours.
        log: says which sandboxes are still wanted.
    """

    def __init__(self, *, host: PodmanHost, shelf: Shelf, mirror: Mirror, log: Log, home: Path) -> None:
        self._host = host
        self._shelf = shelf
        self._mirror = mirror
        self._log = log
        self._home = home
        self._dead_since: dict[str, float] = {}
        self._keeping: asyncio.Task[None] | None = None

    async def clean(self) -> None:
        """Remove the programs and files that the last runner of this name left; before any work begins."""
        ended = kill_left_behind(self._host.runner)
        if ended:
            logger.info("programs of the last runner ended", number=ended)
        self._host.sweep()
        await self._mirror.tidy()

    async def recover(self) -> None:
        """Take over the containers of the last runner of this name; each is adopted or removed."""
        await asyncio.gather(*(self._take_over(record) for record in self._host.unheld()))
        for look in (self._remove_orphans, self._tell_lost):
            try:
                await look()
            except Later as error:  # it comes round again
                logger.info("keeping order has to wait", what=look.__name__, why=str(error))

    def start(self) -> None:
        """Go on looking in the background."""
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Look no more."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    def note_stopping(self) -> None:
        """Say before an orderly end which sandboxes will be gone, for whoever looks next."""
        for held in self._shelf.held():
            if held.confirmed:
                self._tombstone(held.sandbox_id)

    async def _take_over(self, record: Record) -> None:
        try:
            taken = await self._adopted(record)
        except (SandboxGone, Refused, Later) as error:
            logger.info("a container of the last runner is of no use", box=record.box, why=str(error))
            taken = False
            if record.sandbox:
                await self._shelf.tell_lost(record.sandbox)
        if not taken:
            await self._remove(record.container or record.box, record.box)

    async def _adopted(self, record: Record) -> bool:
        if not record.sandbox:
            if not self._host.is_current(record, IDLE_SECONDS):
                return False
            self._host.pool.put(await self._host.adopt(record))
            return True
        if record.key is None:
            return False
        stands = await self._standing(record.key, record.sandbox)
        if not isinstance(stands, Wanted):
            return False
        box = await self._host.adopt(record)
        if not await self._mirror.has(record.key.repository_id, stands.base):
            raise SandboxGone("the repository's mirror was evicted")
        sandbox = PodmanSandbox(self._host, self._mirror.path(record.key.repository_id), box=box)
        await self._shelf.put(record.sandbox, sandbox, stands.base, record.key)
        logger.info("sandbox adopted", sandbox=record.sandbox, run=record.key.run)
        return True

    async def _standing(
        self, key: RunKey, sandbox_id: str, runner: str = ""
    ) -> Unrecorded | Unwanted | Wanted:
        deadline = time.monotonic() + _LOG_SECONDS
        while True:
            try:
                history = [recorded.fact for recorded in await self._log.read(key)]
            except Later:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)
            else:
                return standing(history, sandbox_id, runner or self._host.runner)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks = (
                self._drop_unwanted,
                self._remove_orphans,
                self._bury_the_dead,
                self._tell_lost,
                self._evict,
            )
            for look in looks:
                try:
                    await look()
                except MillraceError as error:
                    logger.info("keeping order has to wait", what=look.__name__, why=str(error))
                except Exception:
                    logger.exception("keeping order failed")

    async def _drop_unwanted(self) -> None:
        """Sandboxes whose end this runner did not hear of."""
        for held in self._shelf.held():
            stands = await self._standing(held.key, held.sandbox_id)
            waited = time.monotonic() - held.since
            if isinstance(stands, Unwanted) or (isinstance(stands, Unrecorded) and waited > UNRECORDED):
                logger.info("a sandbox that nobody wants", sandbox=held.sandbox_id)
                await self._drop(held)

    async def _drop(self, held: Held) -> None:
        if held in self._shelf.held():
            await self._shelf.drop(held.sandbox_id)

    async def _remove_orphans(self) -> None:
        for orphan in await self._host.list_orphans():
            logger.info("a container that nobody holds", box=orphan.box, sandbox=orphan.sandbox_id)
            await self._remove(orphan.container, orphan.box)

    async def _remove(self, container: str, box: str) -> None:
        try:
            await self._host.remove(container, box)
        except MillraceError as error:  # stuck in Podman, perhaps; the next look tries again
            logger.warning("a container cannot be removed now", box=box, why=str(error))

    async def _bury_the_dead(self) -> None:
        """Remove what runners left that died and whose name nobody took again."""
        alive = living(self._home / "runners")
        places = {
            path.name: path for path in (self._home / "sandboxes").glob("*-*") if path.name not in alive
        }
        self._dead_since = {
            name: self._dead_since.get(name, time.monotonic()) for name in places if name != self._host.runner
        }
        for name, since in list(self._dead_since.items()):
            if time.monotonic() - since > GRACE:
                await self._bury(name, places[name])

    async def _bury(self, name: str, place: Path) -> None:
        with vacant(self._home / "runners", name) as ours:
            if not ours:  # somebody took the name again
                return
            logger.info("a runner died and did not come back", runner=name)
            kill_left_behind(name)
            dead = PodmanHost(self._host.api, name, place, self._host.ceiling)
            for record in dead.unheld():
                if record.key and isinstance(await self._standing(record.key, record.sandbox, name), Wanted):
                    self._tombstone(record.sandbox)
                await dead.discard(record)
            for orphan in await dead.list_orphans():
                await dead.remove(orphan.container, orphan.box)
            for path in (place, service_directory(name)):
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def _evict(self) -> None:
        await self._mirror.evict()

    async def _tell_lost(self) -> None:
        """Answer for sandboxes that are known to be gone: their runs need not wait for a sign of life."""
        await self._shelf.forget_lost()
        for path in self._tombstones().glob("*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > GRACE + 5 * LOOK_SECONDS:
                    path.unlink()
                    continue
            await self._shelf.tell_lost(path.name)

    def _tombstones(self) -> Path:
        return self._home / "sandboxes" / "lost"

    def _tombstone(self, sandbox_id: str) -> None:
        self._tombstones().mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._tombstones() / sandbox_id).touch()
