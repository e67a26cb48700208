"""Webhook intake as GitHub meets it, and as everybody else does: over HTTP and over bare sockets."""

import asyncio
import json
import os
import resource
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
import pytest_asyncio

from services.gateway import intake
from services.gateway.intake import MAX_BODY
from services.kit.slow_clients import Deadlines
from tests.doubles.github.examples import examples
from tests.integration.gateway_kit import SOON, Place, Wire, place, signature, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNSIGNED = {"error": "the request carries no valid X-Hub-Signature-256"}
PUSH = b'{"ref":"refs/heads/main"}'
FORM = "application/x-www-form-urlencoded"
IMPATIENT = SOON._replace(
    clients=Deadlines(head=0.3, body=0.8, farewell=0.3), body=0.4, commit=0.5, tries=3
)  # fmt: skip
NO_PAGES = ("max_page_count=1", "max_page_count=1073741823")
NO_WRITES = ("query_only=ON", "query_only=OFF")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A gateway for tests that leave nothing behind which matters to others."""
    async with place(tmp_path_factory.mktemp("gateway"), SOON) as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Another, for tests that wait until its patience ends; a busy machine ends it for the others too."""
    async with place(tmp_path_factory.mktemp("impatient"), IMPATIENT) as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[Place]:
    """A gateway of this test's own."""
    async with place(tmp_path / "home", SOON) as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def own_impatient(tmp_path: Path) -> AsyncIterator[Place]:
    """The same, impatient."""
    async with place(tmp_path / "home", IMPATIENT) as it:
        yield it


def new_id() -> str:
    return str(uuid.uuid4())


async def seconds(waiting: Any) -> tuple[Any, float]:
    """What came of it, and how long it took."""
    started = time.perf_counter()
    return await waiting, time.perf_counter() - started


# --- what GitHub sends --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/webhook/github", "/webhooks/github"])
async def test_each_of_githubs_examples_is_taken_when_signed_and_else_refused(
    shared: Place, path: str
) -> None:
    sent: dict[str, str] = {}
    for event, payload in examples():
        raw, delivery = text_of(payload), new_id()
        altered = raw.replace(b"{", b"{ ", 1)
        for unsigned in (
            await shared.post(raw, event=event, path=path, headers={"x-hub-signature-256": None}),
            await shared.post(
                altered, event=event, path=path, headers={"x-hub-signature-256": signature(raw)}
            ),
        ):
            assert (unsigned.status_code, unsigned.json()) == (401, UNSIGNED)
        answer = await shared.post(raw, event=event, path=path, delivery=delivery)
        assert answer.status_code == (200 if event == "ping" else 202), answer.text
        told = answer.json()
        assert told["delivery"] == delivery
        assert (told["status"], bool(told["reason"])) in (("accepted", False), ("ignored", True))
        sent[delivery] = told["status"]
    await shared.settled(*sent, seconds=30)
    rows = await shared.rows()
    assert len(sent) == 329
    for delivery, status in sent.items():
        # None of these repositories is ours, so in the end nothing follows from any, for a reason.
        assert rows[delivery]["state"] == "ignored", rows[delivery]
        assert rows[delivery]["reason"]
        assert (rows[delivery]["repository_id"] is None) == (status == "ignored")


async def test_a_ping_is_answered_200_when_signed_and_401_when_not(shared: Place) -> None:
    signed = await shared.post({"zen": "Design for failure.", "hook_id": 1}, event="ping")
    assert (signed.status_code, signed.json()["reason"]) == (200, "ping")
    unsigned = await shared.post(b"{}", event="ping", headers={"x-hub-signature-256": None})
    assert (unsigned.status_code, unsigned.json()) == (401, UNSIGNED)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("application/json", lambda text: text, id="JSON"),
        pytest.param("application/json; charset=utf-8", lambda text: text, id="JSON with its charset"),
        pytest.param('Application/JSON;charset="UTF-8"', lambda text: text, id="JSON in other letters"),
        pytest.param("application/json", lambda text: f"\n {text}\r\n", id="JSON with blanks around"),
        pytest.param(FORM, lambda text: urlencode({"payload": text}), id="a form"),
        pytest.param(
            f"{FORM}; charset=utf-8", lambda text: f"payload={quote_plus(text)}", id="a form with plus signs"
        ),
    ],
)  # fmt: skip
async def test_json_and_forms_are_both_read(shared: Place, kind: str, body: Callable[[str], str]) -> None:
    event = shared.issue_event("labeled", label={"name": "bügs + ünits & 50 %"})
    answer = await shared.post(body(json.dumps(event)).encode(), headers={"content-type": kind})
    assert (answer.status_code, answer.json()["reason"]) == (202, "other_label")


@pytest.mark.parametrize(
    "body",
    [b"payload=%7B%7D&payload=%7B%7D", b"a=1", b"payload=%FF", b"", b"{}", b"payload=no+json"],
)
async def test_a_signed_form_that_cannot_be_read_is_told_so(shared: Place, body: bytes) -> None:
    answer = await shared.post(body, headers={"content-type": FORM})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": None},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/jsonx"},
        {"content-type": "text/json"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-encoding": "gzip"},
        {"content-encoding": "identity, gzip"},
    ],
)
async def test_another_content_type_is_refused_only_after_the_signature_held(
    shared: Place, headers: dict[str, str | None]
) -> None:
    async with shared.remembers_nothing():
        signed = await shared.post(b"{}", headers=headers)
        assert signed.status_code == 415
        unsigned = await shared.post(b"{}", headers={**headers, "x-hub-signature-256": None})
        assert (unsigned.status_code, unsigned.json()) == (401, UNSIGNED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1",
        b"{",
        b"[]",
        b"null",
        b"\xef\xbb\xbf{}",
        b'{"action":"\xff"}',
        b'{"action":"\\ud800"}',
        b'{"a":' * 200_000,
        b"[" * 2_000_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        "{}".encode("utf-16"),
    ],
)
async def test_a_signed_body_that_is_no_json_object_is_a_400(shared: Place, body: bytes) -> None:
    async with shared.remembers_nothing():
        assert (await shared.post(body)).status_code == 400


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sender": {"id": 1, "login": "dependabot[bot]", "type": "Bot"}}, "bot"),
        ({"issue": {"pull_request": {"url": "u"}}}, "pull_request"),
        ({"issue": {"number": "seven"}}, "unreadable"),
        ({"issue": {"number": 10**40}}, "unreadable"),
        ({"repository": {"id": 1, "full_name": "../.."}}, "unreadable"),
    ],
)
async def test_what_is_ignored_is_remembered_with_its_reason(
    shared: Place, changes: dict[str, Any], reason: str
) -> None:
    delivery = new_id()
    answer = await shared.post(shared.issue_event(**changes), delivery=delivery)
    assert answer.status_code == 202
    assert answer.json() == {"delivery": delivery, "status": "ignored", "reason": reason}
    row = await shared.newest()
    assert row is not None
    assert (row["delivery"], row["state"], row["reason"]) == (delivery, "ignored", reason)


# --- signatures ---------------------------------------------------------------------------------------

GOOD = signature(PUSH)


@pytest.mark.parametrize(
    "value",
    [
        None, "", "sha1=" + GOOD[7:47], GOOD[:-1], GOOD + "0", "sha256=" + GOOD[7:].upper(),
        "SHA256=" + GOOD[7:], "sha256=" + "g" * 64, "sha256= " + GOOD[7:], "sha256=" + "\xe9" * 64,
        f"{GOOD},{GOOD}", signature(PUSH, "another secret"), signature(PUSH, ""), signature(PUSH + b" "),
        "sha256=" + "0" * 30_000,
    ],
)  # fmt: skip
async def test_a_bad_signature_is_refused_and_leaves_nothing(shared: Place, value: str | None) -> None:
    sent = shared.headers(PUSH, event="push", replaced={"x-hub-signature-256": value})
    raw = [(name.encode(), text.encode("latin-1")) for name, text in sent.items()]
    async with shared.remembers_nothing():
        answer = await shared.client.post("/webhook/github", content=PUSH, headers=raw)
        assert (answer.status_code, answer.json()) == (401, UNSIGNED)
    assert 'millrace_deliveries_total{outcome="unsigned"}' in (await shared.get("/metrics")).text


@pytest.mark.parametrize("second", [GOOD, "", "sha256=" + "0" * 64])
async def test_two_signature_headers_are_none(shared: Place, second: str) -> None:
    headers = [*shared.headers(PUSH, event="push").items(), ("X-Hub-Signature-256", second)]
    answer = await shared.client.post("/webhook/github", content=PUSH, headers=headers)
    assert (answer.status_code, answer.json()) == (401, UNSIGNED)


async def test_the_old_signature_alone_is_none(shared: Place) -> None:
    headers = {"x-hub-signature-256": None, "x-hub-signature": "sha1=" + GOOD[7:47]}
    assert (await shared.post(PUSH, event="push", headers=headers)).status_code == 401


@pytest.mark.parametrize("place_of_bit", [0, 7, len(PUSH) * 4, len(PUSH) * 8 - 1])
async def test_one_bit_of_the_body_changed_is_refused(shared: Place, place_of_bit: int) -> None:
    changed = bytearray(PUSH)
    changed[place_of_bit // 8] ^= 1 << place_of_bit % 8
    answer = await shared.post(bytes(changed), event="push", headers={"x-hub-signature-256": GOOD})
    assert answer.status_code == 401


@pytest.mark.parametrize("target", ["4711", "0", "-1", "1e3", "", "9" * 40, "1001, 4711", "0x3e9"])
async def test_a_delivery_for_another_app_is_answered_like_a_bad_signature(
    shared: Place, target: str
) -> None:
    async with shared.remembers_nothing():
        headers = {"x-github-hook-installation-target-id": target}
        answer = await shared.post(PUSH, event="push", headers=headers)
        assert (answer.status_code, answer.json()) == (401, UNSIGNED)


async def test_a_body_about_another_apps_installation_is_answered_like_a_bad_signature(
    shared: Place,
) -> None:
    foreign = {"id": shared.installation.id, "app_id": shared.app.id + 1}
    async with shared.remembers_nothing():
        answer = await shared.post(shared.issue_event(installation=foreign))
        assert (answer.status_code, answer.json()) == (401, UNSIGNED)


@pytest.mark.parametrize("kind", ["repository", "organization"])
async def test_a_repositorys_own_hook_is_heard_if_an_apps_secret_signed_it(shared: Place, kind: str) -> None:
    headers = {"x-github-hook-installation-target-type": kind, "x-github-hook-installation-target-id": "77"}
    assert (await shared.post(PUSH, event="push", headers=headers)).status_code == 202
    assert (await shared.post(PUSH, event="push", headers=headers, secret="x")).status_code == 401


@pytest.mark.parametrize("name", ["x-github-delivery", "x-github-event"])
@pytest.mark.parametrize("value", [None, "", "a b", "../x", "é", "x" * 200])
async def test_a_signed_request_without_a_usable_id_or_event_is_a_400(
    shared: Place, name: str, value: str | None
) -> None:
    sent = shared.headers(PUSH, event="push", replaced={name: value})
    raw = [(key.encode(), text.encode("latin-1")) for key, text in sent.items()]
    answer = await shared.client.post("/webhook/github", content=PUSH, headers=raw)
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["X-GitHub-Delivery", "X-GitHub-Event", "Content-Type"])
async def test_a_header_that_comes_twice_counts_as_none(shared: Place, name: str) -> None:
    sent = shared.headers(PUSH, event="push")
    headers = [*sent.items(), (name, sent[name.lower()])]
    answer = await shared.client.post("/webhook/github", content=PUSH, headers=headers)
    assert answer.status_code == (415 if name == "Content-Type" else 400)


async def test_a_rotated_secret_holds_at_once_and_the_old_one_no_longer(own: Place) -> None:
    assert (await own.post(PUSH, event="push")).status_code == 202
    stored = await own.client.post("/config", json={"webhookSecret": "rotated"}, headers=own.operator())
    assert stored.status_code == 200
    assert (await own.post(PUSH, event="push")).status_code == 401
    assert (await own.post(PUSH, event="push", secret="rotated")).status_code == 202


# --- the same delivery again --------------------------------------------------------------------------


async def test_a_delivery_sent_again_and_again_makes_one_row_and_one_run(own: Place) -> None:
    delivery, event = new_id(), own.issue_event()
    answers = [await own.post(event, delivery=delivery) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 202]
    assert [answer.json()["status"] for answer in answers] == ["accepted", "duplicate", "duplicate"]
    await own.settled(delivery)

    await own.stop_gateway()
    inbox = sqlite3.connect(own.settings.home / "gateway.sqlite3", isolation_level=None)
    inbox.execute("UPDATE deliveries SET received_at = datetime(received_at, '-3 days')")
    inbox.close()
    await own.start_gateway()

    answer = await own.post(event, delivery=delivery)
    assert (answer.status_code, answer.json()["status"]) == (202, "duplicate")
    assert list(await own.rows()) == [delivery]
    assert len(await own.runs()) == 1


async def test_fifty_at_once_to_two_replicas_make_one_row_and_one_run(own: Place) -> None:
    raw, delivery = text_of(own.issue_event()), new_id()
    headers = own.headers(raw, delivery=delivery)
    async with own.another_gateway() as other:
        answers = await asyncio.gather(
            *(
                client.post("/webhook/github", content=raw, headers=headers)
                for client in (own.client, other)
                for _ in range(25)
            )
        )
        await own.settled(delivery)
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 49
    assert list(await own.rows()) == [delivery]
    assert len(await own.runs()) == 1


async def test_the_same_opening_through_two_hooks_makes_one_run(own: Place) -> None:
    through_app, through_repository = new_id(), new_id()
    event = own.issue_event()
    kind = {"x-github-hook-installation-target-type": "repository"}
    without = {key: value for key, value in event.items() if key != "installation"}
    await asyncio.gather(
        own.post(event, delivery=through_app), own.post(without, delivery=through_repository, headers=kind)
    )
    await own.settled(through_app, through_repository)
    rows = await own.rows()
    assert sorted((row["state"], row["reason"]) for row in rows.values()) == [
        ("ignored", "already_requested"),
        ("relayed", ""),
    ]
    assert len(await own.runs()) == 1


# --- sizes and framing --------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """A JSON object of exactly this size."""
    return b'{"ref":"' + b"x" * (size - 10) + b'"}'


@pytest.mark.parametrize("size", [10, 64 * 1024, 256 * 1024 + 1, 10_000_000, MAX_BODY])
async def test_a_body_of_up_to_25_mib_is_taken(shared: Place, size: int) -> None:
    answer = await shared.post(padded(size), event="push")
    assert (answer.status_code, answer.json()["reason"]) == (202, "event_not_used")


async def test_a_form_of_25_mib_is_taken(shared: Place) -> None:
    start, end = b"payload=%7B%22ref%22%3A%22", b"%22%7D"
    body = start + b"+" * (MAX_BODY - len(start) - len(end)) + end
    assert len(body) == MAX_BODY
    answer = await shared.post(body, event="push", headers={"content-type": FORM})
    assert answer.status_code == 202


@pytest.mark.parametrize("more", [1, 5_000_000])
@pytest.mark.parametrize("lines", [(), ("Connection: close",), ("Expect: 100-continue",)])
async def test_a_larger_one_is_refused_and_a_client_that_reads_last_can_read_that(
    shared: Place, more: int, lines: tuple[str, ...]
) -> None:
    body = padded(MAX_BODY + more)
    async with shared.wire() as wire:
        await wire.send(shared.head(body, *lines, f"Content-Length: {len(body)}", event="push"))
        await wire.send(body)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await wire.closed() == b""


async def test_a_larger_one_is_refused_before_it_is_sent(shared: Place) -> None:
    async with shared.wire() as wire:
        await wire.send(shared.head(b"", f"Content-Length: {MAX_BODY + 1}"))
        assert (await wire.answer()).status == 413


async def test_a_larger_one_in_chunks_is_refused(shared: Place) -> None:
    async with shared.wire() as wire:
        await wire.send(shared.head(b"", "Transfer-Encoding: chunked"))
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(26):
            await wire.send(piece)
        assert (await wire.answer()).status == 413


async def test_bodies_that_together_need_too_much_room_are_put_off_and_small_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ROOM", 2 * 2**20)
    large = padded(2 * 2**20)
    async with place(tmp_path, SOON) as it, it.wire() as wire:
        await wire.send(it.head(large, f"Content-Length: {len(large)}", event="push") + large[:-1])
        async with asyncio.timeout(10):
            while (answer := await it.post(large, event="push")).status_code != 503:
                assert answer.status_code == 202  # the first was not yet read
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("10", "close")
        assert (await it.post(PUSH, event="push")).status_code == 202
        await wire.send(large[-1:])
        assert (await wire.answer()).status == 202
        assert (await it.post(large, event="push")).status_code == 202


@pytest.mark.parametrize("pieces", [1, 3, len(PUSH)])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_body_may_come_in_pieces(shared: Place, pieces: int, version: str) -> None:
    async with shared.wire() as wire:
        await wire.send(shared.head(PUSH, f"Content-Length: {len(PUSH)}", event="push", version=version))
        for start in range(0, len(PUSH), -(-len(PUSH) // pieces)):
            await wire.send(PUSH[start : start + -(-len(PUSH) // pieces)])
        answer = await wire.answer()
        assert answer.status == 202
        assert ("close" in answer.headers.get("connection", "")) == (version == "1.0")


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PUSH), PUSH)


async def test_a_body_may_come_in_chunks(shared: Place) -> None:
    async with shared.wire() as wire:
        await wire.send(shared.head(PUSH, "Transfer-Encoding: chunked", event="push") + CHUNKED)
        assert (await wire.answer()).status == 202


async def test_a_client_that_asks_first_is_told_to_go_on(shared: Place) -> None:
    async with shared.wire() as wire:
        lines = (f"Content-Length: {len(PUSH)}", "Expect: 100-continue")
        await wire.send(shared.head(PUSH, *lines, event="push"))
        assert (await wire.answer()).status == 100
        await wire.send(PUSH)
        assert (await wire.answer()).status == 202


async def test_a_trailer_is_no_header(shared: Place) -> None:
    late = f"X-Hub-Signature-256: {signature(PUSH)}\r\n\r\n".encode()
    head = shared.head(
        PUSH, "Transfer-Encoding: chunked", event="push", replaced={"x-hub-signature-256": None}
    )
    async with shared.wire() as wire:
        await wire.send(head + CHUNKED[:-2] + late)
        assert (await wire.answer()).status == 401


LENGTH = f"Content-Length: {len(PUSH)}"


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        pytest.param(("Content-Length: -1",), PUSH, id="a negative length"),
        pytest.param(("Content-Length: +25",), PUSH, id="a length with a sign"),
        pytest.param(("Content-Length: 0x19",), PUSH, id="a hexadecimal length"),
        pytest.param(("Content-Length: 2 5",), PUSH, id="a length in two parts"),
        pytest.param(("Content-Length: ",), PUSH, id="an empty length"),
        pytest.param(("Content-Length: " + "9" * 40,), PUSH, id="a length without end"),
        pytest.param((LENGTH, LENGTH), PUSH, id="a length twice"),
        pytest.param((LENGTH, "Content-Length: 1"), PUSH, id="two lengths"),
        pytest.param((f"{LENGTH}, {len(PUSH)}",), PUSH, id="a list of lengths"),
        pytest.param((LENGTH, "Transfer-Encoding: chunked"), CHUNKED, id="a length and chunks"),
        pytest.param(("Transfer-Encoding: chunked", LENGTH), CHUNKED, id="chunks and a length"),
        pytest.param(("Transfer-Encoding: identity", LENGTH), PUSH, id="an encoding that is none"),
        pytest.param(("Transfer-Encoding: xchunked", LENGTH), PUSH, id="an encoding nobody knows"),
        pytest.param(("Transfer-Encoding: gzip, chunked",), CHUNKED, id="an encoding before the chunks"),
        pytest.param(("Transfer-Encoding: chunked, gzip",), CHUNKED, id="an encoding after the chunks"),
        pytest.param(("Transfer-Encoding: chunked",) * 2, CHUNKED, id="chunks twice"),
        pytest.param(("Transfer-Encoding : chunked",), CHUNKED, id="a blank before the colon"),
        pytest.param(("Transfer-Encoding:\x0bchunked",), CHUNKED, id="a vertical tab"),
        pytest.param((LENGTH, "X: a\n b"), PUSH, id="a line by itself"),
        pytest.param((LENGTH, "X: a\r\n b"), PUSH, id="a folded line"),
        pytest.param((LENGTH, "X: a\0b"), PUSH, id="a NUL"),
        pytest.param((LENGTH, "no colon"), PUSH, id="a line without a colon"),
        pytest.param(("Transfer-Encoding: chunked",), b"zz\r\n", id="a chunk without a size"),
        pytest.param(("Transfer-Encoding: chunked",), b"-1\r\n", id="a chunk of negative size"),
        pytest.param(("Transfer-Encoding: chunked",), b"f" * 17 + b"\r\n", id="a chunk without end"),
        pytest.param(("Transfer-Encoding: chunked",), b"2\r\n{}xx0\r\n\r\n", id="a chunk that is longer"),
    ],
)
async def test_ambiguous_framing_is_refused_and_the_connection_closed(
    shared: Place, lines: tuple[str, ...], body: bytes
) -> None:
    async with shared.remembers_nothing(), shared.wire() as wire:
        await wire.send(shared.head(PUSH, *lines, event="push") + body)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await wire.closed() == b""


@pytest.mark.parametrize("length", [len(PUSH) - 1, len(PUSH) + 1])
async def test_a_length_that_lies_never_makes_a_delivery(impatient: Place, length: int) -> None:
    async with impatient.remembers_nothing(), impatient.wire() as wire:
        await wire.send(impatient.head(PUSH, f"Content-Length: {length}", event="push") + PUSH)
        assert (await wire.answer()).status in {400, 401, 408}


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_a_body_behind_an_upgrade_is_not_trusted(shared: Place, upgrade: str) -> None:
    lines = (LENGTH, "Connection: Upgrade", f"Upgrade: {upgrade}")
    async with shared.wire() as wire:
        await wire.send(shared.head(PUSH, *lines, event="push") + PUSH)
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert await wire.closed() == b""


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_post_is_for_webhooks(shared: Place, method: str) -> None:
    answer = await shared.client.request(method, "/webhook/github")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or answer.json()["error"]


@pytest.mark.parametrize("path", ["/webhook/github/", "/webhooks/github/", "/webhook/github?a=b"])
async def test_a_slash_or_a_query_at_the_end_does_no_harm(shared: Place, path: str) -> None:
    assert (await shared.post(PUSH, event="push", path=path)).status_code == 202


@pytest.mark.parametrize("path", ["/webhook", "/webhook/gitlab", "/webhook/github/x", "/Webhook/Github"])
async def test_beside_the_route_there_is_nothing(shared: Place, path: str) -> None:
    assert (await shared.post(PUSH, event="push", path=path)).status_code == 404


async def test_two_deliveries_sent_in_one_go_are_both_answered(shared: Place) -> None:
    first, second = new_id(), new_id()
    async with shared.wire() as wire:
        await wire.send(
            b"".join(
                shared.head(PUSH, LENGTH, event="push", delivery=each) + PUSH for each in (first, second)
            )
        )
        assert json.loads((await wire.answer()).body)["delivery"] == first
        assert json.loads((await wire.answer()).body)["delivery"] == second


async def test_no_answer_waits_for_an_acknowledgement(shared: Place) -> None:
    took = []
    async with shared.wire() as wire:
        for _ in range(50):
            await wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer, each = await seconds(wire.answer())
            assert answer.status == 200
            took.append(each)
    # With Nagle's algorithm all but the first few take 40 ms, the time of a delayed ACK.
    assert sorted(took)[25] < 0.035


# --- slow, rude and absent clients --------------------------------------------------------------------


async def test_a_head_of_a_megabyte_is_refused_and_can_be_read(impatient: Place) -> None:
    async with impatient.wire() as wire:
        await wire.send(impatient.head(PUSH, LENGTH, "X-Hub-Signature-256: " + "0" * 2**20) + PUSH)
        assert (await wire.answer()).status == 400
        assert await wire.closed() == b""


@pytest.mark.parametrize("flood", [b"X: " + b"y" * 2**22, b"X: y\r\n" * 2**18, b"", b"GET /" + b"y" * 2**22])
async def test_a_head_without_end_is_hung_up_on(impatient: Place, flood: bytes) -> None:
    async with impatient.wire() as wire:
        start = b"" if flood.startswith(b"GET") else b"POST /webhook/github HTTP/1.1\r\nHost: x\r\n"
        await wire.send(start + flood)
        _, took = await seconds(wire.closed())
        assert took < 2


@pytest.mark.parametrize("flood", [b"0\r\nX: " + b"y" * 2**22, b"2;" + b"y" * 2**22])
async def test_a_trailer_without_end_is_hung_up_on(impatient: Place, flood: bytes) -> None:
    async with impatient.wire() as wire:
        with pytest.raises((EOFError, ConnectionError)):  # noqa: PT012  wherever it is noticed
            await wire.send(impatient.head(PUSH, "Transfer-Encoding: chunked") + flood)
            await wire.answer()


@pytest.mark.parametrize("first", [b"", b"\r\n", b"P", b"POST /webhook/github HTTP/1.1\r\nX-A: "])
async def test_a_client_that_stops_within_the_head_is_hung_up_on(impatient: Place, first: bytes) -> None:
    async with impatient.wire() as wire:
        await wire.send(first)
        came, took = await seconds(wire.closed())
        assert came == b""
        assert took < 2


@pytest.mark.parametrize("first", [b"POST /webhook/", b"POST /webhook/github HTTP/1.1\r\nX-A: "])
async def test_a_client_that_takes_its_time_over_the_head_is_hung_up_on(
    impatient: Place, first: bytes
) -> None:
    async with impatient.wire() as wire:
        await wire.send(first)
        trickle = asyncio.create_task(_trickle(wire))
        came, took = await seconds(wire.closed())
        trickle.cancel()
        assert came == b""
        assert took < 2


async def test_a_client_that_takes_its_time_over_the_body_is_told_and_hung_up_on(impatient: Place) -> None:
    async with impatient.remembers_nothing(), impatient.wire() as wire:
        await wire.send(impatient.head(PUSH, "Content-Length: 1000", event="push"))
        trickle = asyncio.create_task(_trickle(wire))
        answer, took = await seconds(wire.answer())
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert took < 2
        assert await wire.closed() == b""
        trickle.cancel()


@pytest.mark.parametrize("path", ["/config", "/nowhere"])
async def test_so_is_one_on_any_other_route(impatient: Place, path: str) -> None:
    auth = impatient.operator()["authorization"]
    async with impatient.wire() as wire:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\nContent-Length: 99\r\n\r\n"
        await wire.send(head.encode())
        trickle = asyncio.create_task(_trickle(wire))
        _, took = await seconds(wire.closed())
        trickle.cancel()
        assert took < 3


async def test_bytes_after_an_answer_that_begin_no_request_keep_no_connection(impatient: Place) -> None:
    async with impatient.wire() as wire:
        await wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.answer()).status == 200
        await wire.send(b"\r\n")
        _, took = await seconds(wire.closed())
        assert took < 2


async def _trickle(wire: Wire) -> None:
    while True:
        await wire.send(b"x")
        await asyncio.sleep(0.05)


async def test_five_hundred_idle_connections_hold_up_nobody(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    async with place(tmp_path, SOON) as it, AsyncExitStack() as stack:
        for number in range(500):
            wire = await stack.enter_async_context(it.wire())
            await wire.send(b"POST /webhook/github HTTP/1.1\r\nX-A: "[: number % 40])
        answer, took = await seconds(it.post(PUSH, event="push"))
        assert answer.status_code == 202
        assert took < 1


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(own: Place) -> None:
    delivery = new_id()
    async with own.wire() as wire:
        await wire.send(own.head(PUSH, LENGTH, event="push", delivery=delivery) + PUSH[:10])
    await own.counted('millrace_deliveries_total{outcome="disconnected"}')
    assert await own.rows() == {}
    again = await own.post(PUSH, event="push", delivery=delivery)
    assert again.json()["status"] == "ignored"


async def test_a_client_that_leaves_before_the_answer_has_delivered(own: Place) -> None:
    raw, delivery = text_of(own.issue_event()), new_id()
    async with own.wire() as wire:
        await wire.send(own.head(raw, f"Content-Length: {len(raw)}", delivery=delivery) + raw)
    assert (await own.settled(delivery))["state"] == "relayed"
    assert (await own.post(raw, delivery=delivery)).json()["status"] == "duplicate"


# --- without NATS, under load -------------------------------------------------------------------------


async def test_without_nats_deliveries_are_taken_at_once_and_relayed_in_order_afterwards(own: Place) -> None:
    await own.stop_nats()
    took, sent = [], []
    for number in range(100):
        sent.append(new_id())
        event = own.comment_event("/millrace", number=7 + number % 5, comment_id=number)
        answer, each = await seconds(own.post(event, event="issue_comment", delivery=sent[-1]))
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        took.append(each)
    assert sorted(took)[98] < 0.2
    ready = await own.get("/ready")
    assert (ready.status_code, ready.json()["dependencies"]["nats"]) == (503, "NATS is not connected")
    await own.tried(sent[0])
    assert "millrace_inbox_pending 100.0" in (await own.get("/metrics")).text

    await own.start_nats()
    await own.settled(*sent, seconds=30)
    rows = await own.rows()
    # Of each issue the first comment began the run; every later one found it going on.
    assert [rows[each]["state"] for each in sent] == ["relayed"] * 5 + ["ignored"] * 95
    assert {rows[each]["reason"] for each in sent[5:]} == {"run_active"}
    assert [len(await own.runs(7 + issue)) for issue in range(5)] == [1] * 5


async def test_a_burst_of_a_thousand_is_taken_and_worked_off_in_flat_memory(own: Place) -> None:
    await own.stop_gateway()
    async with own.gateway_process() as gateway:
        own.client = gateway.client
        # What the first deliveries allocate once is not the burst's.
        await _burst(own, 100, first=1000)
        before = _resident(gateway.process.pid)
        answers = await _burst(own, 1000, first=0)
        assert {status for status, _, _ in answers} <= {202, 503}
        assert all(retry_after for status, retry_after, _ in answers if status == 503)
        taken = [delivery for status, _, delivery in answers if status == 202]
        assert len(set(taken)) == len(taken) > 900
        await own.settled(*taken, seconds=40)
        rows = await own.rows()
        assert {rows[each]["state"] for each in taken} <= {"relayed", "ignored"}
        # 64 MB came in; nothing near that may stay.
        assert _resident(gateway.process.pid) - before < 32 * 2**20
    assert [len(await own.runs(issue)) for issue in range(1, 21)] == [1] * 20


async def _burst(own: Place, size: int, first: int) -> list[tuple[int, str | None, str]]:
    hands = asyncio.Semaphore(64)
    filler = "x" * 64_000

    async def one(number: int) -> tuple[int, str | None, str]:
        delivery = new_id()
        event = own.comment_event("/millrace", number=1 + number % 20, comment_id=number)
        async with hands:
            answer = await own.post(event | {"filler": filler}, event="issue_comment", delivery=delivery)
        return answer.status_code, answer.headers.get("retry-after"), delivery

    return await asyncio.gather(*(one(number) for number in range(first, first + size)))


def _resident(process: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- without a database -------------------------------------------------------------------------------


async def test_a_locked_inbox_means_503_soon_and_202_when_it_is_free(own_impatient: Place) -> None:
    event, delivery = own_impatient.issue_event(), new_id()
    with own_impatient.locked_inbox():
        answer, took = await seconds(own_impatient.post(event, delivery=delivery))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert took < 2
        ready, took = await seconds(own_impatient.get("/ready"))
        assert ready.status_code == 503
        assert "inbox" in ready.json()["dependencies"]["database"]
        assert took < 4
    again = await own_impatient.post(event, delivery=delivery)
    assert again.status_code == 202  # accepted, or a duplicate of what was written when the lock was free
    assert (await own_impatient.settled(delivery))["state"] == "relayed"
    assert list(await own_impatient.rows()) == [delivery]
    assert len(await own_impatient.runs()) == 1


@pytest.mark.parametrize("pragmas", [NO_PAGES, NO_WRITES], ids=["full", "read-only"])
async def test_an_inbox_that_takes_nothing_means_503_and_no_row(
    own_impatient: Place, pragmas: tuple[str, str]
) -> None:
    event, delivery = own_impatient.issue_event(issue={"body": "x" * 60_000}), new_id()
    with own_impatient.spoiled_inbox(*pragmas):
        for _ in range(3):
            answer, took = await seconds(own_impatient.post(event, delivery=delivery))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
            assert took < 2
    assert delivery not in await own_impatient.rows()
    again = await own_impatient.post(event, delivery=delivery)
    assert (again.status_code, again.json()["status"]) == (202, "accepted")
    assert (await own_impatient.settled(delivery))["state"] == "relayed"


# --- killed -------------------------------------------------------------------------------------------


async def test_what_a_killed_gateway_had_answered_is_relayed_by_the_next(own: Place) -> None:
    sent = []
    await own.stop_gateway()
    async with own.gateway_process() as gateway:
        await own.stop_nats()
        for number in range(1, 11):
            raw = text_of(own.issue_event(number=number))
            headers = own.headers(raw, delivery=new_id())
            answer = await gateway.client.post("/webhook/github", content=raw, headers=headers)
            assert answer.status_code == 202
            sent.append(headers["x-github-delivery"])
        await gateway.kill()
    await own.start_nats()
    await own.start_gateway()
    await own.settled(*sent)
    assert [len(await own.runs(number)) for number in range(1, 11)] == [1] * 10
    again = [await own.post(own.issue_event(number=number), delivery=sent[number - 1]) for number in (1, 10)]
    assert [answer.json()["status"] for answer in again] == ["duplicate"] * 2


# --- what the log says --------------------------------------------------------------------------------


async def test_even_at_debug_level_the_log_holds_nothing_of_a_request_that_is_not_signed(own: Place) -> None:
    canary = b"canary-5f3a"
    body = b'{"action":"opened","issue":{"title":"%b-body"}}' % canary
    async with own.gateway_process() as gateway:
        signed = new_id()
        headers = own.headers(PUSH, event="push", delivery=signed)
        assert (
            await gateway.client.post("/webhook/github", content=PUSH, headers=headers)
        ).status_code == 202
        unsigned = own.headers(body, replaced={
            "x-hub-signature-256": f"sha256={canary.decode()}", "authorization": f"Bearer {canary.decode()}",
            "user-agent": canary.decode(), "x-github-delivery": canary.decode(), "cookie": canary.decode(),
        })  # fmt: skip
        for path in (
            "/webhook/github",
            f"/webhook/github?{canary.decode()}",
            f"/{canary.decode()}",
            "/config",
        ):
            answer = await gateway.client.post(path, content=body, headers=unsigned)
            assert answer.status_code in {401, 404}
            assert canary not in answer.content
        for raw in (
            canary + b"\r\n\r\n",
            b"POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-A: %b\r\nContent-Length: -1\r\n\r\n" % canary,
            b"POST /webhook/github HTTP/1.1\r\nHost: x\r\nUpgrade: %b\r\nConnection: upgrade\r\n\r\n"
            % canary,
            b"GET / HTTP/1.1\r\nX-A: " + canary * 20_000,
        ):
            async with own.wire(gateway.settings.listen) as wire:
                await wire.send(raw)
                await wire.answer()
        log = gateway.log.read_bytes()
    assert signed.encode() in log
    assert canary not in log
