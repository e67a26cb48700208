"""Real projects, fetched by this machine's own package managers from where it is set up to fetch."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec


class Real(msgspec.Struct, frozen=True):
    """A project with its tests.

    ``settings`` is a ``.millrace.toml`` for what detection cannot know; empty where it is not needed.
    """

    name: str
    kind: str
    fetch: Callable[[Path], None]
    settings: str = ""


def sdist(requirement: str) -> Callable[[Path], None]:
    """A source distribution from the Python index."""

    def fetch(target: Path) -> None:
        argv = ["pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", requirement]
        _run(["python3", "-m", *argv, "--dest", str(target.parent)])
        _unpack(next(target.parent.glob("*.tar.gz")), target)

    return fetch


def npm(package: str) -> Callable[[Path], None]:
    """A package from the npm registry."""

    def fetch(target: Path) -> None:
        _run(["npm", "pack", "--silent", package, "--pack-destination", str(target.parent)])
        _unpack(next(target.parent.glob("*.tgz")), target)

    return fetch


def debian(package: str, inside: str) -> Callable[[Path], None]:
    """A directory of a Debian package that holds sources, such as those of Go libraries."""

    def fetch(target: Path) -> None:
        _run(["apt-get", "download", package], cwd=target.parent)
        _run(["dpkg", "-x", str(next(target.parent.glob("*.deb"))), str(target.parent / "root")])
        shutil.copytree(target.parent / "root" / inside, target, symlinks=True)

    return fetch


def debian_source(package: str) -> Callable[[Path], None]:
    """A Debian source package, from the archive that this machine's apt uses."""

    def fetch(target: Path) -> None:
        place = target.parent
        fields = "deb-src [signed-by=$(SIGNED_BY)] $(REPO_URI) $(RELEASE) $(COMPONENT)"
        lines = _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]).splitlines()
        main = [line for line in lines if line.endswith(" main") and line.count("-") == 2]
        (place / "sources.list").write_text(main[0].replace("[signed-by=]", "") + "\n")
        (place / "lists/partial").mkdir(parents=True)
        options = [
            f"-o=Dir::Etc::SourceList={place}/sources.list",
            "-o=Dir::Etc::SourceParts=-",
            f"-o=Dir::State::Lists={place}/lists",
            f"-o=Dir::Cache={place}",
            "-o=APT::Sandbox::User=root",
        ]
        _run(["apt-get", *options, "--quiet", "update"])
        _run(["apt-get", *options, "--quiet", "--download-only", "source", package], cwd=place)
        _unpack(next(path for path in place.glob("*.orig.tar.*") if path.suffix != ".asc"), target)

    return fetch


PROJECTS = (
    Real("flask", "Python", sdist("flask")),
    Real("more-itertools", "Python", sdist("more-itertools")),
    Real("qs", "Node", npm("qs"), '[test]\ncommand = "npm run --silent tests-only"\n'),
    Real(
        "cobra",
        "Go",
        debian("golang-github-spf13-cobra-dev", "usr/share/gocode/src/github.com/spf13/cobra"),
    ),
    Real("bzip2", "C, make", debian_source("bzip2")),
)


def _run(argv: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


def _unpack(archive: Path, target: Path) -> None:
    """The one directory that an archive holds."""
    into = target.parent / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (top,) = into.iterdir()
    top.rename(target)
