"""Questions to the vault and its answers, by request and reply; no stream holds them.

Subject: ``contracts.subjects.vault_subject(service, thing_of(question))``. The subject carries the right
to ask: each service may publish only its own. Every question is answered with what it asks for or with
``Denied``. Times are aware, UTC.
"""

import hashlib
import hmac
from datetime import datetime
from typing import Any, Literal, NoReturn

import msgspec


class Secret:
    """A value that is shown nowhere by accident.

    ``repr``, ``str`` and f-strings print ``***``; pickle, copy, ``json`` and a plain msgspec encoder
    raise ``TypeError``. It leaves the process through ``reveal`` and ``encode`` only.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value: use it in the expression that needs it, do not name it."""
        return self.__value

    def fingerprint(self) -> str:
        """SHA-256 in hex: names this very value to somebody who has it too."""
        return hashlib.sha256(self.__value.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(
            self.__value.encode(), other.reveal().encode()
        )

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


# --- questions ------------------------------------------------------------------------------------------


class AskWebhookSecrets(msgspec.Struct, frozen=True, kw_only=True, tag="webhook-secrets"):
    """Gateway: the webhook secrets of all Apps; answered with ``WebhookSecrets``."""


class StoreCredentials(
    msgspec.Struct, frozen=True, kw_only=True, tag="store", rename="camel", forbid_unknown_fields=True
):
    """Gateway, for an operator: store or update; what is absent stays as it is. Answered with ``View``.

    A new App needs ``app_id``, ``private_key`` and ``webhook_secret``. Without ``app_id`` the fields of an
    App belong to the only one stored.
    """

    app_id: int | None = None
    private_key: Secret | None = None
    webhook_secret: Secret | None = None
    installation_id: int | None = None
    anthropic_api_key: Secret | None = None


class AskView(msgspec.Struct, frozen=True, kw_only=True, tag="view"):
    """Gateway, for an operator: what is stored, without any value; answered with ``View``."""


class ClearCredentials(msgspec.Struct, frozen=True, kw_only=True, tag="clear"):
    """Gateway, for an operator: forget one App, or everything; answered with ``View``."""

    app_id: int | None = None


class AskReadToken(msgspec.Struct, frozen=True, kw_only=True, tag="read-token"):
    """Gateway: a token that reads metadata and issues of one repository; answered with ``Token``.

    ``app_id`` saves a search when several Apps are stored. ``rejected`` is the fingerprint of a token that
    GitHub answered with 401: the vault then mints another. Both mean the same in all token questions.
    """

    installation_id: int
    repository_id: int
    app_id: int | None = None
    rejected: str = ""


class AskInstallation(msgspec.Struct, frozen=True, kw_only=True, tag="installation"):
    """Gateway: which App is installed on ``owner/name``; answered with ``Installation``."""

    full_name: str


class AskCloneToken(msgspec.Struct, frozen=True, kw_only=True, tag="clone-token"):
    """Sandbox runner: a token that reads the contents of one repository; answered with ``Token``."""

    installation_id: int
    repository_id: int
    app_id: int | None = None
    rejected: str = ""


class AskModelKey(msgspec.Struct, frozen=True, kw_only=True, tag="model-key"):
    """Agent: the key for the model; answered with ``ModelKey``."""


class AskWriteToken(msgspec.Struct, frozen=True, kw_only=True, tag="write-token"):
    """Publisher: a token for one step on one repository; answered with ``Token``.

    ``comment`` writes issues and pull requests, ``publish`` writes contents and pull requests.
    """

    installation_id: int
    repository_id: int
    step: Literal["comment", "publish"]
    app_id: int | None = None
    rejected: str = ""


# --- answers --------------------------------------------------------------------------------------------


class WebhookSecrets(msgspec.Struct, frozen=True, kw_only=True, tag="webhook-secrets.given"):
    """Webhook secret of each App, by App id."""

    secrets: dict[int, Secret]


class Token(msgspec.Struct, frozen=True, kw_only=True, tag="token.given"):
    """An installation token of any length; it holds for at least 5 more minutes unless minted shorter."""

    token: Secret
    expires_at: datetime


class ModelKey(msgspec.Struct, frozen=True, kw_only=True, tag="model-key.given"):
    """The key for the model."""

    key: Secret


class InstalledRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository as GitHub describes it today."""

    id: int
    full_name: str
    default_branch: str
    private: bool


class Installation(msgspec.Struct, frozen=True, kw_only=True, tag="installation.given"):
    """Where a repository's App is installed."""

    app_id: int
    installation_id: int
    repository: InstalledRepository


class StoredApp(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One App without its secrets; the fingerprint is the one GitHub's settings page shows for the key."""

    app_id: int
    installation_id: int | None
    private_key_fingerprint: str
    private_key_updated_at: datetime
    webhook_secret_updated_at: datetime


class StoredModelKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The model key without its value; ``ending`` is its last 4 characters, or nothing for a short key."""

    ending: str
    source: Literal["stored", "environment"]
    updated_at: datetime | None = None


class View(msgspec.Struct, frozen=True, kw_only=True, tag="view.given", rename="camel"):
    """What is stored, safe to show. ``read_only`` says why nothing can be stored, if so."""

    apps: list[StoredApp]
    model_key: StoredModelKey | None = None
    read_only: str = ""


class Denied(msgspec.Struct, frozen=True, kw_only=True, tag="denied"):
    """No. ``retry_after`` in seconds when another try may work; ``None`` when it will not.

    Kinds that will not: ``not_entitled``, ``unreadable``, ``invalid``, ``not_configured``,
    ``installation_gone``, ``installation_suspended``, ``repository_not_installed``, ``needs_permission``,
    ``app_key_rejected``, ``token_too_wide``, ``tampered``, ``key_missing``, ``rolled_back``.
    """

    kind: str
    why: str
    retry_after: float | None = None


TokenQuestion = AskReadToken | AskCloneToken | AskWriteToken
Question = (
    AskWebhookSecrets
    | StoreCredentials
    | AskView
    | ClearCredentials
    | AskReadToken
    | AskInstallation
    | AskCloneToken
    | AskModelKey
    | AskWriteToken
)
Answer = WebhookSecrets | Token | ModelKey | Installation | View | Denied


def thing_of(question: Question | type[Question]) -> str:
    """The last word of the subject: ``write-token``."""
    return str(question.__struct_config__.tag)


def encode(message: Question | Answer) -> bytes:
    """The bytes of a question or an answer: the one encoder that writes secrets out."""
    return _encoder.encode(message)


def decode_question(body: bytes) -> Question:
    """The question; ``msgspec.DecodeError`` if it is none (no message quotes a secret)."""
    return _questions.decode(body)


def decode_answer(body: bytes) -> Answer:
    """The answer; ``msgspec.DecodeError`` if it is none."""
    return _answers.decode(body)


def _write(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)


def _read(kind: type, value: Any) -> Secret:
    if kind is not Secret or not isinstance(value, str):
        raise ValueError("expected a string")
    return Secret(value)


_encoder = msgspec.json.Encoder(enc_hook=_write)
_questions: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question, dec_hook=_read)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer, dec_hook=_read)
