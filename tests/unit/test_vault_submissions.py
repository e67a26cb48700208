"""What an operator submits is checked before anything is stored."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from contracts.vault import Secret, StoreCredentials
from services.kit.errors import Refused
from services.vault.submissions import check, ending_of, fingerprint_of

RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  to be refused
PKCS8, PKCS1 = ser.PrivateFormat.PKCS8, ser.PrivateFormat.TraditionalOpenSSL


def pem(key: Any = RSA, form: Any = PKCS1, lock: Any = None) -> Secret:
    lock = lock or ser.NoEncryption()
    return Secret(key.private_bytes(ser.Encoding.PEM, form, lock).decode())


def submit(known: frozenset[int] = frozenset(), **fields: Any) -> Any:
    return check(StoreCredentials(**fields), known)


@pytest.mark.parametrize(
    "key",
    [
        pem(),
        pem(form=PKCS8),
        Secret(pem().reveal().replace("\n", "\\n")),
        Secret("\n  " + pem().reveal().replace("\n", "\r\n")),
    ],
    ids=["PKCS1", "PKCS8", "escaped line ends", "Windows line ends"],
)
def test_a_new_app_is_taken_with_the_fingerprint_github_shows(key: Secret) -> None:
    change = submit(app_id=7, private_key=key, webhook_secret=Secret("hush"), installation_id=9)
    assert change.app.fingerprint == fingerprint_of(RSA)
    assert (change.app.app_id, change.app.installation_id) == (7, 9)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "nothing was submitted"),
        ({"app_id": 0, "private_key": pem(), "webhook_secret": Secret("w")}, "appId must be"),
        ({"app_id": -1, "private_key": pem(), "webhook_secret": Secret("w")}, "appId must be"),
        ({"app_id": 2**63, "private_key": pem(), "webhook_secret": Secret("w")}, "appId must be"),
        ({"app_id": 7, "private_key": pem()}, "both needed"),
        ({"app_id": 7, "webhook_secret": Secret("w")}, "both needed"),
        ({"private_key": pem(), "webhook_secret": Secret("w")}, "appId is missing: 0 Apps"),
        ({"app_id": 7, "private_key": pem(), "webhook_secret": Secret("")}, "webhookSecret must have"),
        ({"app_id": 7, "private_key": pem(), "webhook_secret": Secret("w\n")}, "webhookSecret contains"),
        ({"app_id": 7, "private_key": Secret("canary"), "webhook_secret": Secret("w")}, "PEM format"),
        ({"app_id": 7, "private_key": Secret("\ud800"), "webhook_secret": Secret("w")}, "PEM format"),
        (
            {"app_id": 7, "private_key": pem(WEAK), "webhook_secret": Secret("w")},
            "1024 bits",
        ),
        (
            {"app_id": 7, "private_key": pem(ec.generate_private_key(ec.SECP256R1()), PKCS8),
             "webhook_secret": Secret("w")},
            "not an RSA key",
        ),
        (
            {"app_id": 7, "private_key": pem(lock=ser.BestAvailableEncryption(b"pass")),
             "webhook_secret": Secret("w")},
            "is encrypted",
        ),
        (
            {"app_id": 7, "private_key": pem(), "webhook_secret": Secret("w"), "installation_id": 0},
            "installationId must be",
        ),
        ({"anthropic_api_key": Secret("has a\ttab")}, "anthropicApiKey contains"),
    ],
)  # fmt: skip
def test_a_bad_submission_names_the_field_and_not_the_value(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        submit(**fields)
    assert refused.value.kind == "invalid"
    assert "canary" not in str(refused.value)


def test_an_update_without_an_id_means_the_only_app() -> None:
    change = submit(frozenset({7}), webhook_secret=Secret("new"))
    assert (change.app.app_id, change.app.private_key) == (7, None)
    with pytest.raises(Refused, match="2 Apps are stored"):
        submit(frozenset({7, 8}), webhook_secret=Secret("new"))


def test_the_model_key_alone_changes_no_app() -> None:
    change = submit(anthropic_api_key=Secret("sk-ant-0123456789abcdef"))
    assert (change.app, change.ending) == (None, "cdef")


def test_the_ending_of_a_short_secret_is_not_shown() -> None:
    assert ending_of(Secret("0123456789")) == ""
