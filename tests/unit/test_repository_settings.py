"""``.millrace.toml``: what can be said in it, and what is said about mistakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox_runner.repository_settings import Read, RepositorySettings, matches, read_settings

WHOLE = """
[sandbox]
image = "registry.example.org/ci/python:3.12@sha256:0123"

[setup]
commands = ["./bootstrap", " pip install -r dev.txt "]
hosts = ["default", "git.example.org"]
install-scripts = true
inputs = ["tools/*.lock"]

[test]
command = "make check"
minutes = 2.5

[environment]
DJANGO_SETTINGS_MODULE = "site.settings"

[limits]
files = 20
bytes = 100_000

[policy]
protected = ["deploy/", "*.pem"]
"""


def test_everything_can_be_said() -> None:
    assert read_settings(WHOLE) == Read(
        settings=RepositorySettings(
            image="registry.example.org/ci/python:3.12@sha256:0123",
            setup=("./bootstrap", "pip install -r dev.txt"),
            hosts=("default", "git.example.org"),
            install_scripts=True,
            inputs=("tools/*.lock",),
            test="make check",
            test_minutes=2.5,
            environment={"DJANGO_SETTINGS_MODULE": "site.settings"},
            files=20,
            size=100_000,
            protected=("deploy/", "*.pem"),
        )
    )


def test_no_file_and_an_empty_file_say_nothing() -> None:
    assert read_settings(None) == read_settings("") == Read()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[tests]\ncommand='x'", "no key tests; did you mean test?", id="a section"),
        pytest.param("[test]\ncomand='x'", "no key test.comand; did you mean command?", id="a key"),
        pytest.param("[setup]\nsudo=1", "setup.sudo; known are: commands, hosts, install", id="far off"),
        pytest.param("test.'a\\u202eb'=1", "test.a\\u202eb", id="a literal key"),
        pytest.param('test."a\\u202eb"=1', "test.a?b", id="a key that hides itself"),
    ],
)
def test_unknown_keys_are_named_and_passed_over(text: str, words: str) -> None:
    read = read_settings(text)
    assert read.settings == RepositorySettings()
    assert read.wrong == ()
    assert words in read.unknown[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[test", "not valid TOML", id="no TOML"),
        pytest.param("a = " + "[" * 5000, "not valid TOML", id="depth"),
        pytest.param("test = 'x'", "write [test]", id="a text for a table"),
        pytest.param("[test]\ncommand = 3", "test.command is not a text", id="a number for a text"),
        pytest.param("[test]\ncommand = '  '", "test.command is not a text", id="blank"),
        pytest.param("[test]\nminutes = 0", "test.minutes is not a number", id="no time"),
        pytest.param("[test]\nminutes = true", "test.minutes is not a number", id="a flag for a number"),
        pytest.param("[test]\nminutes = nan", "test.minutes is not a number", id="nan"),
        pytest.param("[setup]\ncommands = 'x'", "setup.commands is not a list", id="a text for a list"),
        pytest.param("[setup]\nhosts = ['*.example.org']", "holds *.example.org", id="a wildcard"),
        pytest.param("[setup]\nhosts = ['10.0.0.1:443']", "holds 10.0.0.1:443", id="a port"),
        pytest.param("[setup]\nhosts = ['https://a.example']", "https://a.example", id="an address"),
        pytest.param("[setup]\nhosts = ['EXAMPLE.org']", "small letters", id="capitals"),
        pytest.param("[setup]\nhosts = ['localhost']", "holds localhost", id="a name without a dot"),
        pytest.param("[setup]\ninstall-scripts = 'yes'", "neither true nor false", id="a text for a flag"),
        pytest.param("[sandbox]\nimage = '--privileged'", "not the name of an image", id="an option"),
        pytest.param("[limits]\nfiles = -1", "limits.files is not a whole number", id="negative"),
        pytest.param("[environment]\nLD_PRELOAD = 'x'", "LD_PRELOAD, which cannot be set", id="reserved"),
        pytest.param("[environment]\nA = 1", "holds A, whose value is not a text", id="no text"),
        pytest.param("[policy]\nprotected = ['/']", "not a pattern", id="an empty pattern"),
    ],
)
def test_what_cannot_be_followed_is_named(text: str, words: str) -> None:
    read = read_settings(text)
    assert words in read.wrong[0]
    assert read.settings == RepositorySettings()


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    read_settings(text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("deploy/", ["deploy/a", "deploy/b/c", "x/deploy/a"], ["deployed/a", "deploy"]),
        ("deploy/**", ["deploy/a", "deploy/b/c"], ["deploy.py"]),
        ("deploy", ["deploy", "deploy/a", "x/deploy", "x/deploy/y"], ["deploys"]),
        ("*.pem", ["a.pem", "x/y/b.pem"], ["a.pem.txt", "pem"]),
        ("src/*/secret.py", ["src/a/secret.py"], ["src/a/b/secret.py", "src/secret.py"]),
        ("src/**/secret.py", ["src/secret.py", "src/a/b/secret.py"], ["secret.py"]),
        ("/setup.py", ["setup.py"], ["x/setup_py"]),
        ("a?c", ["abc"], ["a/c", "abbc"]),
        ("a.c", ["a.c"], ["abc"]),
        ("**/x/**", ["x/y", "a/b/x/c"], ["y/z"]),
        ("*/" * 200 + "b", ["/".join("a" * 200) + "/b"], ["a/" * 300 + "c"]),
        ("*a" * 100, ["a" * 4000], ["a" * 4000 + "b"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes + no if matches(pattern, path)] == yes
