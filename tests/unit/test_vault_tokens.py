"""Tokens: who may ask, what is asked for, what is accepted, how long it is kept (all pure or in memory)."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from contracts.vault import AskCloneToken, AskReadToken, AskWriteToken, Secret, TokenQuestion
from services.kit.errors import Later, Refused
from services.kit.github import Answer
from services.kit.github_errors import GitHubRefused
from services.vault.app_token import ServerClock, claims, sign
from services.vault.cache import MARGIN, TokenCache
from services.vault.entitlements import is_entitled, permissions_for
from services.vault.grants import GrantedToken, read_grant, refusal

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ASKED = {"metadata": "read", "contents": "write", "pull_requests": "write"}
KEY = rsa.generate_private_key(65537, 2048)
NOT_GRANTED = "The permissions requested are not granted to this installation."
NOT_ACCESSIBLE = (
    "There is at least one repository that does not exist or is not accessible to the parent installation."
)
GATEWAY = {"webhook-secrets", "store", "view", "clear", "read-token", "installation"}
RIGHTS = {
    "gateway": GATEWAY,
    "sandbox_runner": {"clone-token"},
    "agent": {"model-key"},
    "publisher": {"write-token"},
}


@pytest.mark.parametrize("service", [*RIGHTS, "history", "vault", "", "stranger", "*"])
def test_a_service_may_ask_for_its_own_things_only(service: str) -> None:
    things = {*GATEWAY, "clone-token", "model-key", "write-token", "", "everything"}
    assert {thing for thing in things if is_entitled(service, thing)} == RIGHTS.get(service, set())


@pytest.mark.parametrize(
    ("question", "permissions"),
    [
        (AskReadToken(installation_id=1, repository_id=2), {"metadata": "read", "issues": "read"}),
        (AskCloneToken(installation_id=1, repository_id=2), {"metadata": "read", "contents": "read"}),
        (
            AskWriteToken(installation_id=1, repository_id=2, step="comment"),
            {"metadata": "read", "issues": "write", "pull_requests": "write"},
        ),
        (AskWriteToken(installation_id=1, repository_id=2, step="publish"), ASKED),
    ],
)
def test_each_step_gets_its_own_permissions(question: TokenQuestion, permissions: dict[str, str]) -> None:
    assert permissions_for(question) == permissions


@pytest.mark.parametrize("drift", [0, 30, -30, 59])
def test_the_jwt_stays_within_githubs_limits_for_a_small_drift(drift: int) -> None:
    said = claims(7, NOW.timestamp() + drift)
    assert int(said["iat"]) <= NOW.timestamp() < int(said["exp"]) <= NOW.timestamp() + 600
    assert said["iss"] == "7"


def test_the_jwt_is_signed_with_rs256() -> None:
    token = sign(7, KEY, NOW.timestamp()).reveal()
    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    at_that_time = {"verify_exp": False, "verify_iat": False}
    read = jwt.decode(token, KEY.public_key(), algorithms=["RS256"], options=at_that_time)  # type: ignore[arg-type]
    assert read == claims(7, NOW.timestamp())


def test_the_clock_learns_githubs_time() -> None:
    clock = ServerClock(NOW.timestamp)
    assert clock.learn(NOW + timedelta(minutes=10)) == 600
    assert clock.now() == NOW.timestamp() + 600
    assert clock.learn(NOW + timedelta(minutes=10)) == 0


def grant(**changes: Any) -> Answer:
    body = {
        "token": "ghs_" + "x" * 516,
        "expires_at": (NOW + timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
        "permissions": ASKED,
        "repository_selection": "selected",
        "repositories": [{"id": 42, "name": "Widgets"}],
    } | changes
    headers = {"date": format_datetime(NOW, usegmt=True)}
    return Answer(status=201, json=body, headers=headers, url="")


@pytest.mark.parametrize("repository", [42, "widgets"])
@pytest.mark.parametrize("length", [40, 520, 4096])
def test_a_token_of_any_length_is_kept_whole(repository: int | str, length: int) -> None:
    granted = read_grant(grant(token="g" * length), repository, ASKED)
    assert granted.token == Secret("g" * length)
    assert (granted.expires_at, granted.seconds) == (NOW + timedelta(hours=1), 3600)


@pytest.mark.parametrize(
    "answer",
    [
        grant(token=None),
        grant(token=""),
        grant(token="two\r\nlines"),
        grant(expires_at=None),
        grant(expires_at="soon"),
        grant(expires_at=(NOW - timedelta(seconds=1)).isoformat()),
        grant(permissions=None),
        Answer(status=201, json=None, headers={}, url=""),
        Answer(status=201, json=["x"], headers={}, url=""),
    ],
)
def test_a_malformed_grant_is_asked_for_again(answer: Answer) -> None:
    with pytest.raises(Later) as later:
        read_grant(answer, 42, ASKED)
    assert later.value.kind == "token_malformed"


@pytest.mark.parametrize(
    "answer",
    [
        grant(repositories=[{"id": 42}, {"id": 43}]),
        grant(repositories=[{"id": 43}]),
        grant(repositories=[]),
        grant(repositories=None),
        grant(repository_selection="all"),
        grant(permissions=ASKED | {"administration": "read"}),
        grant(permissions=ASKED | {"metadata": "write"}),
        grant(permissions=ASKED | {"contents": "admin"}),
        grant(permissions=ASKED | {"contents": "sudo"}),
    ],
)
def test_a_grant_wider_than_asked_is_refused(answer: Answer) -> None:
    with pytest.raises(Refused) as refused:
        read_grant(answer, 42, ASKED)
    assert refused.value.kind == "token_too_wide"


def test_metadata_comes_with_every_token() -> None:
    assert read_grant(grant(permissions={"metadata": "read", "issues": "read"}), 42, {"issues": "read"})


@pytest.mark.parametrize("given", [{"contents": "read", "pull_requests": "write"}, {"contents": "write"}])
def test_a_grant_narrower_than_needed_names_the_permission(given: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        read_grant(grant(permissions=given), 42, ASKED)
    assert refused.value.kind == "needs_permission"


@pytest.mark.parametrize(
    ("status", "kind", "message", "ours"),
    [
        (401, "bad_credentials", "A JSON web token could not be decoded", "app_key_rejected"),
        (404, "not_found", "Not Found", "installation_gone"),
        (403, "installation_suspended", "This installation has been suspended", "installation_suspended"),
        (403, "ip_not_allowed", "IP allow list", "ip_not_allowed"),
        (422, "invalid", NOT_GRANTED, "needs_permission"),
        (422, "invalid", NOT_ACCESSIBLE, "repository_not_installed"),
    ],
)  # fmt: skip
def test_a_refusal_to_mint_tells_what_a_person_can_do(
    status: int, kind: str, message: str, ours: str
) -> None:
    assert refusal(GitHubRefused("why", kind=kind, status=status, message=message), 9).kind == ours


class Mint:
    """Counts, waits until told, then grants or fails."""

    def __init__(self, seconds: float = 3600.0) -> None:
        self.count = 0
        self.seconds = seconds
        self.go = asyncio.Event()
        self.go.set()
        self.fails: Exception | None = None

    async def __call__(self) -> GrantedToken:
        self.count += 1
        number = self.count
        await self.go.wait()
        if self.fails is not None:
            raise self.fails
        return GrantedToken(Secret(f"token {number}"), NOW, self.seconds)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_hundred_who_ask_at_once_cause_one_mint() -> None:
    mint, cache = Mint(), TokenCache(Time())
    mint.go.clear()
    asking = [asyncio.create_task(cache.get("key", mint)) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()
    mint.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert mint.count == 1
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] + [GrantedToken] * 99


async def test_another_key_is_another_token() -> None:
    mint, cache = Mint(), TokenCache(Time())
    assert (await cache.get("one", mint)).token != (await cache.get("two", mint)).token


async def test_a_token_is_renewed_five_minutes_before_its_end() -> None:
    mint, cache, time = Mint(), TokenCache(clock := Time()), 3600 - MARGIN
    await cache.get("key", mint)
    clock.now = time - 1
    assert (await cache.get("key", mint)).token == Secret("token 1")
    clock.now = time
    assert (await cache.get("key", mint)).token == Secret("token 2")


async def test_a_token_that_lives_too_short_is_given_once() -> None:
    mint, cache = Mint(seconds=200), TokenCache(Time())
    await cache.get("key", mint)
    await cache.get("key", mint)
    assert mint.count == 2


async def test_a_rejected_token_is_not_given_again() -> None:
    mint, cache = Mint(), TokenCache(Time())
    first = (await cache.get("key", mint)).token
    second = await asyncio.gather(*(cache.get("key", mint, rejected=first.fingerprint()) for _ in range(10)))
    assert {grant.token.reveal() for grant in second} == {"token 2"}
    assert (await cache.get("key", mint, rejected=first.fingerprint())).token == Secret("token 2")


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered() -> None:
    mint, cache = Mint(), TokenCache(Time())
    mint.fails = Later("away")
    failed = await asyncio.gather(*(cache.get("key", mint) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [Later] * 3
    assert mint.count == 1
    mint.fails = None
    assert (await cache.get("key", mint)).token == Secret("token 2")


async def test_a_token_minted_under_forgotten_credentials_is_not_kept() -> None:
    mint, cache = Mint(), TokenCache(Time())
    mint.go.clear()
    asking = asyncio.create_task(cache.get("key", mint))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cache.clear()
    mint.go.set()
    assert (await asking).token == Secret("token 1")
    assert (await cache.get("key", mint)).token == Secret("token 2")
