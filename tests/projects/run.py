"""One project's tests twice: set up through the proxy and run offline in the hardened profile, and outside.

Outside is the same image without any of it: plain Podman with the machine's own network. Both install and
run the same commands, so whatever differs comes from the sandbox.
"""

import asyncio
import shlex
import shutil
import time
import uuid
from pathlib import Path

import msgspec

from contracts.change import Change
from contracts.facts import TestCounts
from services.sandbox_runner.grounds import Ground
from services.sandbox_runner.inside import program
from services.sandbox_runner.podman_command import run_podman, working_runtime
from services.sandbox_runner.reports import Tests, count, read_reports
from services.sandbox_runner.setup_rules import (
    BUNDLE,
    EVERYTHING,
    JAVA_STORE,
    later_environment,
    path,
    setup_environment,
)
from services.sandbox_runner.verification import Verifier
from services.sandbox_runner.wrapping import unpack, wrapped
from tests.integration.sandbox_kit import git
from tests.integration.setup_kit import LIMITS, Yard, machine_certificates, machine_rules
from tests.projects.fetch import Real

_MARK = "--- millrace:"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a project's tests in one place."""

    exit_code: int | None
    seconds: float
    tests: Tests
    output: str

    @property
    def counts(self) -> TestCounts:
        """How many passed, failed and were skipped."""
        return count(self.tests) or TestCounts()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Both places."""

    project: Real
    ground: Ground
    inside: Seen
    outside: Seen

    @property
    def same(self) -> bool:
        """Whether every test came to the same end, and the commands too."""
        return (self.inside.exit_code, self.inside.tests) == (self.outside.exit_code, self.outside.tests)


async def run(yard: Yard, project: Real, directory: Path) -> Result:
    """Fetch it, set it up and run its tests, inside and outside."""
    source_directory = await asyncio.to_thread(_fetched, project, directory)
    source = await yard.take(source_directory)
    ground = await yard.ground(source, machine_rules(yard.image.hosts))
    verifier = Verifier(yard.host, yard.mirror, LIMITS, 900.0)
    tree = git(source_directory, "rev-parse", "HEAD^{tree}")
    name = f"t{uuid.uuid4().hex[:12]}"
    checked = await verifier.check(ground, name, source.key, Change(base=source.base, tree=tree))
    inside = Seen(
        exit_code=checked.check.exit_code,
        seconds=checked.check.seconds,
        tests=checked.tests,
        output=checked.check.output,
    )
    return Result(
        project=project, ground=ground, inside=inside, outside=await _outside(yard, ground, directory)
    )


def _fetched(project: Real, directory: Path) -> Path:
    directory.mkdir()
    source = directory / "source"
    project.fetch(source)
    if project.settings:
        (source / ".millrace.toml").write_text(project.settings)
    return source


async def _outside(yard: Yard, ground: Ground, directory: Path) -> Seen:
    """The same commands in plain Podman."""
    workspace, deps, own = directory / "workspace", directory / "deps", directory / "own"
    git(directory, "clone", "--quiet", str(directory / "source"), str(workspace))
    own.mkdir()
    deps.mkdir()
    (own / "ca.pem").write_text(machine_certificates())
    for place in (workspace, deps, own):
        _open_to_all(place)
    settings = ground.project.settings
    without = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}
    rules = machine_rules(())
    setting_up = {k: v for k, v in setup_environment(rules, settings).items() if k not in without}
    top = ground.stored.top if ground.stored is not None else ()
    script = "\n".join(
        [
            "git config --global --add safe.directory '*'",
            f"python3 -c {shlex.quote(program('trust'))} /run/own/ca.pem {BUNDLE} {JAVA_STORE}",
            "(",
            *(f"export {name}={shlex.quote(value)}" for name, value in setting_up.items()),
            f"export PATH={':'.join(path(EVERYTHING))}:$PATH; set -e",
            *ground.project.setup,
            ") || exit 99",
            *(
                f"export {name}={shlex.quote(value)}"
                for name, value in later_environment(top, settings).items()
            ),
            "unset GOPROXY; export SSL_CERT_FILE=" + BUNDLE,
            f"export PATH={':'.join([*path(top), '$PATH'])}",
            "begin=$(date +%s.%N)",
            f"( {wrapped(ground.project.test_command or 'true')}\n)",
            "code=$?",
            f"echo; echo '{_MARK}' $code $(date +%s.%N) $begin",
            f"python3 -I -S -c {shlex.quote(program('collect'))}",
        ]
    )
    (own / "script").write_text(script)
    runtime = await working_runtime(yard.image.name, None, directory / "runtime")
    began = time.monotonic()
    text = await run_podman(
        [
            *([f"--runtime={runtime}"] if runtime else []),
            *("run", "--rm", "--network=host", "--user=1000:1000", "--log-driver=none", "--http-proxy=false"),
            *(
                "--ulimit=nofile=4096",
                "--ulimit=nproc=4096",
                "--workdir=/workspace",
                "--env=HOME=/home/agent",
            ),
            *("--env=LANG=C.UTF-8", "--env=USER=agent", "--env=TERM=dumb"),
            "--mount=type=tmpfs,destination=/home/agent,tmpfs-mode=1777",
            f"--volume={workspace}:/workspace",
            f"--volume={deps}:/deps",
            f"--volume={own}:/run/own",
            yard.image.name,
            *("bash", "/run/own/script"),
        ],
        seconds=1200,
    )
    output, _, rest = text.rpartition(f"\n{_MARK}")
    first, _, packed = rest.partition("\n")
    code, end, begin = first.split()
    tests = read_reports(unpack(packed.strip()), output)
    shutil.rmtree(deps)
    took = float(end) - float(begin)
    assert took < time.monotonic() - began
    return Seen(exit_code=int(code), seconds=took, tests=tests, output=output[-20_000:])


def _open_to_all(place: Path) -> None:
    """Another user's process works in it."""
    place.chmod(0o777)
    for path_ in place.rglob("*"):
        if not path_.is_symlink():
            path_.chmod(path_.stat().st_mode | (0o777 if path_.is_dir() else 0o666))
