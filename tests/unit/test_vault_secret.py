"""A secret is shown nowhere by accident, and crosses the wire through one encoder."""

import copy
import io
import json
import pickle
import traceback
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console
from rich.traceback import Traceback

from contracts.vault import (
    Answer,
    AskWriteToken,
    Denied,
    ModelKey,
    Question,
    Secret,
    StoreCredentials,
    Token,
    WebhookSecrets,
    decode_answer,
    decode_question,
    encode,
    thing_of,
)

CANARY = "canary-8e1f"
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def test_a_secret_prints_as_stars_however_it_is_printed() -> None:
    secret = Secret(CANARY)
    message = ModelKey(key=secret)
    printed = f"{secret} {secret!r} {secret:>20} {secret!s} {message} {[secret]} {{'k': {secret}}}"
    assert CANARY not in printed
    assert "***" in printed


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(json.dumps, id="json"),
        pytest.param(msgspec.json.encode, id="msgspec json"),
        pytest.param(msgspec.msgpack.encode, id="msgpack"),
        pytest.param(msgspec.to_builtins, id="builtins"),
        pytest.param(vars, id="vars"),
        pytest.param(hash, id="hash"),
    ],
)
def test_a_secret_leaves_by_no_other_door(leak: object) -> None:
    assert callable(leak)
    with pytest.raises(TypeError) as raised:
        leak(Secret(CANARY))
    assert CANARY not in str(raised.value)


def test_a_traceback_with_local_variables_shows_no_secret() -> None:
    screen = io.StringIO()
    try:
        secret = Secret(CANARY)
        int(f"failed with {secret}")
    except ValueError as error:
        shown = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
        Console(file=screen, width=200).print(shown)
        plain = traceback.format_exc()
    assert CANARY not in screen.getvalue() + plain.replace(f'"{CANARY}"', "")
    assert "secret = ***" in screen.getvalue()


@pytest.mark.parametrize(
    "message",
    [
        StoreCredentials(app_id=1, private_key=Secret("p"), webhook_secret=Secret("w"), installation_id=2),
        AskWriteToken(installation_id=1, repository_id=2, step="publish", rejected="ab"),
    ],
)
def test_a_question_survives_the_wire(message: Question) -> None:
    assert decode_question(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        WebhookSecrets(secrets={1: Secret("one"), 2: Secret("two")}),
        Token(token=Secret("t" * 520), expires_at=NOW),
        Denied(kind="needs_permission", why="why", retry_after=None),
    ],
)
def test_an_answer_survives_the_wire(message: Answer) -> None:
    assert decode_answer(encode(message)) == message


def test_credentials_have_the_names_of_the_configuration_page() -> None:
    body = b'{"type":"store","appId":1,"privateKey":"p","webhookSecret":"w","anthropicApiKey":"k"}'
    stored = decode_question(body)
    assert isinstance(stored, StoreCredentials)
    assert (stored.app_id, stored.anthropic_api_key) == (1, Secret("k"))
    assert thing_of(stored) == "store"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"type":"unknown"}',
        b'{"type":"store","privateKey":["canary-8e1f"]}',
        b'{"type":"store","privatekey":"canary-8e1f"}',
        b'{"type":"write-token","installation_id":1,"repository_id":2,"step":"everything"}',
        b'{"type":"write-token","installation_id":"1","repository_id":2,"step":"publish"}',
    ],
)
def test_what_is_no_question_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as raised:
        decode_question(body)
    assert CANARY not in str(raised.value)
