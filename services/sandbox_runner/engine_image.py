"""The sandbox image with Claude Code: built on top of the sandbox image, once per digest of its inputs.

npm fetches what ``deploy/sandbox/claude-code/package-lock.json`` pins, with this machine's own settings and
without running anybody's install scripts; only the binary goes into the image.
"""

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from services.kit.errors import Later, MillraceError
from services.sandbox_runner.image import Tell, ensure_image
from services.sandbox_runner.podman_command import run_podman
from services.sandbox_runner.process import run_process

NAME = "localhost/millrace-sandbox-claude-code"
_INPUTS = ("Containerfile", "package.json", "package-lock.json")
_FETCH_SECONDS = 600.0
_BUILD_SECONDS = 600.0
_SECRETS = ("MILLRACE_", "ANTHROPIC_")
_OWN = "set MILLRACE_SANDBOX_IMAGE to an image of your own that has `claude`"


def engine_image_name(base: str) -> str:
    """The image that is made on top of ``base``; other inputs have another name."""
    digest = hashlib.sha256(base.encode())
    for name in _INPUTS:
        digest.update(_input(name))
    return f"{NAME}:{digest.hexdigest()[:16]}"


async def ensure_engine_image(base: str, tell: Tell = print) -> str:
    """The name of the built image, which is built first if it is not here.

    Raises:
        Later: it could not be built; the text says what is missing.
    """
    name = engine_image_name(base)
    try:
        await run_podman(["image", "exists", name], seconds=30)
    except Later as error:
        if error.kind != "podman_failed":
            raise
    else:
        return name
    tell(f"building {name} (once; Claude Code is about 190 MB to fetch)")
    with tempfile.TemporaryDirectory(prefix="millrace-engine-") as directory:
        context = Path(directory)
        for file in _INPUTS:
            (context / file).write_bytes(_input(file))
        await _fetch(context)
        arguments = ["build", "--isolation=chroot", "--network=host", "--pull=never", "--format=oci"]
        arguments += [f"--build-arg=BASE_IMAGE={base}", f"--tag={name}", str(context)]
        await run_podman(arguments, seconds=_BUILD_SECONDS)
    tell(f"built {name}")
    return name


async def _fetch(context: Path) -> None:
    """Put the binary for this machine into the context as ``claude``."""
    if shutil.which("npm") is None:
        raise Later(f"Claude Code is fetched with npm: install it, or {_OWN}", kind="image_no_npm")
    argv = [
        "npm",
        "ci",
        f"--prefix={context}",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    # npm is the operator's own: its registry, proxy and certificates are in its settings.
    env = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    try:
        done = await run_process(argv, env=env, seconds=_FETCH_SECONDS)
    except TimeoutError as error:
        raise Later(f"npm took longer than {_FETCH_SECONDS:.0f} s", kind="image_failed") from error
    if done.code:
        last = (done.output + done.errors).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Later(f"npm ended with {done.code}: {' '.join(last)[:300]}", kind="image_failed")
    _keep_binary(context)


def _keep_binary(context: Path) -> None:
    found = sorted(context.glob("node_modules/@anthropic-ai/claude-code-linux-*/claude"))
    found = [file for file in found if "musl" not in str(file)] or found
    if not found:
        raise Later(f"there is no Claude Code for this machine; {_OWN}", kind="image_failed")
    found[0].chmod(0o755)
    found[0].rename(context / "claude")
    shutil.rmtree(context / "node_modules")


def _input(name: str) -> bytes:
    return (resources.files("deploy") / "sandbox" / "claude-code" / name).read_bytes()


def main() -> int:
    """Build the image and print its name last."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    async def build() -> str:
        return await ensure_engine_image(await ensure_image(tell), tell)

    try:
        print(asyncio.run(build()))  # noqa: T201
    except MillraceError as error:
        print(f"millrace: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
