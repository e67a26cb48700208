"""What an operator submits, checked before anything is stored (pure)."""

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from contracts.vault import Secret, StoreCredentials
from services.kit.errors import Refused

SMALLEST_KEY = 2048
_LARGEST_ID = 2**63 - 1
_LONGEST_SECRET = 1024


@dataclass(frozen=True)
class AppChange:
    """What changes about one App; ``None`` stays as it is."""

    app_id: int
    private_key: Secret | None
    fingerprint: str
    webhook_secret: Secret | None
    installation_id: int | None


@dataclass(frozen=True)
class Change:
    """Everything one submission changes."""

    app: AppChange | None
    model_key: Secret | None
    ending: str


def check(submitted: StoreCredentials, known: frozenset[int]) -> Change:
    """The change that ``submitted`` makes to a vault holding the Apps ``known``.

    Raises:
        Refused: ``invalid``, naming the field in the operator's words; never its value.
    """
    model_key = submitted.anthropic_api_key
    if model_key is not None:
        _refuse_text("anthropicApiKey", model_key)
    app = _check_app(submitted, known)
    if app is None and model_key is None:
        raise _invalid("nothing was submitted: give appId, privateKey and webhookSecret, or anthropicApiKey")
    return Change(app=app, model_key=model_key, ending="" if model_key is None else ending_of(model_key))


def load_private_key(pem: Secret) -> RSAPrivateKey:
    """The App's key; ``Refused`` (``invalid``) if it is not an unencrypted RSA key of 2048 bits or more."""
    # environment files often carry the line ends as two characters
    try:
        key = serialization.load_pem_private_key(
            pem.reveal().replace("\\n", "\n").strip().encode(), password=None
        )
    except TypeError:
        raise _invalid("privateKey is encrypted: submit the file as GitHub gave it") from None
    except Exception:  # noqa: BLE001  whatever the parser throws about foreign bytes, and without quoting it
        raise _invalid(
            "privateKey is not a private key in PEM format: submit the .pem file as GitHub gave it"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise _invalid("privateKey is not an RSA key: GitHub Apps sign with RSA")
    if key.key_size < SMALLEST_KEY:
        raise _invalid(f"privateKey has {key.key_size} bits; {SMALLEST_KEY} is the least")
    return key


def fingerprint_of(key: RSAPrivateKey) -> str:
    """As GitHub's settings page shows it: SHA-256 of the public key in DER, base64."""
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    return "SHA256:" + base64.b64encode(digest.finalize()).decode()


def ending_of(secret: Secret) -> str:
    """The last 4 characters of a long secret; nothing of a short one."""
    return secret.reveal()[-4:] if len(secret.reveal()) >= 20 else ""


def _check_app(submitted: StoreCredentials, known: frozenset[int]) -> AppChange | None:
    fields = (submitted.private_key, submitted.webhook_secret, submitted.installation_id)
    if submitted.app_id is None and fields == (None, None, None):
        return None
    app_id = submitted.app_id
    if app_id is None:
        if len(known) != 1:
            raise _invalid(f"appId is missing: {len(known)} Apps are stored")
        (app_id,) = known
    _refuse_id("appId", app_id)
    if submitted.installation_id is not None:
        _refuse_id("installationId", submitted.installation_id)
    if submitted.webhook_secret is not None:
        _refuse_text("webhookSecret", submitted.webhook_secret)
    if app_id not in known and (submitted.private_key is None or submitted.webhook_secret is None):
        raise _invalid(f"App {app_id} is new: privateKey and webhookSecret are both needed")
    fingerprint = ""
    if submitted.private_key is not None:
        fingerprint = fingerprint_of(load_private_key(submitted.private_key))
    return AppChange(
        app_id=app_id,
        private_key=submitted.private_key,
        fingerprint=fingerprint,
        webhook_secret=submitted.webhook_secret,
        installation_id=submitted.installation_id,
    )


def _refuse_id(name: str, value: int) -> None:
    if not 0 < value <= _LARGEST_ID:
        raise _invalid(f"{name} must be a positive number")


def _refuse_text(name: str, secret: Secret) -> None:
    length = len(secret.reveal())
    if not 0 < length <= _LONGEST_SECRET:
        raise _invalid(f"{name} must have 1 to {_LONGEST_SECRET} characters, not {length}")
    if not secret.reveal().isprintable() or secret.reveal() != secret.reveal().strip():
        raise _invalid(f"{name} contains a line break, a control character, or blanks at its ends")


def _invalid(why: str) -> Refused:
    return Refused(why, kind="invalid")
