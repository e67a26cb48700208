"""The sandbox image: built from the Containerfile in ``deploy/sandbox``, once per digest of its inputs.

The base comes from a registry, or where none can be reached, from the package archive that this machine's
own apt uses, with debootstrap.
"""

import asyncio
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from services.kit.errors import Later, MillraceError
from services.sandbox_runner.podman_command import run_podman
from services.sandbox_runner.process import run_process

NAME = "localhost/millrace-sandbox"
_BASE = "localhost/millrace-base"
_REGISTRY_BASE = "docker.io/library/debian:bookworm-slim"
_COMPONENTS = frozenset({"main", "universe"})
"""Debian's and Ubuntu's names for where the image's packages are."""
_REACH_SECONDS = 3.0
_PULL_SECONDS = 300.0
_BUILD_SECONDS = 1200.0
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

_STAGE = re.compile(r"I: (Resolving|Checking component|Extracting packages|Installing|Base system)")
_SHOWN_EACH = 50

Tell = Callable[[str], None]


_FILES = ("Containerfile", "install.sh")
_MOMENT = "1735689600"
"""The time of every file that a build makes (seconds since 1970), so that two builds can be compared."""


def containerfile() -> bytes:
    """The whole recipe as installed: the Containerfile and what it copies, one after the other."""
    return b"\0".join(_file(name) for name in _FILES)


def _file(name: str) -> bytes:
    return (resources.files("deploy") / "sandbox" / name).read_bytes()


def image_name(recipe: bytes) -> str:
    """The image that this Containerfile makes; another recipe has another name."""
    return f"{NAME}:{hashlib.sha256(recipe).hexdigest()[:16]}"


async def ensure_image(tell: Tell = print) -> str:
    """The name of the built image, which is built first if it is not here.

    Args:
        tell: is given lines about the progress.

    Raises:
        Later: it could not be built; the text says what is missing.
    """
    recipe = containerfile()
    name = image_name(recipe)
    if await _exists(name):
        return name
    tell(f"building {name} (once; a few minutes)")
    base = await _base(tell)
    await _build(base, name, tell)
    tell(f"built {name}")
    return name


async def _exists(name: str) -> bool:
    try:
        await run_podman(["image", "exists", name], seconds=30)
    except Later as error:
        if error.kind == "podman_failed":
            return False
        raise
    return True


async def _base(tell: Tell) -> str:
    if await _exists(_REGISTRY_BASE):
        return _REGISTRY_BASE
    suite = _os_release().get("VERSION_CODENAME", "")
    own = f"{_BASE}:{suite or 'unknown'}"
    if await _exists(own):
        return own
    if await _reachable("registry-1.docker.io"):
        tell(f"pulling {_REGISTRY_BASE}")
        try:
            await run_podman(["pull", "--quiet", _REGISTRY_BASE], seconds=_PULL_SECONDS, env=_proxies())
        except Later as error:
            tell(f"no base image from the registry: {error}")
        else:
            return _REGISTRY_BASE
    await _bootstrap(suite, own, tell)
    return own


async def _reachable(host: str) -> bool:
    """Whether a registry answers at all; behind a proxy only the pull itself can tell."""
    if _proxies():
        return True
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            _, writer = await asyncio.open_connection(host, 443)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _bootstrap(suite: str, name: str, tell: Tell) -> None:
    """A minimal system of this machine's own release as an image, from the package archive alone."""
    mirror, components = await _archive(suite)
    if shutil.which("debootstrap") is None or os.geteuid() != 0 or not mirror:
        raise Later(
            "the sandbox image needs a base: neither a registry nor debootstrap is usable here. Install the"
            " package debootstrap and run as root, or load debian:bookworm-slim with `podman load`",
            kind="image_no_base",
        )
    tell(f"no registry answers; making a base from {urlsplit(mirror).netloc} with debootstrap")
    with tempfile.TemporaryDirectory(prefix="millrace-base-") as directory:
        root = Path(directory, "root")
        wanted = ["--variant=minbase", f"--components={','.join(components)}"]
        await _command(["debootstrap", *wanted, suite, str(root), mirror], tell)
        archive = Path(directory, "base.tar")
        skipped = [
            f"--exclude=./{path}/*" for path in ("dev", "proc", "sys", "var/cache/apt", "var/lib/apt/lists")
        ]
        await _command(["tar", "-C", str(root), *skipped, "--numeric-owner", "-cf", str(archive), "."], tell)
        tell("importing the base")
        await run_podman(["import", "--quiet", str(archive), name], seconds=_PULL_SECONDS)


async def _archive(suite: str) -> tuple[str, list[str]]:
    """Where apt gets this release from, and which components; nothing where there is no apt."""
    if not suite or shutil.which("apt-get") is None:
        return "", []
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    argv = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    done = await run_process(argv, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, seconds=30)
    rows = [line.split(" ") for line in done.output.decode("utf-8", "replace").splitlines()]
    rows = [row for row in rows if len(row) == len(fields.split(" ")) and row[1] == suite]
    mirror = next((uri for uri, _, component in rows if component == "main"), "")
    return mirror, sorted({component for uri, _, component in rows if uri == mirror} & _COMPONENTS)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


async def _command(argv: list[str], tell: Tell) -> None:
    def stage(line: str) -> None:
        if _STAGE.match(line):
            tell(line[3:])

    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **_proxies()}
    try:
        done = await run_process(argv, env=env, seconds=_BUILD_SECONDS, on_line=stage)
    except TimeoutError as error:
        raise Later(f"{argv[0]} took longer than {_BUILD_SECONDS:.0f} s", kind="image_failed") from error
    if done.code:
        last = done.output.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Later(f"{argv[0]} ended with {done.code}: {' '.join(last)[:300]}", kind="image_failed")


async def _build(base: str, name: str, tell: Tell) -> None:
    installed = 0

    def progress(line: str) -> None:
        nonlocal installed
        installed += line.startswith("Setting up ")
        if line.startswith("Setting up ") and installed % _SHOWN_EACH == 0:
            tell(f"{installed} packages installed")
        if line.startswith(("STEP", "E:", "Error")):
            tell(line[:100])

    with tempfile.TemporaryDirectory(prefix="millrace-image-") as context:
        _lay_out(Path(context))
        arguments = ["build", "--isolation=chroot", "--network=host", "--pull=never", "--format=oci"]
        arguments += [f"--timestamp={_MOMENT}", f"--build-arg=VERSION={_version()}"]
        arguments += [f"--build-arg=BASE_IMAGE={base}", f"--tag={name}", context]
        await run_podman(arguments, seconds=_BUILD_SECONDS, on_line=progress, env=_proxies())


def _lay_out(context: Path) -> None:
    for name in _FILES:
        (context / name).write_bytes(_file(name))


def _version() -> str:
    """Millrace's own, for the image's label."""
    try:
        return version("millrace")
    except PackageNotFoundError:
        return "0"


def _proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in _PROXIES if os.environ.get(name)}


def main() -> int:
    """Build the image and print its name last."""
    try:
        name = asyncio.run(ensure_image(lambda line: print(line, file=sys.stderr, flush=True)))  # noqa: T201
    except MillraceError as error:
        print(f"millrace: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(name)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
