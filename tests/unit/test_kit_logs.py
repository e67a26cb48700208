"""Logs carry no credential, whoever wrote it into what, and end no line but their own."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given as each
from hypothesis import strategies as st

from services.kit.logs import REDACTED, configure, redact, redact_event

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEcanary\nQQ==\n-----END RSA PRIVATE KEY-----"
CREDENTIALS = [
    pytest.param("ghs_" + "a1B2" * 9, id="an installation token"),
    pytest.param("ghs_" + "a1B2._-" * 74, id="a long installation token"),
    pytest.param("ghp_" + "a" * 36, id="a personal token"),
    pytest.param("github_pat_" + "11AA_" * 16, id="a fine-grained token"),
    pytest.param("sk-ant-api03-" + "q_-9" * 20, id="a model key"),
    pytest.param("mlr_" + "Zz-_" * 10, id="an operator's token"),
    pytest.param("SUA" + "M3Q7" * 13 + "ABC", id="an nkey seed"),
    pytest.param(PEM, id="a private key"),
    pytest.param(PEM.replace("\n", "\\n"), id="a private key on one line"),
    pytest.param(PEM.partition("-----END")[0], id="the beginning of a private key"),
    pytest.param("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiI3In0.c2lnbmF0dXJl", id="a JWT"),
]


def secret_of(credential: str) -> str:
    """A piece of it that no placeholder contains."""
    return credential.replace("\\n", "\n").split("\n")[1] if "BEGIN" in credential else credential[12:28]


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(
    "way", ["{}", "before {} after", "a={}&b=1", "https://x:{}@h/p", '{{"t": "{}"}}', "a\n{}\nb"]
)
def test_a_credential_is_taken_out_of_any_text(credential: str, way: str) -> None:
    text = redact(way.format(credential))
    assert secret_of(credential) not in text
    assert REDACTED in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pw@git.example/o/r", "https://[redacted]@git.example/o/r"),
        ("https://0123456789abcdef@git.example", "https://[redacted]@git.example"),
        ("nats://agent:pw@127.0.0.1:4222", "nats://[redacted]@127.0.0.1:4222"),
        ("postgresql+asyncpg://u:p%40w@db/x", "postgresql+asyncpg://[redacted]@db/x"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer [redacted]"),
        ("authorization: basic eDpwdw====", "authorization: basic [redacted]"),
    ],
)
def test_a_credential_without_a_shape_is_known_by_its_place(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "the token was rejected (401)",
        "sha256-1897e363bdf11b84e348ebd7af7357bfd4679627c9264046a9baee0ae57fef09",
        "e1e5eed0ab0ce89a4f70c2e20dc9d60f052d71c2",
        "01KJPX71RRDJNEMT5M4XK4YTXJ",
        "https://api.github.com/repos/o/r/issues/7 took 0.3 s",
        "bearer of news",
        "ghs_short",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@each(st.text())
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_no_text_takes_long() -> None:
    begun = time.perf_counter()
    for piece in (
        "eyJ",
        "eyJaaaaaaaaaaa.",
        "://a",
        "ghp_",
        "bearer ",
        "-----BEGIN ",
        "github_pat_",
        "sk-ant-",
        "SUA",
    ):
        redact(piece * (200_000 // len(piece)))
    assert time.perf_counter() - begun < 10


# --- events ---------------------------------------------------------------------------------------------

TOKEN = "ghs_" + "canary0123456789" * 2


class Client:
    def __str__(self) -> str:
        return f"Client({TOKEN})"


def test_values_of_every_sort_are_cleaned_wherever_they_are_nested() -> None:
    event: dict[str, Any] = {
        "event": f"sent {TOKEN}",
        "body": f"x {TOKEN}".encode(),
        "parts": [TOKEN, (TOKEN, {TOKEN}), {"deep": {"deeper": TOKEN}}],
        "client": Client(),
        "error": ValueError(TOKEN),
        "by_token": {TOKEN: 1, 7: TOKEN},
        "raw": bytearray(TOKEN, "ascii"),
        "broken": b"\xff" + TOKEN.encode(),
    }
    cleaned = redact_event(None, "info", event)
    assert "canary" not in repr(cleaned)
    assert cleaned["event"] == "sent [redacted]"
    assert cleaned["body"] == "x [redacted]"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "installation_token", "webhookSecret", "password", "Authorization", "api_key", "apiKey"),
        *("private_key", "privateKey", "Set-Cookie", "client_secret"),
    ],
)
def test_a_value_is_left_out_if_its_name_says_so(name: str) -> None:
    assert redact_event(None, "info", {name: "pw"})[name] == REDACTED
    assert redact_event(None, "info", {"headers": {name: "pw"}})["headers"][name] == REDACTED
    assert redact_event(None, "info", {name: ["pw"]})[name] == REDACTED


def test_numbers_are_no_secrets_whatever_their_name() -> None:
    event = {"input_tokens": 7, "token_cost": 0.5, "secret": True, "n": None, "turns": 3}
    assert redact_event(None, "info", dict(event)) == event


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b31m \x07", "\\x9b31m \\x07"),
        ("a\u202eb\u2066c\u2028d", "a\\u202eb\\u2066c\\u2028d"),
        ("tab\there", "tab\\there"),
        ("日本語 é", "日本語 é"),
    ],
)
def test_a_strangers_text_ends_no_line_and_steers_no_terminal(text: str, left: str) -> None:
    assert redact_event(None, "info", {"title": text})["title"] == left


def test_a_traceback_keeps_its_lines_but_no_escapes() -> None:
    event = redact_event(None, "error", {"exception": "Traceback:\n\tx \x1b[31m"})
    assert event["exception"] == "Traceback:\n\tx \\x1b[31m"


# --- what arrives on standard error ---------------------------------------------------------------------


@pytest.fixture
def restored() -> Iterator[None]:
    """The process's logging as it was before."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


def breaks(local: str) -> None:
    raise ValueError(f"no: {local}")


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_secret_arrives_from_structlog_or_from_libraries(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("debug", style)
    ours, theirs = structlog.get_logger(f"ours.{style}"), logging.getLogger(f"theirs.{style}")
    ours.info("asked", url=f"https://x-access-token:{TOKEN}@h", token=TOKEN, body=TOKEN.encode())
    theirs.warning("sent %s to %r", TOKEN, {"authorization": f"Bearer {TOKEN}"})
    try:
        breaks(TOKEN)
    except ValueError:
        ours.exception("it broke")
        theirs.exception("it broke there: %s", TOKEN)
    said = capsys.readouterr().err
    assert "canary" not in said
    assert said.count("ValueError: no: [redacted]") == 2
    assert "asked" in said
    assert "sent [redacted]" in said
    assert "it broke there" in said


@pytest.mark.usefixtures("restored")
def test_json_is_one_object_a_line_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    log = structlog.get_logger("ours.lines")
    log.info("first", title="a\nb")
    log.debug("left out")
    log.error("second")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"], first["title"]) == ("first", "info", "a\\nb")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"]) == ("second", "error")


@pytest.mark.usefixtures("restored")
def test_libraries_that_print_headers_are_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    for name in ("httpx2", "anthropic", "urllib3"):
        logging.getLogger(name).debug("headers: x-secret")
    assert capsys.readouterr().err == ""
