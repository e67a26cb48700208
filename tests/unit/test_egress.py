"""The way out of a setup: what is let through, what is refused, and what the other side sees of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox_runner import proxy as proxies
from services.sandbox_runner.egress import (
    Blocked,
    Policy,
    Target,
    check_addresses,
    check_target,
    is_public,
    parse_target,
    read_request,
    server_name,
)
from services.sandbox_runner.proxy import Proxy

HOST = "packages.example.org"


def hello(name: str | None) -> bytes:
    """A real client's first message to this host."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    wrapped = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        wrapped.do_handshake()
    return outgoing.read()


# --- pure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["CONNECT a.example:443 HTTP/1.1", "CONNECT A.Example:443 HTTP/1.0"])
def test_a_plain_connect_is_understood(line: str) -> None:
    head = f"{line}\r\nHost: a.example:443\r\nUser-Agent: pip/23\r\n\r\n"
    assert read_request(head.encode()) == Target("a.example")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        pytest.param("GET http://a.example/ HTTP/1.1", "only CONNECT", id="a plain request"),
        pytest.param("connect a.example:443 HTTP/1.1", "only CONNECT", id="small letters"),
        pytest.param("CONNECT a.example:443", "only CONNECT", id="HTTP 0.9"),
        pytest.param("CONNECT a.example:443 HTTP/2", "only CONNECT", id="another version"),
        pytest.param("CONNECT  a.example:443 HTTP/1.1", "only CONNECT", id="two spaces"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\nHost: b", "only CONNECT", id="a bare line feed"),
        pytest.param("CONNECT user@a.example:443 HTTP/1.1", "with a user", id="a user"),
        pytest.param("CONNECT a.example:443@b.example:443 HTTP/1.1", "with a user", id="a host as user"),
        pytest.param("CONNECT a.example HTTP/1.1", "not HOST:PORT", id="no port"),
        pytest.param("CONNECT a.example:0443 HTTP/1.1", "not HOST:PORT", id="a zero before"),
        pytest.param("CONNECT a.example:99999 HTTP/1.1", "not HOST:PORT", id="a port too high"),
        pytest.param("CONNECT a.example:443/x HTTP/1.1", "not HOST:PORT", id="a path"),
        pytest.param("CONNECT https://a.example:443 HTTP/1.1", "not HOST:PORT", id="a scheme"),
        pytest.param("CONNECT 127.0.0.1:443 HTTP/1.1", "an address", id="IPv4"),
        pytest.param("CONNECT 127.1:443 HTTP/1.1", "an address", id="IPv4 in short"),
        pytest.param("CONNECT 0x7f000001:443 HTTP/1.1", "an address", id="IPv4 in hex"),
        pytest.param("CONNECT 2130706433:443 HTTP/1.1", "an address", id="IPv4 as a number"),
        pytest.param("CONNECT 0177.0.0.01:443 HTTP/1.1", "an address", id="IPv4 in octal"),
        pytest.param("CONNECT 169.254.169.254:443 HTTP/1.1", "an address", id="the metadata service"),
        pytest.param("CONNECT [::1]:443 HTTP/1.1", "not HOST:PORT", id="IPv6"),
        pytest.param("CONNECT a.example.:443 HTTP/1.1", "not a host name", id="a dot behind"),
        pytest.param("CONNECT -a.example:443 HTTP/1.1", "not a host name", id="a dash before"),
        pytest.param("CONNECT a%2eexample:443 HTTP/1.1", "not a host name", id="an escape"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5", "no body", id="a length"),
        pytest.param(
            "CONNECT a.example:443 HTTP/1.1\r\nTransfer-Encoding: chunked", "no body", id="an encoding"
        ),
        pytest.param("CONNECT a.example:443 HTTP/1.1\r\n folded: x", "malformed", id="a folded header"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\r\nHost : x", "malformed", id="a space before a colon"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\r\nX: a\rb", "malformed", id="a bare return"),
        pytest.param("CONNECT a.example:443 HTTP/1.1\r\nX: a\0b", "malformed", id="a null"),
    ],
)
def test_everything_else_is_refused(head: str, words: str) -> None:
    with pytest.raises(Blocked, match=words):
        read_request(f"{head}\r\n\r\n".encode())


@given(st.binary())
def test_no_bytes_break_the_reading(data: bytes) -> None:
    with suppress(Blocked):
        read_request(data + b"\r\n\r\n")
    with suppress(Blocked):
        server_name(data)


def test_only_exact_hosts_and_ports_are_reached() -> None:
    policy = Policy(hosts=frozenset({Target(HOST)}), mirrors=frozenset({Target("mirror.corp.example", 8443)}))
    assert check_target(policy, Target(HOST)) is True
    assert check_target(policy, Target("mirror.corp.example", 8443)) is False
    for target in (Target(HOST, 22), Target("mirror.corp.example")):
        with pytest.raises(Blocked, match="port"):
            check_target(policy, target)
    for name in (f"x.{HOST}", f"{HOST}.trap.example", "example.org"):
        with pytest.raises(Blocked, match="not on the list"):
            check_target(policy, Target(name))


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700::1111"])
def test_public_addresses(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),  # noqa: S104
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "fd00::2",
        ),
    ],
)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(text)


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    check_addresses(["1.1.1.1", "2606:4700::1111"])
    with pytest.raises(Blocked, match="not public"):
        check_addresses(["1.1.1.1", "127.0.0.1"])
    with pytest.raises(Blocked, match="not public"):
        check_addresses(["1.1.1.1"], own=["1.1.1.1"])


def test_targets_in_settings() -> None:
    assert parse_target("a.example") == Target("a.example")
    assert parse_target("a.example:8443") == Target("a.example", 8443)
    for text in (
        "",
        "*",
        "A.example",
        "a.example:",
        "a.example:0",
        "10.0.0.1",
        "https://a.example",
        "a:70000",
    ):
        with pytest.raises(ValueError, match=r"HOST|port"):
            parse_target(text)


def test_the_name_in_a_real_clients_first_message() -> None:
    data = hello(HOST)
    assert server_name(data) == HOST
    assert [server_name(data[:cut]) for cut in (0, 1, 5, len(data) - 1)] == [None] * 4
    halves = [data[5:105], data[105:]]  # the same message in two records
    split = b"".join(b"\x16\x03\x01" + len(half).to_bytes(2) + half for half in halves)
    assert server_name(split) == HOST


def test_what_is_not_tls_or_names_nobody_is_refused() -> None:
    for data in (
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x17\x03\x03\x00\x01x",
    ):
        with pytest.raises(Blocked, match="not TLS"):
            server_name(data)
    with pytest.raises(Blocked, match="names no host"):
        server_name(hello(None))


# --- real sockets ----------------------------------------------------------------------------------------


class Upstream:
    """A server that says what it got; the names of the tests lead to it."""

    def __init__(self) -> None:
        self.got = b""
        self.connections = 0
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError):
            while data := await reader.read(65536):
                self.got += data
                writer.write(data)
                await writer.drain()
        writer.close()

    async def look_up(self, host: str, _: int) -> list[str]:
        self.asked.append(host)
        return ["127.0.0.1"] if len(self.asked) == 1 else ["127.0.0.2"]

    @property
    def policy(self) -> Policy:
        return Policy(hosts=frozenset({Target(HOST)}), mirrors=frozenset({Target("mirror.test", self.port)}))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def ask(directory: Path, data: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(directory / "proxy")
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(4096), 20)
    return answer.split(b"\r\n")[0], reader, writer


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


async def test_bytes_go_both_ways_and_are_counted(tmp_path: Path, upstream: Upstream) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up) as proxy:
        status, reader, writer = await ask(tmp_path, connect(f"mirror.test:{upstream.port}"))
        assert status == b"HTTP/1.1 200 Connection established"
        data = hello("mirror.test")
        writer.write(data[:100])
        writer.write(data[100:])
        assert await reader.readexactly(len(data)) == data
        writer.close()
        assert upstream.asked == ["mirror.test"]  # resolved once, whatever a second look-up would say
        (traffic,) = proxy.traffic.values()
        assert (traffic.connections, traffic.sent, traffic.received) == (1, len(data), len(data))
        assert proxy.refused == {}
    assert not (tmp_path / "proxy").exists()


async def test_when_it_closes_everything_that_is_open_ends(tmp_path: Path, upstream: Upstream) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up):
        _, reader, writer = await ask(tmp_path, connect(f"mirror.test:{upstream.port}"))
        writer.write(hello("mirror.test"))
        await reader.readexactly(100)
    while await asyncio.wait_for(reader.read(65536), 5):
        pass
    with pytest.raises(OSError, match=r"No such file|refused"):
        await asyncio.open_unix_connection(tmp_path / "proxy")


@pytest.mark.parametrize(
    ("first", "why"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "what follows is not TLS", id="plain HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "what follows is not TLS", id="ssh"),
        pytest.param(hello("trap.example"), "its TLS names another host: trap.example", id="another host"),
    ],
)
async def test_a_tunnel_carries_tls_for_its_host_only(
    tmp_path: Path, upstream: Upstream, first: bytes, why: str
) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up) as proxy:
        _, reader, writer = await ask(tmp_path, connect(f"mirror.test:{upstream.port}"))
        writer.write(first)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert [refusal.why for refusal in proxy.refused] == [why]
    assert upstream.got == b""


async def test_a_host_that_leads_inside_is_not_reached(tmp_path: Path, upstream: Upstream) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up) as proxy:
        status, *_ = await ask(tmp_path, connect(f"{HOST}:443"))
        assert status == b"HTTP/1.1 403 Forbidden"
        (refusal,) = proxy.refused
        assert (refusal.target, refusal.why) == (HOST, "the name leads to an address that is not public")
    assert upstream.connections == 0


async def test_bytes_before_the_answer_are_refused(tmp_path: Path, upstream: Upstream) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up) as proxy:
        smuggled = connect(f"mirror.test:{upstream.port}") + b"GET / HTTP/1.1\r\n\r\n"
        status, *_ = await ask(tmp_path, smuggled)
        assert status == b"HTTP/1.1 400 Bad Request"
        assert [refusal.why for refusal in proxy.refused] == ["bytes before the answer"]
    assert upstream.connections == 0


async def test_slow_and_long_requests_end(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "_HEAD_SECONDS", 0.2)
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up):
        assert (await ask(tmp_path, b"CONNECT "))[0] == b"HTTP/1.1 408 Request Timeout"
        long = b"CONNECT a.example:443 HTTP/1.1\r\nX: " + b"x" * 20_000
        assert (await ask(tmp_path, long))[0].startswith(b"HTTP/1.1 431")


async def test_connections_and_bytes_are_bounded(tmp_path: Path, upstream: Upstream) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up, connections=1, sent=5000) as proxy:
        _, reader, writer = await ask(tmp_path, connect(f"mirror.test:{upstream.port}"))
        status, *_ = await ask(tmp_path, connect(f"mirror.test:{upstream.port}"))
        assert status == b"HTTP/1.1 503 Service Unavailable"
        writer.write(hello("mirror.test") + b"x" * 10_000)
        while await asyncio.wait_for(reader.read(65536), 5):
            pass
        assert "more bytes were sent than a setup may" in [refusal.why for refusal in proxy.refused]
    assert len(upstream.got) <= 5000


async def test_what_is_remembered_of_refusals_is_bounded_and_printable(
    tmp_path: Path, upstream: Upstream
) -> None:
    async with Proxy(tmp_path, upstream.policy, look_up=upstream.look_up) as proxy:
        for number in range(60):
            await ask(tmp_path, connect(f"a{number}.example:443"))
        await ask(tmp_path, connect("a1.example:443"))
        assert len(proxy.refused) == 50
        assert sum(proxy.refused.values()) == 51
