"""How a repository is set up and tested, from its names and a few files (pure).

The repository's own ``.millrace.toml`` comes first; without one the first kind of project that fits is
taken. What was found is said in ``about``, for the agent and for people.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from services.sandbox_runner import detect_python
from services.sandbox_runner.repository_settings import FILE, Read, RepositorySettings, matches, read_settings

SETTINGS = FILE
READ = (SETTINGS, "package.json", "Makefile", "GNUmakefile", *detect_python.READ)
"""The files whose contents ``detect`` wants."""

_NO_NPM_TEST = "no test specified"  # what `npm init` writes
_LOCKS = (
    "requirements*.txt",
    "*requirements.txt",
    "requirements/*.txt",
    "constraints*.txt",
    *("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "Pipfile.lock", "poetry.lock", "uv.lock"),
    *("package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", ".npmrc"),
    *("go.mod", "go.sum", "go.work", "go.work.sum", "Cargo.toml", "Cargo.lock", "rust-toolchain*"),
    *("pom.xml", "*.gradle", "*.gradle.kts", "gradle.properties", "gradle/wrapper/*", "libs.versions.toml"),
    SETTINGS,
)
"""What a setup depends on, at any depth: when one of these changes on the base, it runs again."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of project that fits: its name for people and what bash runs at the root."""

    name: str
    test: str
    setup: tuple[str, ...] = ()


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``test_command`` is for bash at the root, None if no way to test was found.

    ``setup`` prepares the dependencies and may use the network. ``about`` is a sentence for the agent;
    ``problem`` says what is wrong with the repository's own settings, and ``wrong`` that it is so wrong
    that nothing of them can be followed.
    """

    test_command: str | None
    about: str
    problem: str = ""
    wrong: bool = False
    setup: tuple[str, ...] = ()
    settings: RepositorySettings = RepositorySettings()


def detect(names: Collection[str], contents: Mapping[str, str]) -> Project:
    """What a repository tells.

    Args:
        names: the names at the root, directories with a slash at the end, and paths below
            ``requirements/`` and ``tests/``.
        contents: the texts of those files of ``READ`` that exist.
    """
    read = read_settings(contents.get(SETTINGS))
    settings = read.settings
    kind = next(iter(_candidates(names, contents, settings)), None)
    test = settings.test or (kind.test if kind else None)
    setup = settings.setup if settings.setup is not None else (kind.setup if kind else ())
    return Project(
        test_command=test,
        about=_about(settings, kind, setup),
        problem=" ".join((*read.wrong, *read.unknown)),
        wrong=bool(read.wrong),
        setup=setup,
        settings=settings,
    )


def inputs(paths: Collection[str], settings: RepositorySettings) -> list[str]:
    """Those paths whose contents a setup depends on; what lies in ``node_modules`` is not looked at."""
    patterns = (*_LOCKS, *settings.inputs)
    return sorted(
        path
        for path in paths
        if "node_modules/" not in path and any(matches(pattern, path) for pattern in patterns)
    )


def _about(settings: RepositorySettings, kind: Kind | None, setup: tuple[str, ...]) -> str:
    said = []
    if settings.test is not None:
        said.append(f"The repository's {SETTINGS} says how to test it: {settings.test}")
    elif kind is not None:
        said.append(f"This looks like a {kind.name}; its tests run with: {kind.test}")
    else:
        said.append("No way to run tests was recognised; say in your summary how you checked the change.")
    if setup:
        whose = (
            f"as its {SETTINGS} says" if settings.setup is not None else "as this kind of project usually is"
        )
        said.append(f"It is set up {whose}: {' && '.join(setup)}")
    return "\n".join(said)


def _candidates(
    names: Collection[str], contents: Mapping[str, str], settings: RepositorySettings
) -> list[Kind]:
    """What fits, most telling first."""
    scripts = settings.install_scripts
    found = []
    if detect_python.fits(names, contents):
        found.append(
            Kind(
                name="Python project",
                test="python3 -m pytest -q",
                setup=detect_python.setup(names, contents, scripts=scripts),
            )
        )
    package = _package(contents.get("package.json"))
    if _has_npm_test(package):
        found.append(Kind(name="Node project", test="npm test --silent", setup=_npm(names, package, scripts)))
    if "go.mod" in names:
        setup = () if "vendor/" in names else ("go mod download",)
        found.append(Kind(name="Go module", test="go test ./...", setup=setup))
    if "Cargo.toml" in names:
        locked = " --locked" if "Cargo.lock" in names else ""
        found.append(Kind(name="Rust package", test="cargo test --quiet", setup=(f"cargo fetch{locked}",)))
    found += _java(names)
    found += _make(names, contents)
    return found


def _npm(names: Collection[str], package: Mapping[str, Any], scripts: bool) -> tuple[str, ...]:
    wanted = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "workspaces")
    if not any(package.get(key) for key in wanted):
        return ()
    options = "--no-audit --no-fund --loglevel=error" + ("" if scripts else " --ignore-scripts")
    install = f"npm install --no-package-lock {options}"
    if {"package-lock.json", "npm-shrinkwrap.json"} & set(names):
        return (f"npm ci {options} || {install}",)
    return (install,)


def _java(names: Collection[str]) -> list[Kind]:
    found = []
    if "pom.xml" in names:
        # Maven fetches plugins when it runs them, so only running the tests fetches all that they need.
        fetch = "mvn --batch-mode --quiet --fail-at-end -Dmaven.test.failure.ignore=true test"
        found.append(Kind(name="Maven project", test="mvn --batch-mode --quiet test", setup=(fetch,)))
    if {"build.gradle", "build.gradle.kts"} & set(names):
        gradle = "./gradlew" if "gradlew" in names else "gradle"
        fetch = f"{gradle} --no-daemon --quiet --continue test || {gradle} --no-daemon --quiet testClasses"
        test = f"{gradle} --no-daemon --offline --quiet test"
        found.append(Kind(name="Gradle project", test=test, setup=(fetch,)))
    return found


def _make(names: Collection[str], contents: Mapping[str, str]) -> list[Kind]:
    found = []
    text = contents.get("GNUmakefile") or contents.get("Makefile")
    targets = [target for target in ("test", "check") if _has_target(text, target)]
    found += [Kind(name="project with a Makefile", test=f"make {target}") for target in targets]
    if "configure" in names and not text:
        found.append(Kind(name="project with a configure script", test="./configure && make && make check"))
    if "CMakeLists.txt" in names:
        build = "cmake -S . -B /tmp/build && cmake --build /tmp/build --parallel 2"
        test = f"{build} && ctest --test-dir /tmp/build --output-on-failure"
        found.append(Kind(name="CMake project", test=test))
    return found


def _package(text: str | None) -> Mapping[str, Any]:
    try:
        package = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return package if isinstance(package, dict) else {}


def _has_npm_test(package: Mapping[str, Any]) -> bool:
    scripts = package.get("scripts")
    script = scripts.get("test") if isinstance(scripts, dict) else None
    return isinstance(script, str) and bool(script.strip()) and _NO_NPM_TEST not in script


def _has_target(text: str | None, target: str) -> bool:
    return any(
        line.split("#")[0].startswith((f"{target}:", f"{target} :")) for line in (text or "").splitlines()
    )


__all__ = ["READ", "SETTINGS", "Kind", "Project", "Read", "detect", "inputs"]
