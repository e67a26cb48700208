"""Which connections out of a setup are allowed, decided from the bytes of a request (pure).

Only ``CONNECT host:port`` is understood, and of it only the plainest form: what two parsers could read in
two ways is refused, not repaired.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable

import msgspec

PORT = 443
MAX_HEAD = 4096
"""Bytes of a request up to the blank line."""

_REQUEST = re.compile(rb"CONNECT ([\x21-\x7e]+) HTTP/1\.[01]")
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_TARGET = re.compile(r"([^:@/?#\[\]]+):([1-9][0-9]{0,4})")
# What would make the tunnel's first bytes part of the request for somebody else
_BODY = {b"content-length", b"transfer-encoding", b"upgrade", b"expect"}


class Blocked(Exception):  # noqa: N818  a sentence about one request
    """A connection that is not made. ``target`` is what was asked for, as far as it could be read."""

    def __init__(self, why: str, target: str = "", status: str = "403 Forbidden") -> None:
        super().__init__(why)
        self.why = why
        self.target = target
        self.status = status


class Target(msgspec.Struct, frozen=True, order=True):
    """A host by its exact name, in small letters, and a port."""

    host: str
    port: int = PORT

    def __str__(self) -> str:
        return self.host if self.port == PORT else f"{self.host}:{self.port}"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a setup may reach.

    ``hosts`` must resolve to addresses of the public internet. ``mirrors`` are the operator's own package
    indexes: they may have any address and port, since the operator named them.
    """

    hosts: frozenset[Target] = frozenset()
    mirrors: frozenset[Target] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether nothing at all may be reached."""
        return not self.hosts and not self.mirrors


def parse_target(text: str) -> Target:
    """``host`` or ``host:port`` as people write it in settings; ``ValueError`` if it is anything else."""
    name, colon, port = text.partition(":")
    numbered = re.fullmatch(r"[1-9][0-9]{0,4}", port) if colon else True
    if not _HOST.fullmatch(name) or _is_address(name) or not numbered:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT with an exact name in small letters")
    if int(port or PORT) > 65535:
        raise ValueError(f"{text!r} has a port above 65535")
    return Target(name, int(port or PORT))


def read_request(head: bytes) -> Target:
    """The target of a request's head, which ends with the blank line.

    Raises:
        Blocked: it is not a plain CONNECT to a name.
    """
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _REQUEST.fullmatch(lines[0])
    if found is None:
        method = lines[0].split(b" ")[0].decode("ascii", "replace")[:20]
        raise Blocked(f"only CONNECT is answered, not {method!r}", status="405 Method Not Allowed")
    text = found[1].decode("ascii")
    target = _read_target(text)
    for line in lines[1:]:
        if not _HEADER.fullmatch(line):
            raise Blocked("a header line is malformed", text, status="400 Bad Request")
        if line.split(b":")[0].lower() in _BODY:
            raise Blocked("a CONNECT has no body", text, status="400 Bad Request")
    return target


def _read_target(text: str) -> Target:
    if "@" in text:
        raise Blocked("a target with a user", text.rpartition("@")[2], status="400 Bad Request")
    found = _TARGET.fullmatch(text)
    name = found[1].lower() if found else ""
    if found is None or int(found[2]) > 65535:
        raise Blocked("the target is not HOST:PORT", text, status="400 Bad Request")
    if _is_address(name):
        raise Blocked("an address instead of a name", text)
    if not _HOST.fullmatch(name):
        raise Blocked("the target is not a host name", text, status="400 Bad Request")
    return Target(name, int(found[2]))


def _is_address(name: str) -> bool:
    """Whether some resolver could take it for an address: 127.1, 0x7f000001, 2130706433 and the like."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        last = name.rstrip(".").rpartition(".")[2]
        return bool(re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last))
    return True


def check_target(policy: Policy, target: Target) -> bool:
    """Whether its addresses must be public; ``Blocked`` if it may not be reached at all."""
    if target in policy.mirrors:
        return False
    if target in policy.hosts:
        return True
    known = {each.host for each in policy.hosts | policy.mirrors}
    why = f"port {target.port} is not allowed" if target.host in known else "the host is not on the list"
    raise Blocked(why, str(target))


def check_addresses(addresses: Collection[str], own: Iterable[str] = ()) -> None:
    """``Blocked`` unless every address is one of the public internet and none is this machine's.

    All of them: a name that also leads inside is not used for the part that does not.
    """
    mine = set(own)
    for text in addresses:
        if not is_public(text) or text in mine:
            raise Blocked("the name leads to an address that is not public")


def is_public(text: str) -> bool:
    """Whether an address is globally reachable, whatever it is wrapped in."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 (RFC 6052)
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address in ipaddress.ip_network("64:ff9b:1::/48") or address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def server_name(record: bytes) -> str | None:
    """The name in a TLS client's first message (RFC 8446, RFC 6066); None while it is not complete.

    Raises:
        Blocked: it is not the beginning of TLS, or it names nobody. Whoever may reach a host may reach
            that host, and not another one behind the same address.
    """
    body = bytearray()
    at = 0
    while True:
        if record[at : at + 2] and not b"\x16\x03".startswith(record[at : at + 2]):
            raise Blocked("what follows is not TLS")
        if len(record) < at + 5:
            return None
        length = int.from_bytes(record[at + 3 : at + 5])
        if not 0 < length <= 16384:
            raise Blocked("what follows is not TLS")
        if len(record) < at + 5 + length:
            return None
        body += record[at + 5 : at + 5 + length]
        at += 5 + length
        if body[0] != 1:
            raise Blocked("what follows is not TLS")
        if len(body) >= 4 and len(body) >= 4 + int.from_bytes(body[1:4]):
            return _name_in(bytes(body[4 : 4 + int.from_bytes(body[1:4])]))


def _name_in(hello: bytes) -> str:
    try:
        at = 34  # version, random
        at += 1 + hello[at]
        at += 2 + int.from_bytes(hello[at : at + 2])
        at += 1 + hello[at]
        end = at + 2 + int.from_bytes(hello[at : at + 2])
        at += 2
        while at + 4 <= min(end, len(hello)):
            kind, length = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
            if kind == 0 and hello[at + 6] == 0:
                size = int.from_bytes(hello[at + 7 : at + 9])
                return hello[at + 9 : at + 9 + size].decode("ascii").lower()
            at += 4 + length
    except (IndexError, UnicodeDecodeError) as error:
        raise Blocked("its TLS cannot be read") from error
    raise Blocked("its TLS names no host")
