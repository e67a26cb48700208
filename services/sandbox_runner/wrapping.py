"""What is put before a test command so that it leaves a report; the command itself stays as it is (pure)."""

import base64
import binascii
import json
import re
import shlex
import zlib

from services.sandbox_runner.inside import program

_DIRECTORY = "/tmp/.millrace"  # noqa: S108  inside a sandbox of its own
_MOST = 32 * 1024 * 1024

# PYTEST_ADDOPTS reaches pytest wherever it is started from, make and tox included.
_PYTEST = f'export PYTEST_ADDOPTS="${{PYTEST_ADDOPTS-}} --junitxml={_DIRECTORY}/report.xml"'
_NODE = (
    "test_options='--test-reporter=spec --test-reporter-destination=stdout"
    f" --test-reporter=tap --test-reporter-destination={_DIRECTORY}/report.tap';"
    ' if [ -f package.json ] && NODE_OPTIONS="$test_options" node --version >/dev/null 2>&1;'
    ' then export NODE_OPTIONS="${NODE_OPTIONS-} $test_options"; fi; unset test_options'
)


def wrapped(command: str) -> str:
    """The command with what makes test runners report; it ends with the same exit code."""
    return f"mkdir -p {_DIRECTORY}; {_PYTEST}; {_NODE}; {_go()}\n{command}"


def _go() -> str:
    reader = f"python3 -I -S -c {shlex.quote(program('go_test'))}"
    return (
        'go() { if [ "${1-}" != test ] || [[ " $* " == *" -json "* ]]; then command go "$@"; return; fi;'
        f' shift; command go test -json "$@" 2>&1 | {reader}; return "${{PIPESTATUS[0]}}"; }}; export -f go'
    )


def objected(exit_code: int | None, output: str) -> bool:
    """Whether the command failed because of what was put before it: then it is to be run without."""
    if exit_code == 4:
        return "--junitxml" in output or "unrecognized arguments" in output
    return bool(exit_code) and "--test-reporter" in output and "not allowed in NODE_OPTIONS" in output


def unpack(text: str) -> tuple[tuple[str, str], ...]:
    """The reports that ``inside/collect.py`` wrote; none if they cannot be read."""
    if not re.fullmatch(r"[A-Za-z0-9+/=\n]*", text):
        return ()
    try:
        inflating = zlib.decompressobj()
        raw = inflating.decompress(base64.b64decode(text), _MOST)
        found = json.loads(raw) if inflating.eof else []
        return tuple((str(name), str(content)) for name, content in found)
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
        return ()
