"""``millrace demo``: one issue becomes one pull request before your eyes."""

import asyncio
import contextlib
import importlib.util
import logging
import shutil
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path

import typer
from rich.console import Console

from services.kit import logs
from services.kit.errors import MillraceError, Misconfigured
from services.kit.settings import load

_INTERRUPTED = 130

logger = logging.getLogger(__name__)


def demo(*, live: bool, keep: bool) -> None:
    """Play it; exit code 0 only if the pull request exists and its tree passes the tests.

    Args:
        live: the real model works, with ANTHROPIC_API_KEY.
        keep: everything stays up at the end, until Ctrl-C.
    """
    if importlib.util.find_spec("tests") is None or importlib.util.find_spec("tests.doubles") is None:
        raise Misconfigured("the demo runs from a checkout of Millrace's repository: type `make demo` there")
    if missing := [name for name in ("git", "podman") if shutil.which(name) is None]:
        raise Misconfigured(
            f"the demo needs {' and '.join(missing)}: `make setup` installs what is missing, or says what to "
            "install; `millrace doctor` looks at the rest of this machine"
        )
    if load().anthropic_api_key is None and live:
        raise Misconfigured(
            "--live asks the real Claude and needs its key: set ANTHROPIC_API_KEY "
            "(or ANTHROPIC_API_KEY_FILE), then run `make demo MODEL=live` again"
        )
    from services.cli import demo_view  # noqa: PLC0415

    console = demo_view.console()
    console.print(demo_view.intro(live=live))
    from services.cli import demo_play  # noqa: PLC0415  takes seconds: all services and both doubles

    home = Path(tempfile.mkdtemp(prefix="millrace-demo-"))
    log = home / "millrace.log"
    code = 1
    try:
        with _logging_to(log):
            code = _run(console, demo_play.play(console, home, live=live, keep=keep))
    finally:
        if code not in (0, _INTERRUPTED):
            kept = shutil.copy(log, home.with_suffix(".log"))
            console.print(f"what happened inside stands in {kept}", style="dim", soft_wrap=True)
        shutil.rmtree(home, ignore_errors=True)
    raise typer.Exit(code)


def _run(console: Console, play: Coroutine[None, None, bool]) -> int:
    """The exit code. What went wrong unexpectedly is logged, not shown."""
    try:
        return 0 if asyncio.run(_stoppable(console, play)) else 1
    except asyncio.CancelledError:
        console.print("stopped; nothing is left behind")
        return _INTERRUPTED
    except MillraceError:
        logger.exception("the demo failed")
        raise
    except Exception as error:
        logger.exception("the demo failed")
        raise MillraceError(f"the demo failed ({type(error).__name__})") from None


async def _stoppable(console: Console, play: Coroutine[None, None, bool]) -> bool:
    """The first SIGINT or SIGTERM ends everything in order; more of them change nothing."""
    playing = asyncio.ensure_future(play)

    def stop() -> None:
        if not playing.cancelling():
            console.print("\nstopping …")
            playing.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return await playing


@contextlib.contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Everything that is logged goes there: the terminal is for the timeline."""
    logs.configure("info", "json")
    logging.captureWarnings(capture=True)
    with file.open("w") as stream:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(stream)
        yield
        logging.getLogger().handlers.clear()
