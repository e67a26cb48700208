"""The vault as its askers meet it: over NATS, with its database, against a GitHub that checks signatures."""

import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import rsa

from contracts.subjects import vault_subject
from contracts.vault import (
    Answer,
    AskCloneToken,
    AskInstallation,
    AskModelKey,
    AskReadToken,
    AskView,
    AskWebhookSecrets,
    AskWriteToken,
    ClearCredentials,
    Denied,
    Installation,
    ModelKey,
    Question,
    Secret,
    StoreCredentials,
    Token,
    View,
    WebhookSecrets,
    decode_answer,
    encode,
    thing_of,
)
from services.kit.bus import Bus
from services.kit.errors import Misconfigured
from services.kit.settings import load
from services.vault.__main__ import run
from tests.unit.scripted_http import Asked, Reply, serving

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.TraditionalOpenSSL, ser.NoEncryption()).decode()
HUSH = "canary-webhook-77aa91"
MODEL_KEY = "canary-sk-ant-55bb-cc12"
APP, INSTALLATION, REPOSITORY = 7, 70, 42
STORE = StoreCredentials(
    app_id=APP,
    private_key=Secret(PEM),
    webhook_secret=Secret(HUSH),
    installation_id=INSTALLATION,
    anthropic_api_key=Secret(MODEL_KEY),
)
CLONE = AskCloneToken(installation_id=INSTALLATION, repository_id=REPOSITORY)


class GitHub:
    """Mints for App 7 on its own clock; ``ahead`` is by how many seconds that differs from the host's."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.minted: list[Any] = []
        self.instead: Reply | None = None

    def __call__(self, asked: Asked) -> Reply:
        now = time.time() + self.ahead
        date = {"date": format_datetime(datetime.fromtimestamp(now, UTC), usegmt=True)}
        if asked.path == "/repos/acme/widgets" and asked.headers["authorization"].startswith("Bearer ghs_"):
            repository = {"id": REPOSITORY, "full_name": "acme/widgets", "default_branch": "trunk"}
            return Reply(200, repository | {"private": True}, headers=date)
        if not self._signed(asked, now):
            return Reply(401, {"message": "'Issued at' claim ('iat') must be in the past"}, headers=date)
        if asked.path == "/repos/acme/widgets/installation":
            return Reply(200, {"id": INSTALLATION, "app_id": APP}, headers=date)
        if asked.path != f"/app/installations/{INSTALLATION}/access_tokens":
            return Reply(404, {"message": "Not Found"}, headers=date)
        self.minted.append(asked.json)
        if self.instead is not None:
            return self.instead
        return Reply(201, self._grant(asked.json, now), headers=date)

    def _signed(self, asked: Asked, now: float) -> bool:
        try:
            said = jwt.decode(
                asked.headers["authorization"].removeprefix("Bearer "), KEY.public_key(),
                algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.PyJWTError:
            return False
        return bool(said["iss"] == str(APP) and said["iat"] <= now < said["exp"] <= now + 600)

    def _grant(self, body: Any, now: float) -> Any:
        end = datetime.fromtimestamp(int(now) + 3600, UTC)
        return {
            "token": f"ghs_{len(self.minted)}_" + "x" * 510,
            "expires_at": end.isoformat(),
            "permissions": body["permissions"],
            "repository_selection": "selected",
            "repositories": [{"id": REPOSITORY, "name": "widgets"}],
        }


Ask = Callable[[str, Question], Any]


@pytest.fixture
async def github() -> AsyncIterator[tuple[GitHub, str]]:
    script = GitHub()
    async with serving(script) as server:
        yield script, server.url


@asynccontextmanager
async def vault(bus: Bus, home: Path, api_url: str = "http://127.0.0.1:9", **more: Any) -> AsyncIterator[Ask]:
    """The service, and a function that asks it as another service."""
    settings = load({}, home=home, github_api_url=api_url, **more)

    async def ask(service: str, question: Question) -> Answer:
        subject = vault_subject(service, thing_of(question))
        return decode_answer(await bus.ask(subject, encode(question), timeout=20))

    async with run(settings, bus) as health:
        assert (await health())["database"] == "ok"
        yield ask


def audit(home: Path) -> list[tuple[str, str, str]]:
    with sqlite3.connect(home / "vault.sqlite3") as database:
        return database.execute("SELECT service, thing, outcome FROM audit ORDER BY id").fetchall()


def change(home: Path, sql: str) -> None:
    with sqlite3.connect(home / "vault.sqlite3") as database:
        assert database.execute(sql).rowcount > 0


async def test_what_was_stored_is_given_to_those_entitled_after_a_restart(bus: Bus, tmp_path: Path) -> None:
    async with vault(bus, tmp_path) as ask:
        shown = await ask("gateway", STORE)
        assert isinstance(shown, View)
        assert shown.model_key is not None
        assert (shown.apps[0].app_id, shown.model_key.ending) == (APP, "cc12")
    async with vault(bus, tmp_path) as ask:
        assert await ask("gateway", AskView()) == shown
        assert await ask("gateway", AskWebhookSecrets()) == WebhookSecrets(secrets={APP: Secret(HUSH)})
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret(MODEL_KEY))


@pytest.mark.parametrize(
    ("service", "question"),
    [
        ("agent", AskWriteToken(installation_id=INSTALLATION, repository_id=REPOSITORY, step="publish")),
        ("sandbox_runner", AskModelKey()),
        ("publisher", AskWebhookSecrets()),
        ("history", AskView()),
        ("stranger", AskModelKey()),
    ],
)
async def test_who_is_not_entitled_is_denied_in_the_same_words_and_audited(
    bus: Bus, tmp_path: Path, service: str, question: Question
) -> None:
    async with vault(bus, tmp_path) as ask:
        empty = await ask(service, question)
        await ask("gateway", STORE)
        assert await ask(service, question) == empty
    assert isinstance(empty, Denied)
    assert (empty.kind, empty.retry_after) == ("not_entitled", None)
    assert audit(tmp_path)[-1] == (service, thing_of(question), "not_entitled")


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", encode(AskModelKey())])
async def test_another_question_on_an_own_subject_is_not_answered(
    bus: Bus, tmp_path: Path, body: bytes
) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
        answer = decode_answer(await bus.ask(vault_subject("publisher", "write-token"), body))
    assert isinstance(answer, Denied)
    assert answer.kind == "unreadable"


async def test_a_token_is_narrowed_minted_once_and_cached(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str]
) -> None:
    double, url = github
    async with vault(bus, tmp_path, url) as ask:
        await ask("gateway", STORE)
        tokens = await asyncio.gather(*(ask("sandbox_runner", CLONE) for _ in range(100)))
        assert double.minted == [
            {"repository_ids": [REPOSITORY], "permissions": {"metadata": "read", "contents": "read"}}
        ]
        assert {type(each) for each in tokens} == {Token}
        assert len({each.token.reveal() for each in tokens}) == 1
        assert len(tokens[0].token.reveal()) > 510
        again = await ask(
            "sandbox_runner",
            AskCloneToken(
                installation_id=INSTALLATION,
                repository_id=REPOSITORY,
                rejected=tokens[0].token.fingerprint(),
            ),
        )
        assert again.token != tokens[0].token
        read = await ask("gateway", AskReadToken(installation_id=INSTALLATION, repository_id=REPOSITORY))
        assert read.token not in (again.token, tokens[0].token)


@pytest.mark.parametrize("ahead", [-600, -90, -30, 30, 90, 600])
async def test_a_host_clock_that_is_wrong_is_corrected(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str], ahead: float
) -> None:
    double, url = github
    double.ahead = ahead
    async with vault(bus, tmp_path, url) as ask:
        await ask("gateway", STORE)
        assert isinstance(await ask("sandbox_runner", CLONE), Token)
        assert isinstance(await ask("sandbox_runner", CLONE), Token)
    assert len(double.minted) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "retries"),
    [
        (Reply(404, {"message": "Not Found"}), "installation_gone", False),
        (Reply(403, {"message": "This installation has been suspended"}), "installation_suspended", False),
        (Reply(422, {"message": "The permissions requested are not granted"}), "needs_permission", False),
        (Reply(503), "github_unavailable", True),
        (Reply(429, headers={"retry-after": "33"}), "github_rate_limited", True),
        (Reply(201, {"token": "ghs_short"}), "token_malformed", True),
        (Reply(201, body=b"<html>"), "github_malformed", True),
    ],
)
async def test_each_refusal_of_github_reaches_the_asker_by_name(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str], reply: Reply, kind: str, retries: bool
) -> None:
    double, url = github
    double.instead = reply
    async with vault(bus, tmp_path, url) as ask:
        await ask("gateway", STORE)
        answer = await ask("sandbox_runner", CLONE)
        assert isinstance(answer, Denied)
        assert (answer.kind, answer.retry_after is not None) == (kind, retries)
        if kind == "github_rate_limited":
            assert answer.retry_after == 33.0
        double.instead = None
        assert isinstance(await ask("sandbox_runner", CLONE), Token)


async def test_a_repository_is_found_with_its_installation(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str]
) -> None:
    _, url = github
    async with vault(bus, tmp_path, url) as ask:
        await ask("gateway", STORE)
        found = await ask("gateway", AskInstallation(full_name="acme/widgets"))
        assert isinstance(found, Installation)
        assert (found.app_id, found.installation_id) == (APP, INSTALLATION)
        assert (found.repository.id, found.repository.default_branch) == (REPOSITORY, "trunk")
        absent = await ask("gateway", AskInstallation(full_name="acme/other"))
        assert isinstance(absent, Denied)
        assert absent.kind == "repository_not_installed"
        for name in ("acme", "../app", "acme/..", "a/b/c", "a b/c", ""):
            bad = await ask("gateway", AskInstallation(full_name=name))
            assert isinstance(bad, Denied)
            assert bad.kind == "invalid"


async def test_with_several_apps_the_owner_of_the_installation_mints(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str]
) -> None:
    double, _ = github
    other = rsa.generate_private_key(65537, 2048)

    def both(asked: Asked) -> Reply:
        try:
            token = asked.headers["authorization"].removeprefix("Bearer ")
            jwt.decode(token, other.public_key(), algorithms=["RS256"])
        except jwt.PyJWTError:
            return double(asked)
        return Reply(404, {"message": "Not Found"})

    text = other.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()).decode()
    async with serving(both) as server, vault(bus, tmp_path, server.url) as ask:
        await ask(
            "gateway", StoreCredentials(app_id=APP, private_key=Secret(PEM), webhook_secret=Secret("a"))
        )
        await ask("gateway", StoreCredentials(app_id=3, private_key=Secret(text), webhook_secret=Secret("b")))
        assert isinstance(await ask("sandbox_runner", CLONE), Token)
        assert (await ask("gateway", AskWebhookSecrets())).secrets == {3: Secret("b"), APP: Secret("a")}
        gone = await ask("gateway", ClearCredentials(app_id=APP))
        assert [each.app_id for each in gone.apps] == [3]
        refused = await ask("sandbox_runner", CLONE)
        assert isinstance(refused, Denied)
        assert refused.kind == "installation_gone"


async def test_the_environments_model_key_is_offered_and_never_stored(bus: Bus, tmp_path: Path) -> None:
    async with vault(bus, tmp_path, anthropic_api_key=MODEL_KEY) as ask:
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret(MODEL_KEY))
        shown = await ask("gateway", AskView())
        assert shown.model_key.source == "environment"
        await ask("gateway", StoreCredentials(anthropic_api_key=Secret("stored-instead")))
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret("stored-instead"))
    assert not [file for file in files(tmp_path) if MODEL_KEY.encode() in file.read_bytes()]


async def test_cleared_credentials_are_gone_and_can_be_stored_again(bus: Bus, tmp_path: Path) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
        with sqlite3.connect(tmp_path / "vault.sqlite3") as database:
            blobs = [row[0] for row in database.execute("SELECT sealed FROM credential")]
        assert len(blobs) == 3
        assert await ask("gateway", ClearCredentials()) == View(apps=[])
        for service, question in (("agent", AskModelKey()), ("sandbox_runner", CLONE)):
            answer = await ask(service, question)
            assert isinstance(answer, Denied)
            assert answer.kind == "not_configured"
        everything = b"".join(file.read_bytes() for file in files(tmp_path))
        assert not [blob for blob in blobs if blob[1:61] in everything]
        assert isinstance(await ask("gateway", STORE), View)
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret(MODEL_KEY))


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(
            "UPDATE credential SET sealed = (SELECT sealed FROM credential WHERE field = 'private_key') "
            "WHERE field = 'model_key'",
            id="another field's value",
        ),
        pytest.param("UPDATE credential SET version = 1 WHERE field = 'model_key'", id="another version"),
        pytest.param("UPDATE credential SET sealed = zeroblob(200) WHERE field = 'model_key'", id="zeros"),
        pytest.param("DELETE FROM credential WHERE field = 'model_key'", id="deleted"),
    ],
)
async def test_a_changed_row_is_refused_until_it_is_stored_again(bus: Bus, tmp_path: Path, sql: str) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
        await ask("gateway", StoreCredentials(anthropic_api_key=Secret(MODEL_KEY)))
        change(tmp_path, sql)
        answer = await ask("agent", AskModelKey())
        assert isinstance(answer, Denied)
        assert answer.kind == "tampered"
        assert "model_key of model" in answer.why
        await ask("gateway", StoreCredentials(anthropic_api_key=Secret(MODEL_KEY)))
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret(MODEL_KEY))
    assert ("agent", "model-key", "tampered") in audit(tmp_path)


async def test_an_older_version_of_a_row_is_told_from_the_newest(bus: Bus, tmp_path: Path) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
        with sqlite3.connect(tmp_path / "vault.sqlite3") as database:
            database.execute("CREATE TABLE kept AS SELECT * FROM credential WHERE field = 'model_key'")
        await ask("gateway", StoreCredentials(anthropic_api_key=Secret("the second")))
        change(tmp_path, "DELETE FROM credential WHERE field = 'model_key'")
        change(tmp_path, "INSERT INTO credential SELECT * FROM kept")
        answer = await ask("agent", AskModelKey())
        assert isinstance(answer, Denied)
        assert answer.kind == "tampered"


async def test_a_database_from_yesterday_stores_nothing_until_it_is_accepted(
    bus: Bus, tmp_path: Path
) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
        await ask("gateway", ClearCredentials(app_id=99))
    yesterday = (tmp_path / "vault.sqlite3").read_bytes()
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", StoreCredentials(anthropic_api_key=Secret("newer key, of today")))
        await ask("gateway", ClearCredentials(app_id=99))
    for journal in ("-wal", "-shm"):
        (tmp_path / f"vault.sqlite3{journal}").unlink(missing_ok=True)
    (tmp_path / "vault.sqlite3").write_bytes(yesterday)
    settings = load({}, home=tmp_path)
    async with run(settings, bus) as health:
        assert "older than this installation remembers" in (await health())["records"]
    async with vault(bus, tmp_path) as ask:
        refused = await ask("gateway", STORE)
        assert isinstance(refused, Denied)
        assert refused.kind == "rolled_back"
        assert (await ask("gateway", AskView())).read_only
        assert isinstance(await ask("agent", AskModelKey()), ModelKey)
    (tmp_path / "vault" / "anchor.json").unlink()
    async with vault(bus, tmp_path) as ask:
        assert isinstance(await ask("gateway", STORE), View)


async def test_a_database_without_its_key_does_not_start_and_gets_no_new_one(
    bus: Bus, tmp_path: Path
) -> None:
    async with vault(bus, tmp_path) as ask:
        await ask("gateway", STORE)
    key = tmp_path / "vault" / "k1.key"
    content = key.read_bytes()
    key.unlink()
    with pytest.raises(Misconfigured, match="no new key is made"):
        async with vault(bus, tmp_path):
            pass
    assert not key.exists()
    key.write_bytes(content[::-1])
    key.chmod(0o600)
    with pytest.raises(Misconfigured, match="not the key this database was written with"):
        async with vault(bus, tmp_path):
            pass
    key.write_bytes(content)
    async with vault(bus, tmp_path) as ask:
        assert await ask("agent", AskModelKey()) == ModelKey(key=Secret(MODEL_KEY))


async def test_no_secret_lies_in_any_file_or_log(
    bus: Bus, tmp_path: Path, github: tuple[GitHub, str], capfd: pytest.CaptureFixture[str]
) -> None:
    _, url = github
    async with vault(bus, tmp_path, url) as ask:
        await ask("gateway", STORE)
        token = await ask("sandbox_runner", CLONE)
        await ask("stranger", STORE)
        await ask(
            "gateway", StoreCredentials(app_id=-1, private_key=Secret(PEM), webhook_secret=Secret(HUSH))
        )
        found = b"".join(file.read_bytes() for file in files(tmp_path))
    found += "".join(capfd.readouterr()).encode()
    for secret in (HUSH, MODEL_KEY, PEM.splitlines()[5], token.token.reveal()):
        for form in (secret.encode(), base64.b64encode(secret.encode())[:-4], secret.encode().hex().encode()):
            assert form not in found
        assert json.dumps(secret).encode() not in found


def files(directory: Path) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file()]
